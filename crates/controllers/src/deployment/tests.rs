use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::shared::testing::{ago, describe_actions, now, object, status_of};

struct Case {
    deployment: Value,
    sets: Vec<Set>,
}

/// A deployment of ten replicas with the image `b`, surge 3, unavailable 2.
fn case() -> Case {
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "n", "uid": "u", "generation": 2,
            "annotations": {revision::REVISION: "2"}},
        "spec": {
            "replicas": 10, "selector": {"matchLabels": {"app": "d"}}, "template": template("b"),
            "progressDeadlineSeconds": 600, "revisionHistoryLimit": 1,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}},
        },
    });
    Case { deployment, sets: Vec::new() }
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

impl Case {
    /// A set at a revision, which has `replicas` of which `available` are.
    fn set(mut self, image: &str, number: i64, replicas: i32, available: i32) -> Self {
        let mut template = template(image);
        template["metadata"]["labels"]["pod-template-hash"] = json!(image);
        let (desired, max) = (self.replicas(), self.replicas() + 3);
        let set = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": format!("d-{image}"), "namespace": "n", "uid": format!("u-{image}"),
                "creationTimestamp": ago(900 - number * 100), "labels": {"app": "d"},
                "annotations": {revision::REVISION: number.to_string(), revision::DESIRED: desired.to_string(),
                    revision::MAX: max.to_string()},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "u",
                    "controller": true}]},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "d"}}, "template": template},
            "status": {"replicas": replicas, "availableReplicas": available, "readyReplicas": available},
        });
        let object = object(&set);
        let view = typed::<ReplicaSet>(&object).unwrap();
        self.sets.push(Set { object, view, unfinished_pods: usize::try_from(replicas).unwrap() });
        self
    }

    fn replicas(&self) -> i32 {
        i32::try_from(self.deployment["spec"]["replicas"].as_i64().unwrap()).unwrap()
    }

    fn spec(mut self, field: &str, value: Value) -> Self {
        self.deployment["spec"][field] = value;
        self
    }

    fn status(mut self, value: Value) -> Self {
        self.deployment["status"] = value;
        self
    }

    fn plan(&self) -> Plan {
        let object = object(&self.deployment);
        let view = typed::<Deployment>(&object).unwrap();
        plan(&Observed { object, view, sets: self.sets.clone() }, now())
    }

    /// The events alone: they say which set gets which size.
    #[track_caller]
    fn scales(&self, wanted: &Expect) {
        let text = describe_actions(&self.plan());
        let events: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("event ScalingReplicaSet: ")).collect();
        wanted.assert_eq(&events.join("\n"));
    }

    fn condition(&self, kind: &str) -> String {
        let status = status_of(&self.plan());
        let found =
            status["conditions"].as_array().unwrap().iter().find(|condition| condition["type"] == kind);
        found
            .map(|c| format!("{} {}", c["status"].as_str().unwrap(), c["reason"].as_str().unwrap()))
            .unwrap_or_default()
    }
}

#[test]
fn a_template_without_a_set_gets_one() {
    let text = describe_actions(&case().plan());
    assert!(text.starts_with("create replicasets d-"), "{text}");
    assert!(text.contains("from 0 to 10"), "{text}");
    let beside = describe_actions(&case().set("a", 1, 10, 10).plan());
    assert!(beside.contains("from 0 to 3"), "{beside}");
    let paused = case().spec("paused", json!(true));
    assert_eq!(describe_actions(&paused.plan()), "");
    let everything = case().spec("selector", json!({}));
    assert!(describe_actions(&everything.plan()).starts_with("event SelectingAll"));
}

#[test]
fn a_rollout_goes_in_steps() {
    // First the old set gives up what may be missing.
    case().set("a", 1, 10, 10).set("b", 2, 3, 0).scales(&expect!["Scaled down replica set d-a from 10 to 8"]);
    // Then the new one fills the room.
    case().set("a", 1, 8, 8).set("b", 2, 3, 0).scales(&expect!["Scaled up replica set d-b from 3 to 5"]);
    // Nothing more until new pods are available.
    case().set("a", 1, 8, 8).set("b", 2, 5, 0).scales(&expect![""]);
    case().set("a", 1, 8, 8).set("b", 2, 5, 3).scales(&expect!["Scaled down replica set d-a from 8 to 5"]);
    case().set("a", 1, 0, 0).set("b", 2, 10, 10).scales(&expect![""]);
    // Pods that are not available are the first to go.
    case().set("a", 1, 8, 0).set("b", 2, 5, 5).scales(&expect!["Scaled down replica set d-a from 8 to 3"]);
}

