use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::shared::testing::{ago, describe_actions, now, object, phase, pod, ready, status_of, with};

struct Case {
    set: Value,
    pods: Vec<ObservedPod>,
    nodes: Vec<Value>,
    revisions: Vec<(i64, &'static str)>,
}

/// A set over nodes `x` and `y` whose present template has the image `b`; its revisions have the hashes `a` and `b`.
fn case() -> Case {
    let set = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "d", "namespace": "n", "uid": "u", "generation": 2},
        "spec": {
            "selector": {"matchLabels": {"app": "d"}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
            "template": template("b"),
        },
    });
    let nodes = ["x", "y"].map(|name| json!({"metadata": {"name": name, "labels": {"zone": name}}})).to_vec();
    Case { set, pods: Vec::new(), nodes, revisions: vec![(1, "a"), (2, "b")] }
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn revision(number: i64, image: &str) -> Revision {
    let owner = json!({"spec": {"template": template(image)}});
    Revision::read(object(&json!({
        "metadata": {"name": format!("d-{image}"), "namespace": "n", "uid": format!("r-{image}"),
            "labels": {"controller-revision-hash": image},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "u", "controller": true}]},
        "revision": number, "data": revisions::data(&owner),
    })))
}

impl Case {
    fn pod(mut self, name: &str, node: &str, image: &str, status: Value) -> Self {
        let labels = json!({"app": "d", "controller-revision-hash": image});
        self.pods.push(pod(name, "u", labels, json!({"nodeName": node}), status));
        self
    }

    fn deleting(mut self) -> Self {
        let last = self.pods.pop().unwrap();
        self.pods.push(with(&last, |pod| pod["metadata"]["deletionTimestamp"] = json!(ago(1))));
        self
    }

    fn limits(mut self, unavailable: i32, surge: i32) -> Self {
        let limits = json!({"maxUnavailable": unavailable, "maxSurge": surge});
        self.set["spec"]["updateStrategy"]["rollingUpdate"] = limits;
        self
    }

    fn template(mut self, field: &str, value: Value) -> Self {
        self.set["spec"]["template"]["spec"][field] = value;
        // The revision follows, so that only the fit is judged.
        self.revisions.clear();
        self
    }

    fn taint(mut self, effect: &str) -> Self {
        self.nodes[1]["spec"] = json!({"taints": [{"key": "k", "effect": effect}]});
        self
    }

    fn observed(&self) -> Observed {
        let object = object(&self.set);
        let view = typed::<DaemonSet>(&object).unwrap();
        let mut revisions: Vec<Revision> =
            self.revisions.iter().map(|(n, image)| revision(*n, image)).collect();
        if revisions.is_empty() {
            let mut only = revision(1, "b");
            only.data = revisions::data(&object.value());
            revisions.push(only);
        }
        let nodes =
            self.nodes.iter().map(|node| Arc::new(serde_json::from_value(node.clone()).unwrap())).collect();
        let spec = view.spec.clone().unwrap();
        Observed { object, view, spec, pods: self.pods.clone(), revisions, nodes }
    }

    fn plan(&self) -> Plan {
        plan(&self.observed(), now())
    }

    #[track_caller]
    fn check(&self, wanted: &Expect) {
        wanted.assert_eq(&describe_actions(&self.plan()));
    }

    #[track_caller]
    fn creates_on(&self, nodes: &[&str]) {
        let node = |action: &reconcile::Action| match action {
            reconcile::Action::Create { body, .. } => {
                let required = "requiredDuringSchedulingIgnoredDuringExecution";
                let terms = &body["spec"]["affinity"]["nodeAffinity"][required]["nodeSelectorTerms"];
                Some(terms[0]["matchFields"][0]["values"][0].as_str().unwrap().to_owned())
            }
            _ => None,
        };
        let found: Vec<String> = self.plan().actions.iter().filter_map(node).collect();
        assert_eq!(found, nodes);
    }
}

