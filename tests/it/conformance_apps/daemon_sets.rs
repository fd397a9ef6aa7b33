//! DaemonSets and their revisions, on as many nodes as there are.

use serde_json::{Value, json};

use super::space::{
    MISSING, Space, WEB, add_condition, controller, has_condition, is_ready, name, template, text, web,
};

const APPS: &str = "apis/apps/v1";

fn daemon_set(name: &str, spec: Value) -> Value {
    let labels = json!({"daemonset-name": name});
    let mut body = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": name, "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "template": template(&labels, web())}});
    for (field, value) in spec.as_object().into_iter().flatten() {
        body["spec"][field] = value.clone();
    }
    body
}

/// The names of the nodes, in order.
fn nodes(space: &Space<'_>) -> Vec<String> {
    let mut names: Vec<String> =
        space.raw("/api/v1/nodes")["items"].as_array().unwrap().iter().map(name).collect();
    names.sort();
    names
}

/// Waits until every node has its pod; the pods in the order of their nodes.
fn runs(space: &Space<'_>, set: &str) -> Vec<Value> {
    runs_on(space, set, &nodes(space))
}

/// Waits until these nodes, and no others, have their pod.
fn runs_on(space: &Space<'_>, set: &str, nodes: &[String]) -> Vec<Value> {
    let node = |pod: &Value| text(&pod["spec"]["nodeName"]);
    let mut pods = space.wait_ready(&format!("daemonset-name={set}"), nodes.len());
    pods.sort_by_key(node);
    assert_eq!(pods.iter().map(node).collect::<Vec<_>>(), nodes);
    space.wait("ds", set, "counts its pods", |set| {
        let status = &set["status"];
        let counts =
            ["desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled"];
        counts.iter().all(|count| status[count] == nodes.len())
    });
    pods
}

fn uids(pods: &[Value]) -> Vec<String> {
    pods.iter().map(|pod| text(&pod["metadata"]["uid"])).collect()
}

fn set_image(space: &Space<'_>, set: &str, image: &str) {
    let container = json!({"name": "web", "image": image});
    space.patch("ds", set, &json!({"spec": {"template": {"spec": {"containers": [container]}}}}));
}

fn revisions(space: &Space<'_>, set: &str) -> Vec<Value> {
    space.list("controllerrevisions", &format!("daemonset-name={set}"))
}

// conformance: [sig-apps] Daemon set [Serial] should run and stop simple daemon
pub fn simple(space: &Space<'_>) {
    space.make(&daemon_set("simple", json!({})));
    let pods = runs(space, "simple");
    space.delete("pod", &name(&pods[0]));
    let revived = runs(space, "simple");
    assert_ne!(revived[0]["metadata"]["uid"], pods[0]["metadata"]["uid"]);
    assert_eq!(uids(&revived[1..]), uids(&pods[1..]));
    space.delete("ds", "simple");
    space.until("the pods are gone", |space| space.list("pods", "daemonset-name=simple").is_empty());
}

// conformance: [sig-apps] Daemon set [Serial] should run and stop complex daemon
pub fn complex(space: &Space<'_>) {
    let node = nodes(space).remove(0);
    let colour = |colour: &str| {
        let label = json!({"metadata": {"labels": {"daemonset-color": colour}}});
        space.patch("node", &node, &label);
    };
    let mut body = daemon_set("complex", json!({}));
    body["spec"]["template"]["spec"]["nodeSelector"] = json!({"daemonset-color": "blue"});
    space.make(&body);
    space.wait("ds", "complex", "is observed", |set| set["status"]["observedGeneration"] == 1);
    assert!(space.list("pods", "daemonset-name=complex").is_empty());
    colour("blue");
    runs_on(space, "complex", std::slice::from_ref(&node));
    colour("green");
    space.until("the pod goes", |space| space.list("pods", "daemonset-name=complex").is_empty());
    let patch = json!({"spec": {"template": {"spec": {"nodeSelector": {"daemonset-color": "green"}}},
        "updateStrategy": {"type": "RollingUpdate"}}});
    space.patch("ds", "complex", &patch);
    runs_on(space, "complex", std::slice::from_ref(&node));
    space.patch("node", &node, &json!({"metadata": {"labels": {"daemonset-color": null}}}));
}

// conformance: [sig-apps] Daemon set [Serial] should update pod when spec was updated and update strategy is RollingUpdate
pub fn update(space: &Space<'_>) {
    space.make(&daemon_set("update", json!({"updateStrategy": {"type": "RollingUpdate"}})));
    let old = runs(space, "update");
    let first = revisions(space, "update");
    assert_eq!((first.len(), &first[0]["revision"]), (1, &json!(1)));
    let hash = "controller-revision-hash";
    assert!(old.iter().all(|pod| pod["metadata"]["labels"][hash] == first[0]["metadata"]["labels"][hash]));
    let container = json!({"name": "web", "env": [{"name": "A", "value": "b"}]});
    space.patch("ds", "update", &json!({"spec": {"template": {"spec": {"containers": [container]}}}}));
    space.until("the pods are replaced", |space| {
        let pods = space.list("pods", "daemonset-name=update");
        let is_new = |pod: &Value| is_ready(pod) && pod["spec"]["containers"][0]["env"][0]["value"] == "b";
        pods.len() == old.len() && pods.iter().all(is_new)
    });
    let mut both = revisions(space, "update");
    both.sort_by_key(|revision| revision["revision"].as_i64());
    assert_eq!((both.len(), &both[1]["revision"]), (2, &json!(2)));
    let new = runs(space, "update");
    assert!(new.iter().all(|pod| pod["metadata"]["labels"][hash] == both[1]["metadata"]["labels"][hash]));
    // What the revision holds is what the template is.
    let set = space.get("ds", "update");
    let mut template = set["spec"]["template"].clone();
    template["$patch"] = json!("replace");
    let held = &both[1]["data"]["spec"]["template"];
    assert_eq!(held["spec"]["containers"][0]["env"], template["spec"]["containers"][0]["env"]);
    assert_eq!(held["metadata"]["labels"], template["metadata"]["labels"]);
}