#[test]
fn a_rollover_shrinks_all_past_sets() {
    let case = case().set("a", 1, 6, 6).set("c", 2, 4, 0).set("b", 3, 3, 3);
    case.scales(&expect![[r#"
        Scaled down replica set d-a from 6 to 5
        Scaled down replica set d-c from 4 to 0"#]]);
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let recreate = || case().spec("strategy", json!({"type": "Recreate"}));
    recreate().set("a", 1, 10, 10).scales(&expect!["Scaled down replica set d-a from 10 to 0"]);
    let mut leaving = recreate().set("a", 1, 0, 0);
    leaving.sets[0].unfinished_pods = 1;
    leaving.scales(&expect![""]);
    leaving.sets[0].unfinished_pods = 0;
    let text = describe_actions(&leaving.plan());
    assert!(text.starts_with("create replicasets") && text.contains("from 0 to 10"), "{text}");
}

#[test]
fn scaling_in_the_middle_is_proportional() {
    let mut grown = case().set("a", 1, 8, 8).set("b", 2, 5, 0);
    grown.deployment["spec"]["replicas"] = json!(30);
    grown.scales(&expect![[r#"
        Scaled up replica set d-a from 8 to 20
        Scaled up replica set d-b from 5 to 13"#]]);
    let mut shrunk = case().set("a", 1, 8, 8).set("b", 2, 5, 0);
    shrunk.deployment["spec"]["replicas"] = json!(5);
    shrunk.scales(&expect![[r#"
        Scaled down replica set d-a from 8 to 5
        Scaled down replica set d-b from 5 to 3"#]]);
    let mut only = case().set("b", 2, 10, 10);
    only.deployment["spec"]["replicas"] = json!(4);
    only.scales(&expect!["Scaled down replica set d-b from 10 to 4"]);
    let mut paused = case().spec("paused", json!(true)).set("b", 2, 10, 10);
    paused.deployment["spec"]["replicas"] = json!(12);
    paused.scales(&expect!["Scaled up replica set d-b from 10 to 12"]);
}

#[test]
fn a_template_that_was_there_before_is_used_again() {
    let back = case().set("b", 1, 0, 0).set("a", 2, 10, 10);
    let text = describe_actions(&back.plan());
    assert!(!text.contains("create"), "{text}");
    assert!(text.contains(r#""deployment.kubernetes.io/revision":"3""#), "{text}");
    assert!(text.contains(r#""deployment.kubernetes.io/revision-history":"1""#), "{text}");
    back.scales(&expect!["Scaled up replica set d-b from 0 to 3"]);
}

#[test]
fn old_sets_go_when_the_rollout_is_through() {
    let done = || {
        let mut case = case().set("a", 1, 0, 0).set("c", 2, 0, 0).set("b", 3, 10, 10);
        case.deployment["metadata"]["annotations"][revision::REVISION] = json!("3");
        case
    };
    let text = describe_actions(&done().plan());
    assert!(text.lines().any(|line| line == "delete replicasets d-a") && !text.contains("d-c"), "{text}");
    let under_way = describe_actions(&case().set("a", 1, 0, 0).set("c", 2, 0, 0).set("b", 3, 10, 9).plan());
    assert!(!under_way.contains("delete"), "{under_way}");
}

#[test]
fn sets_are_adopted_and_released() {
    let mut case = case().set("b", 1, 10, 10);
    let mut orphan = case.sets[0].object.value();
    orphan["metadata"]["ownerReferences"] = json!([]);
    case.sets[0].object = object(&orphan);
    let text = describe_actions(&case.plan());
    assert!(text.starts_with("patch replicasets d-b:") && text.contains(r#""kind":"Deployment""#), "{text}");
    let mut stranger = case.sets[0].object.value();
    stranger["metadata"]["labels"] = json!({"app": "other"});
    stranger["metadata"]["ownerReferences"] =
        json!([{"kind": "Deployment", "name": "d", "uid": "u", "controller": true}]);
    case.sets[0].object = object(&stranger);
    let text = describe_actions(&case.plan());
    assert!(text.contains(r#""$patch":"delete""#), "{text}");
}

#[test]
fn a_taken_name_is_counted() {
    let observed = |case: &Case| {
        let object = object(&case.deployment);
        let view = typed::<Deployment>(&object).unwrap();
        Observed { object, view, sets: case.sets.clone() }
    };
    let failure = Status::already_exists("apps", "replicasets", "d-x");
    let next = plan_failure(&observed(&case()), &failure, now());
    assert_eq!(status_of(&next), json!({"collisionCount": 1}));
    let present = plan_failure(&observed(&case().set("b", 1, 10, 10)), &failure, now());
    assert_eq!(status_of(&present), Value::Null);
}

#[test]
fn the_status_counts_and_tells() {
    let rolling = case().set("a", 1, 8, 8).set("b", 2, 5, 1);
    expect![[r#"{"availableReplicas":9,"observedGeneration":2,"readyReplicas":9,"replicas":13,"terminatingReplicas":0,"unavailableReplicas":4,"updatedReplicas":5}"#]]
        .assert_eq(&{
            let mut status = status_of(&rolling.plan());
            status.as_object_mut().unwrap().remove("conditions");
            status.to_string()
        });
    for (case, kind, wanted) in [
        (case().set("b", 2, 10, 10), "Available", "True MinimumReplicasAvailable"),
        (case().set("b", 2, 10, 8), "Available", "True MinimumReplicasAvailable"),
        (case().set("b", 2, 10, 7), "Available", "False MinimumReplicasUnavailable"),
        (case().set("b", 2, 10, 10), "Progressing", "True NewReplicaSetAvailable"),
        (case().set("b", 2, 10, 9), "Progressing", "True ReplicaSetUpdated"),
        (case(), "Progressing", "True NewReplicaSetCreated"),
        (case().spec("paused", json!(true)), "Progressing", "Unknown DeploymentPaused"),
        (case().spec("progressDeadlineSeconds", json!(i32::MAX)), "Progressing", ""),
    ] {
        assert_eq!(case.condition(kind), wanted);
    }
}

#[test]
fn a_rollout_that_stands_still_times_out() {
    let standing = |seconds: i64| {
        let progressing = json!({"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated",
            "lastUpdateTime": ago(seconds)});
        case().set("a", 1, 8, 8).set("b", 2, 5, 0).status(json!({"replicas": 13, "updatedReplicas": 5,
            "readyReplicas": 8, "availableReplicas": 8, "conditions": [progressing]}))
    };
    assert_eq!(standing(100).condition("Progressing"), "True ReplicaSetUpdated");
    assert_eq!(standing(100).plan().next.map(|next| next.as_secs()), Some(500));
    assert_eq!(standing(600).condition("Progressing"), "False ProgressDeadlineExceeded");
}