#[test]
fn every_fitting_node_gets_a_pod() {
    case().creates_on(&["x", "y"]);
    case().pod("p", "x", "b", ready()).creates_on(&["y"]);
    case().template("nodeSelector", json!({"zone": "y"})).creates_on(&["y"]);
    case().template("nodeName", json!("x")).creates_on(&["x"]);
    case().taint("NoSchedule").creates_on(&["x"]);
    case().taint("NoExecute").creates_on(&["x"]);
    case().taint("PreferNoSchedule").creates_on(&["x", "y"]);
    let tolerant = json!([{"key": "k", "operator": "Exists"}]);
    case().taint("NoExecute").template("tolerations", tolerant).creates_on(&["x", "y"]);
    let mut cordoned = case();
    cordoned.nodes[0]["spec"] =
        json!({"taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]});
    cordoned.creates_on(&["x", "y"]);
}

#[test]
fn pods_leave_nodes_that_do_not_fit() {
    let both = |case: Case| case.pod("p", "x", "b", ready()).pod("q", "y", "b", ready());
    both(case()).check(&expect![""]);
    both(case().template("nodeSelector", json!({"zone": "x"}))).check(&expect!["delete pods q"]);
    both(case().taint("NoSchedule")).check(&expect![""]);
    both(case().taint("NoExecute")).check(&expect!["delete pods q"]);
    both(case().taint("NoExecute")).deleting().check(&expect![""]);
}

#[test]
fn surplus_and_finished_pods_go() {
    let both = || case().pod("p", "x", "b", ready()).pod("q", "y", "b", ready());
    both().pod("r", "y", "b", ready()).check(&expect!["delete pods r"]);
    case().pod("p", "x", "b", ready()).pod("q", "y", "b", phase("Failed")).check(&expect![[r#"
        event FailedDaemonPod: Found failed daemon pod n/q on node y, will try to kill it
        delete pods q"#]]);
    case().pod("p", "x", "b", ready()).pod("q", "y", "b", phase("Succeeded")).check(&expect![[r#"
        event SucceededDaemonPod: Found succeeded daemon pod n/q on node y, will try to delete it
        delete pods q"#]]);
    let mut young = case().pod("p", "x", "b", ready()).pod("q", "y", "b", phase("Failed"));
    young.pods[1] = with(&young.pods[1], |pod| pod["metadata"]["creationTimestamp"] = json!(ago(1)));
    young.check(&expect![""]);
    assert_eq!(young.plan().next.map(|next| next.as_secs()), Some(2));
}

#[test]
fn an_update_keeps_to_its_limits() {
    let past = |case: Case| case.pod("p", "x", "a", ready()).pod("q", "y", "a", ready());
    past(case()).check(&expect!["delete pods p"]);
    past(case().limits(2, 0)).check(&expect![[r#"
        delete pods p
        delete pods q"#]]);
    past(case().limits(0, 0)).check(&expect!["delete pods p"]);
    case().pod("p", "x", "b", phase("Pending")).pod("q", "y", "a", ready()).check(&expect![""]);
    case().pod("p", "x", "b", ready()).pod("q", "y", "a", ready()).check(&expect!["delete pods q"]);
    // What does not serve may go at once.
    case().pod("p", "x", "a", phase("Pending")).pod("q", "y", "a", phase("Pending")).check(&expect![[r#"
        delete pods p
        delete pods q"#]]);
    case().pod("p", "x", "a", ready()).deleting().pod("q", "y", "a", ready()).check(&expect![""]);
    let mut manual = past(case());
    manual.set["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
    manual.check(&expect![""]);
}

#[test]
fn a_surging_update_goes_over() {
    let past = |case: Case| case.pod("p", "x", "a", ready()).pod("q", "y", "a", ready());
    past(case().limits(0, 1)).creates_on(&["x"]);
    let beside = |status: Value| past(case().limits(0, 1)).pod("r", "x", "b", status);
    beside(phase("Pending")).check(&expect![""]);
    beside(ready()).check(&expect![[r#"
        create pods d-
        delete pods p"#]]);
}

#[test]
fn the_generation_label_counts_too() {
    let mut case = case().pod("p", "x", "a", ready()).pod("q", "y", "b", ready());
    case.set["metadata"]["annotations"] = json!({GENERATION_ANNOTATION: "4"});
    case.check(&expect!["delete pods p"]);
    case.pods[0] = with(&case.pods[0], |pod| pod["metadata"]["labels"][GENERATION_LABEL] = json!("4"));
    case.check(&expect![""]);
}

#[test]
fn revisions() {
    let mut first = case();
    first.revisions = vec![(1, "a")];
    let text = describe_actions(&first.plan());
    assert!(text.starts_with("create controllerrevisions d-"), "{text}");
    let running = || case().pod("p", "x", "b", ready()).pod("q", "y", "b", ready());
    let mut again = running();
    again.revisions = vec![(3, "a"), (2, "b")];
    again.check(&expect![[r#"patch controllerrevisions d-b: {"revision":4}"#]]);
    let mut limited = running();
    limited.set["spec"]["revisionHistoryLimit"] = json!(0);
    limited.check(&expect!["delete controllerrevisions d-a"]);
}

#[test]
fn the_status_counts() {
    let mut case = case().pod("p", "x", "b", ready()).pod("q", "y", "a", phase("Running"));
    expect![[r#"{"currentNumberScheduled":2,"desiredNumberScheduled":2,"numberAvailable":1,"numberMisscheduled":0,"numberReady":1,"numberUnavailable":1,"observedGeneration":2,"updatedNumberScheduled":1}"#]]
        .assert_eq(&status_of(&case.plan()).to_string());
    case = case.taint("NoSchedule");
    let status = status_of(&case.plan());
    assert_eq!((&status["desiredNumberScheduled"], &status["numberMisscheduled"]), (&json!(1), &json!(1)));
}