// conformance: [sig-apps] Daemon set [Serial] should retry creating failed daemon pods
pub fn failed_pods(space: &Space<'_>) {
    space.make(&daemon_set("failed", json!({})));
    let broken = name(&runs(space, "failed")[0]);
    space.update("pod", &broken, "status", |pod| pod["status"]["phase"] = json!("Failed"));
    space.wait_gone("pod", &broken);
    runs(space, "failed");
}

// conformance: [sig-apps] Daemon set [Serial] should rollback without unnecessary restarts
pub fn rollback(space: &Space<'_>) {
    space.make(&daemon_set("back", json!({"updateStrategy": {"type": "RollingUpdate"}})));
    let before = runs(space, "back");
    set_image(space, "back", MISSING);
    space.until("the rollout is under way", |space| {
        space
            .list("pods", "daemonset-name=back")
            .iter()
            .any(|pod| pod["spec"]["containers"][0]["image"] == MISSING)
    });
    set_image(space, "back", WEB);
    let back = runs(space, "back");
    assert!(back.iter().all(|pod| pod["spec"]["containers"][0]["image"] == WEB));
    // One pod at a time, so that the others were not touched.
    let kept = uids(&back).iter().zip(uids(&before)).filter(|(now, then)| **now == *then).count();
    assert_eq!(kept, before.len() - 1);
    // The first template's revision is used again; a second rollback restarts nothing.
    let numbers: Vec<i64> = revisions(space, "back").iter().filter_map(|r| r["revision"].as_i64()).collect();
    assert!(numbers.len() == 2 && numbers.contains(&3), "{numbers:?}");
    set_image(space, "back", WEB);
    assert_eq!(uids(&runs(space, "back")), uids(&back));
}

// conformance: [sig-apps] Daemon set [Serial] should list and delete a collection of DaemonSets
pub fn collection(space: &Space<'_>) {
    space.make(&daemon_set("listed", json!({})));
    runs(space, "listed");
    let all = space.raw(&format!("/{APPS}/daemonsets?labelSelector=daemonset-name%3Dlisted"));
    assert_eq!(all["items"].as_array().map(Vec::len), Some(1));
    space.delete_collection(&space.path(APPS, "daemonsets"), "daemonset-name=listed");
    space.until("the set is gone", |space| space.list("ds", "daemonset-name=listed").is_empty());
}

// conformance: [sig-apps] Daemon set [Serial] should verify changes to a daemon set status
pub fn status(space: &Space<'_>) {
    space.make(&daemon_set("state", json!({})));
    let pods = runs(space, "state");
    let path = format!("{}/state/status", space.path(APPS, "daemonsets"));
    assert_eq!(space.raw(&path)["status"]["desiredNumberScheduled"], pods.len());
    space.update("ds", "state", "status", |set| add_condition(set, "StatusUpdate"));
    space.wait("ds", "state", "shows the condition", |set| has_condition(set, "StatusUpdate"));
    let patch = json!({"metadata": {"annotations": {"dsstatus": "patched"}},
        "status": {"conditions": [{"type": "StatusPatched", "status": "True"}]}});
    let patched = space.patch_sub("ds", "state", "status", &patch);
    assert_eq!(patched["metadata"]["annotations"]["dsstatus"], "patched");
    space.wait("ds", "state", "shows the patched condition", |set| has_condition(set, "StatusPatched"));
}

// conformance: [sig-apps] ControllerRevision [Serial] should manage the lifecycle of a ControllerRevision
pub fn controller_revisions(space: &Space<'_>) {
    let set = space.make(&daemon_set("revised", json!({})));
    runs(space, "revised");
    let listed = |space: &Space<'_>| revisions(space, "revised");
    let first = listed(space).remove(0);
    assert_eq!(controller(&first), Some(text(&set["metadata"]["uid"])));
    let patched = space.patch(
        "controllerrevision",
        &name(&first),
        &json!({"metadata": {"labels": {name(&first): "patched"}}}),
    );
    assert_eq!(patched["metadata"]["labels"][name(&first)], "patched");
    let owner = first["metadata"]["ownerReferences"].clone();
    let labels = json!({"daemonset-name": "revised", "controller-revision-hash": "other"});
    space.make(&json!({"apiVersion": "apps/v1", "kind": "ControllerRevision",
        "metadata": {"name": "revised-other", "labels": labels, "ownerReferences": owner},
        "data": first["data"], "revision": 2}));
    space.until("there are two", |space| listed(space).len() == 2);
    space.delete("controllerrevision", &name(&first));
    space.until("there is one", |space| listed(space).len() == 1);
    let current = listed(space).remove(0);
    let label = name(&current);
    let updated = space.update("controllerrevision", &label, "", |revision| {
        revision["metadata"]["labels"][&label] = json!("updated");
    });
    assert_eq!(updated["metadata"]["labels"][&label], "updated");
    space.patch(
        "ds",
        "revised",
        &json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}}),
    );
    space.until("there are two again", |space| listed(space).len() == 2);
    space.delete_collection(&space.path(APPS, "controllerrevisions"), &format!("{label}=updated"));
    space.until("there is one again", |space| listed(space).len() == 1);
    assert_eq!(listed(space)[0]["revision"], 3);
}
