use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::shared::claim::ObservedPod;
use crate::shared::testing::{ago, describe_actions, now, object, phase, pod, ready, status_of, with};

fn owner(replicas: i32, more: Value) -> Owner {
    let mut set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": "r", "namespace": "n", "uid": "u", "generation": 4},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "r"}},
            "template": {"metadata": {"labels": {"app": "r"}}, "spec": {"containers": []}}}});
    for (field, value) in more.as_object().into_iter().flatten() {
        set[field] = value.clone();
    }
    replica_set(&object(&set)).unwrap()
}

fn ours(name: &str, status: Value) -> ObservedPod {
    pod(name, "u", json!({"app": "r"}), json!({"nodeName": "x"}), status)
}

fn deleting(pod: ObservedPod) -> ObservedPod {
    with(&pod, |pod| pod["metadata"]["deletionTimestamp"] = json!(ago(1)))
}

#[track_caller]
fn check(owner: &Owner, pods: &[ObservedPod], wanted: &Expect) {
    wanted.assert_eq(&describe_actions(&plan(owner, pods, None, now())));
}

#[test]
fn as_many_as_asked_for() {
    check(
        &owner(2, json!({})),
        &[],
        &expect![[r#"
        create pods r-
        create pods r-"#]],
    );
    check(&owner(2, json!({})), &[ours("a", ready())], &expect!["create pods r-"]);
    check(&owner(1, json!({})), &[ours("a", ready())], &expect![""]);
    check(&owner(0, json!({})), &[ours("a", ready())], &expect!["delete pods a"]);
    // Finished and leaving pods do not count.
    check(
        &owner(1, json!({})),
        &[ours("a", phase("Failed")), deleting(ours("b", ready()))],
        &expect!["create pods r-"],
    );
}

#[test]
fn the_least_useful_pods_go_first() {
    let unscheduled = pod("none", "u", json!({"app": "r"}), json!({}), phase("Pending"));
    let cheap = with(&ours("cheap", ready()), |pod| {
        pod["metadata"]["annotations"] = json!({"controller.kubernetes.io/pod-deletion-cost": "-1"});
    });
    let young = with(&ours("young", ready()), |pod| pod["metadata"]["creationTimestamp"] = json!(ago(1)));
    let pods = [ours("old", ready()), young, cheap, ours("waiting", phase("Pending")), unscheduled];
    check(
        &owner(1, json!({})),
        &pods,
        &expect![[r#"
        delete pods none
        delete pods waiting
        delete pods cheap
        delete pods young"#]],
    );
}

#[test]
fn pods_are_adopted_and_released() {
    let orphan = pod("orphan", "", json!({"app": "r"}), json!({}), ready());
    let stranger = pod("stranger", "u", json!({"app": "x"}), json!({}), ready());
    let others = pod("others", "other", json!({"app": "r"}), json!({}), ready());
    let dead = pod("dead", "", json!({"app": "r"}), json!({}), phase("Failed"));
    let pods = [orphan.clone(), stranger, others, dead];
    check(
        &owner(1, json!({})),
        &pods,
        &expect![[r#"
        patch pods orphan: {"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"ReplicaSet","name":"r","uid":"u"}],"uid":"uid-orphan"}}
        patch pods stranger: {"metadata":{"ownerReferences":[{"$patch":"delete","uid":"u"}],"uid":"uid-stranger"}}"#]],
    );
    let mut leaving = owner(1, json!({}));
    leaving.meta.deletion_timestamp = Some(ago(1));
    check(&leaving, &[orphan], &expect![""]);
}

#[test]
fn the_status_counts() {
    let pods = [ours("a", ready()), ours("b", phase("Running")), deleting(ours("c", ready()))];
    expect![[r#"{"availableReplicas":1,"conditions":[],"fullyLabeledReplicas":2,"observedGeneration":4,"readyReplicas":1,"replicas":2,"terminatingReplicas":1}"#]]
        .assert_eq(&status_of(&plan(&owner(2, json!({})), &pods, None, now())).to_string());
    let mut slow = owner(1, json!({}));
    slow.min_ready_seconds = 130;
    let waiting = plan(&slow, &[ours("a", ready())], None, now());
    assert_eq!(waiting.next.map(|next| next.as_secs()), Some(30));
    assert_eq!(status_of(&waiting)["availableReplicas"], 0);
    let stored = json!({"status": {"replicas": 1, "fullyLabeledReplicas": 1, "readyReplicas": 1, "availableReplicas": 1,
        "observedGeneration": 4}});
    assert_eq!(status_of(&plan(&owner(1, stored), &[ours("a", ready())], None, now())), Value::Null);
}

#[test]
fn a_failure_is_shown_until_it_is_over() {
    let failure = Status::forbidden("", "pods", "", "exceeded quota");
    let failed = status_of(&plan(&owner(2, json!({})), &[], Some(&failure), now()));
    let shown = &failed["conditions"][0];
    assert_eq!((&shown["type"], &shown["reason"]), (&json!("ReplicaFailure"), &json!("FailedCreate")));
    assert!(shown["message"].as_str().unwrap().contains("exceeded quota"));
    let stored = json!({"status": {"conditions": [shown, {"type": "Other", "status": "True"}]}});
    let still = status_of(&plan(&owner(2, stored.clone()), &[ours("a", ready())], None, now()));
    assert_eq!(still["conditions"].as_array().map(Vec::len), Some(2));
    let over = status_of(&plan(&owner(1, stored), &[ours("a", ready())], None, now()));
    assert_eq!(over["conditions"], json!([{"type": "Other", "status": "True"}]));
}
