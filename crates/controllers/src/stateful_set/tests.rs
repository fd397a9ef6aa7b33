use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::shared::testing::{ago, describe_actions, now, object, phase, pod, ready, status_of, with};

struct Case {
    set: Value,
    pods: Vec<ObservedPod>,
    revisions: Vec<(i64, &'static str)>,
    claims: Vec<Value>,
}

/// A set of three replicas whose present template has the image `b`; its revisions are `web-a` and `web-b`.
fn case() -> Case {
    let set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "web", "namespace": "n", "uid": "u", "generation": 2},
        "spec": {
            "replicas": 3, "serviceName": "svc", "selector": {"matchLabels": {"app": "web"}},
            "podManagementPolicy": "OrderedReady",
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "template": template("b"),
        },
        "status": {"replicas": 0, "currentRevision": "web-a"},
    });
    Case { set, pods: Vec::new(), revisions: vec![(1, "a"), (2, "b")], claims: Vec::new() }
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn revision(number: i64, image: &str) -> Revision {
    let owner = json!({"spec": {"template": template(image)}});
    Revision::read(object(&json!({
        "apiVersion": "apps/v1", "kind": "ControllerRevision",
        "metadata": {"name": format!("web-{image}"), "namespace": "n", "uid": format!("r-{image}"),
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "u",
                "controller": true}]},
        "revision": number, "data": revisions::data(&owner),
    })))
}

impl Case {
    fn pod(mut self, ordinal: i32, image: &str, status: Value) -> Self {
        let labels = json!({"app": "web", "controller-revision-hash": format!("web-{image}")});
        self.pods.push(pod(&format!("web-{ordinal}"), "u", labels, json!({}), status));
        self
    }

    fn deleting(mut self) -> Self {
        let last = self.pods.pop().unwrap();
        self.pods.push(with(&last, |pod| pod["metadata"]["deletionTimestamp"] = json!(ago(1))));
        self
    }

    fn spec(mut self, pointer: &str, value: Value) -> Self {
        let mut at = &mut self.set["spec"];
        for field in pointer.split('/') {
            at = &mut at[field];
        }
        *at = value;
        self
    }

    fn observed(&self) -> Observed {
        let object = object(&self.set);
        let view = typed::<StatefulSet>(&object).unwrap();
        let revisions = self.revisions.iter().map(|(number, image)| revision(*number, image)).collect();
        let claims = self.claims.iter().map(crate::shared::testing::object).collect();
        let spec = view.spec.clone().unwrap();
        Observed { object, view, spec, pods: self.pods.clone(), revisions, claims }
    }

    fn plan(&self) -> Plan {
        plan(&self.observed(), now())
    }

    #[track_caller]
    fn check(&self, wanted: &Expect) {
        wanted.assert_eq(&describe_actions(&self.plan()));
    }
}

#[test]
fn the_first_plan_records_the_template() {
    let mut case = case();
    case.revisions.clear();
    let text = describe_actions(&case.plan());
    assert!(text.starts_with("create controllerrevisions web-") && !text.contains('\n'), "{text}");
}

#[test]
fn pods_come_one_after_the_other() {
    case().check(&expect!["create pods web-0"]);
    case().pod(0, "b", phase("Pending")).check(&expect![""]);
    case().pod(0, "b", ready()).check(&expect!["create pods web-1"]);
    case().pod(0, "b", ready()).pod(1, "b", ready()).pod(2, "b", ready()).check(&expect![""]);
    case().spec("ordinals", json!({"start": 5})).check(&expect!["create pods web-5"]);
    // An unhealthy pod in the middle stops everything.
    case().pod(0, "b", phase("Running")).pod(2, "b", ready()).check(&expect![""]);
    // A pod counts only when it was ready long enough.
    let slow = case().spec("minReadySeconds", json!(300)).pod(0, "b", ready());
    slow.check(&expect![""]);
    assert_eq!(slow.plan().next.map(|next| next.as_secs()), Some(200));
}

#[test]
fn parallel_pods_come_and_go_at_once() {
    let parallel = || case().spec("podManagementPolicy", json!("Parallel"));
    parallel().check(&expect![[r#"
        create pods web-0
        create pods web-1
        create pods web-2"#]]);
    parallel().pod(0, "b", phase("Pending")).check(&expect![[r#"
        create pods web-1
        create pods web-2"#]]);
    let none = parallel().spec("replicas", json!(0)).pod(0, "b", phase("Pending")).pod(1, "b", ready());
    none.check(&expect![[r#"
        delete pods web-1
        delete pods web-0"#]]);
}

#[test]
fn pods_go_from_the_highest_ordinal() {
    let down = |replicas: i32| case().spec("replicas", json!(replicas));
    let three = |case: Case| case.pod(0, "b", ready()).pod(1, "b", ready()).pod(2, "b", ready());
    three(down(1)).check(&expect!["delete pods web-2"]);
    three(down(1)).deleting().check(&expect![""]);
    // Scaling down waits for an unhealthy pod that stays.
    down(1).pod(0, "b", phase("Running")).pod(1, "b", ready()).check(&expect![""]);
    // The one unhealthy pod may itself be removed.
    down(1).pod(0, "b", ready()).pod(1, "b", phase("Running")).check(&expect!["delete pods web-1"]);
}

#[test]
fn finished_pods_are_made_anew() {
    case().pod(0, "b", phase("Failed")).check(&expect![[r#"
        event RecreatingFailedPod: StatefulSet n/web is recreating failed Pod web-0
        delete pods web-0"#]]);
    case().pod(0, "b", phase("Succeeded")).check(&expect![[r#"
        event RecreatingTerminatedPod: StatefulSet n/web is recreating terminated Pod web-0
        delete pods web-0"#]]);
    case().pod(0, "b", phase("Failed")).deleting().check(&expect![""]);
}

#[test]
fn a_new_template_rolls_from_the_highest_ordinal() {
    let three = |case: Case, images: [&str; 3]| {
        case.pod(0, images[0], ready()).pod(1, images[1], ready()).pod(2, images[2], ready())
    };
    three(case(), ["a", "a", "a"]).check(&expect!["delete pods web-2"]);
    three(case(), ["a", "a", "b"]).check(&expect!["delete pods web-1"]);
    three(case(), ["b", "b", "b"]).check(&expect![""]);
    let partition = |first: i32| case().spec("updateStrategy/rollingUpdate/partition", json!(first));
    three(partition(2), ["a", "a", "a"]).check(&expect!["delete pods web-2"]);
    three(partition(2), ["a", "a", "b"]).check(&expect![""]);
    three(partition(9), ["a", "a", "a"]).check(&expect![""]);
    three(case().spec("updateStrategy", json!({"type": "OnDelete"})), ["a", "a", "a"]).check(&expect![""]);
    let two = case().spec("updateStrategy/rollingUpdate/maxUnavailable", json!(2));
    three(two, ["a", "a", "a"]).check(&expect![[r#"
        delete pods web-2
        delete pods web-1"#]]);
    case().pod(0, "a", ready()).pod(1, "a", ready()).pod(2, "b", phase("Pending")).check(&expect![""]);
}

#[test]
fn below_the_partition_pods_keep_the_current_template() {
    let image = |partition: i32| {
        let case = case().spec("updateStrategy/rollingUpdate/partition", json!(partition));
        let Some(reconcile::Action::Create { body, .. }) = case.plan().actions.into_iter().next() else {
            panic!()
        };
        (
            body["spec"]["containers"][0]["image"].clone(),
            body["metadata"]["labels"]["controller-revision-hash"].clone(),
        )
    };
    assert_eq!(image(1), (json!("a"), json!("web-a")));
    assert_eq!(image(0), (json!("b"), json!("web-b")));
}

#[test]
fn a_broken_template_can_be_given_up() {
    // Back at `a`, which is number 3 now; the pod of `b` never became ready.
    let mut back = case().spec("template", template("a"));
    back.revisions = vec![(2, "b"), (3, "a")];
    back.pod(0, "a", ready())
        .pod(1, "a", ready())
        .pod(2, "b", phase("Pending"))
        .check(&expect!["delete pods web-2"]);
    let mut number = case().spec("template", template("a")).pod(0, "a", phase("Pending"));
    number.set["status"]["currentRevision"] = json!("web-b");
    number.check(&expect![[r#"patch controllerrevisions web-a: {"revision":3}"#]]);
}

#[test]
fn old_revisions_go() {
    let mut case = case().spec("revisionHistoryLimit", json!(1)).pod(0, "b", phase("Pending"));
    case.revisions = vec![(1, "a"), (2, "c"), (3, "d"), (4, "b")];
    case.set["status"]["currentRevision"] = json!("web-b");
    case.check(&expect![[r#"
        delete controllerrevisions web-a
        delete controllerrevisions web-c"#]]);
}

#[test]
fn pods_are_adopted_and_released() {
    let labels = json!({"app": "web"});
    let mut case = case().pod(0, "b", ready());
    case.pods = vec![
        pod("web-0", "", labels.clone(), json!({}), ready()),
        pod("web-x", "", labels, json!({}), ready()),
        pod("web-1", "u", json!({"app": "other"}), json!({}), ready()),
    ];
    case.check(&expect![[r#"
        patch pods web-0: {"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"StatefulSet","name":"web","uid":"u"}],"uid":"uid-web-0"}}
        patch pods web-1: {"metadata":{"ownerReferences":[{"$patch":"delete","uid":"u"}],"uid":"uid-web-1"}}"#]]);
}

fn with_claims(policy: Value) -> Case {
    case()
        .spec(
            "volumeClaimTemplates",
            json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]),
        )
        .spec("persistentVolumeClaimRetentionPolicy", policy)
}

#[test]
fn claims_come_with_their_pod_and_follow_the_policy() {
    let keep = json!({"whenDeleted": "Retain", "whenScaled": "Retain"});
    with_claims(keep.clone()).check(&expect![[r#"
        create persistentvolumeclaims data-web-0
        create pods web-0"#]]);
    let claim = |ordinal: i32| json!({"metadata": {"name": format!("data-web-{ordinal}"), "namespace": "n", "uid": "c"}});
    let mut present = with_claims(keep);
    present.claims = vec![claim(0)];
    present.check(&expect!["create pods web-0"]);
    let mut leaving = present;
    leaving.claims[0]["metadata"]["deletionTimestamp"] = json!(ago(1));
    leaving.check(&expect![""]);
    let scaled = json!({"whenDeleted": "Retain", "whenScaled": "Delete"});
    let mut scaled = with_claims(scaled).spec("replicas", json!(0)).pod(0, "b", ready());
    scaled.claims = vec![claim(0)];
    scaled.check(&expect![[r#"patch persistentvolumeclaims data-web-0: {"metadata":{"ownerReferences":[{"apiVersion":"v1","blockOwnerDeletion":true,"controller":true,"kind":"Pod","name":"web-0","uid":"uid-web-0"}],"resourceVersion":"7","uid":"c"}}"#]]);
    let deleted = json!({"whenDeleted": "Delete", "whenScaled": "Retain"});
    let mut deleted = with_claims(deleted).pod(0, "b", phase("Pending"));
    deleted.claims = vec![claim(0)];
    let text = describe_actions(&deleted.plan());
    assert!(text.contains(r#""kind":"StatefulSet","name":"web""#), "{text}");
}

#[test]
fn pods_have_names_and_labels() {
    let Some(reconcile::Action::Create { body, .. }) =
        with_claims(json!({})).plan().actions.into_iter().nth(1)
    else {
        panic!()
    };
    expect![[r#"{"app":"web","apps.kubernetes.io/pod-index":"0","controller-revision-hash":"web-b","statefulset.kubernetes.io/pod-name":"web-0"}"#]]
        .assert_eq(&body["metadata"]["labels"].to_string());
    expect![[r#"{"containers":[{"image":"b","name":"c","resources":{}}],"hostname":"web-0","subdomain":"svc","volumes":[{"name":"data","persistentVolumeClaim":{"claimName":"data-web-0"}}]}"#]]
        .assert_eq(&body["spec"].to_string());
}

#[test]
fn the_status_counts() {
    let rolling = case().pod(0, "a", ready()).pod(1, "a", ready()).pod(2, "b", phase("Running"));
    expect![[r#"{"availableReplicas":2,"collisionCount":0,"currentReplicas":2,"currentRevision":"web-a","observedGeneration":2,"readyReplicas":2,"replicas":3,"updateRevision":"web-b","updatedReplicas":1}"#]]
        .assert_eq(&status_of(&rolling.plan()).to_string());
    let done = case().pod(0, "b", ready()).pod(1, "b", ready()).pod(2, "b", ready());
    let status = status_of(&done.plan());
    assert_eq!((&status["currentRevision"], &status["currentReplicas"]), (&json!("web-b"), &json!(3)));
}
