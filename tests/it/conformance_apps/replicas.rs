//! ReplicaSets and ReplicationControllers.

use serde_json::{Value, json};

use super::space::{
    Space, add_condition, condition, controller, has_condition, is_ready, name, template, text, web,
};
use crate::cluster::fetch;

const APPS: &str = "apis/apps/v1";
const CORE: &str = "api/v1";

fn replica_set(name: &str, replicas: i32) -> Value {
    let labels = json!({"name": name});
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name, "labels": labels},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template(&labels, web())}})
}

fn replication_controller(name: &str, replicas: i32) -> Value {
    let labels = json!({"name": name});
    json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": name, "labels": labels},
        "spec": {"replicas": replicas, "selector": labels, "template": template(&labels, web())}})
}

/// Each replica answers with its own name.
fn serves(space: &Space<'_>, owner: &Value) {
    space.make(owner);
    let name = name(owner);
    for pod in space.wait_ready(&format!("name={name}"), 2) {
        let address = format!("{}:80", text(&pod["status"]["podIP"]));
        let mut answer = String::new();
        space.until("the replica answers", |_| fetch(&address).map(|text| answer = text).is_ok());
        assert_eq!(answer, super::space::name(&pod));
    }
}

/// A pod that was there before is taken over.
fn adopts(space: &Space<'_>, owner: &Value) -> String {
    let name = name(owner);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "before", "labels": {"name": name}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [web()]}});
    space.make(&pod);
    space.wait("pod", "before", "is ready", is_ready);
    let uid = text(&space.make(owner)["metadata"]["uid"]);
    space.wait("pod", "before", "is adopted", |pod| controller(pod).as_deref() == Some(&*uid));
    uid
}

/// A pod whose labels do not match any more is let go.
fn releases(space: &Space<'_>, pod: &str, uid: &str) {
    space.patch("pod", pod, &json!({"metadata": {"labels": {"name": "not-matching-name"}}}));
    space.wait("pod", pod, "is released", |pod| controller(pod).as_deref() != Some(uid));
}

/// The scale subresource is read, replaced and patched.
fn scales(space: &Space<'_>, group: &str, resource: &str, name: &str) {
    let path = format!("{}/{name}/scale", space.path(group, resource));
    let mut scale = space.raw(&path);
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(1)));
    scale["spec"]["replicas"] = json!(2);
    scale["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    assert_eq!(space.put_raw(&path, &scale)["spec"]["replicas"], 2);
    assert_eq!(space.get(resource, name)["spec"]["replicas"], 2);
    space.patch_sub(resource, name, "scale", &json!({"spec": {"replicas": 4}}));
    assert_eq!(space.get(resource, name)["spec"]["replicas"], 4);
}

// conformance: [sig-apps] ReplicaSet should serve a basic image on each replica with a public image
pub fn replica_set_serves(space: &Space<'_>) {
    serves(space, &replica_set("serve", 2));
}

// conformance: [sig-apps] ReplicationController should serve a basic image on each replica with a public image
pub fn replication_controller_serves(space: &Space<'_>) {
    serves(space, &replication_controller("serve", 2));
}

// conformance: [sig-apps] ReplicaSet should adopt matching pods on creation and release no longer matching pods
pub fn replica_set_adopts(space: &Space<'_>) {
    let uid = adopts(space, &replica_set("adopt", 1));
    releases(space, "before", &uid);
    space.wait_ready("name=adopt", 1);
}

// conformance: [sig-apps] ReplicationController should adopt matching pods on creation
pub fn replication_controller_adopts(space: &Space<'_>) {
    adopts(space, &replication_controller("adopt", 1));
}

// conformance: [sig-apps] ReplicationController should release no longer matching pods
pub fn replication_controller_releases(space: &Space<'_>) {
    let uid = text(&space.make(&replication_controller("release", 1))["metadata"]["uid"]);
    let pods = space.wait_ready("name=release", 1);
    releases(space, &name(&pods[0]), &uid);
}

// conformance: [sig-apps] ReplicaSet Replicaset should have a working scale subresource
pub fn replica_set_scale(space: &Space<'_>) {
    space.make(&replica_set("scale", 1));
    space.wait_ready("name=scale", 1);
    scales(space, APPS, "replicasets", "scale");
}

// conformance: [sig-apps] ReplicationController should get and update a ReplicationController scale
pub fn replication_controller_scale(space: &Space<'_>) {
    space.make(&replication_controller("scale", 1));
    space.wait_ready("name=scale", 1);
    scales(space, CORE, "replicationcontrollers", "scale");
    space.wait("rc", "scale", "has four replicas", |rc| rc["status"]["readyReplicas"] == 4);
}

// conformance: [sig-apps] ReplicaSet Replace and Patch tests
pub fn replica_set_replace_and_patch(space: &Space<'_>) {
    space.make(&replica_set("patch", 1));
    space.wait_ready("name=patch", 1);
    space.update("rs", "patch", "", |rs| rs["spec"]["replicas"] = json!(2));
    space.wait_ready("name=patch", 2);
    let patch = json!({"metadata": {"labels": {"test-rs": "patched"}},
        "spec": {"replicas": 3, "template": {"spec": {"terminationGracePeriodSeconds": 1}}}});
    space.patch("rs", "patch", &patch);
    let patched = space.wait("rs", "patch", "has three replicas", |rs| rs["status"]["readyReplicas"] == 3);
    assert_eq!(patched["metadata"]["labels"]["test-rs"], "patched");
    assert_eq!(patched["spec"]["template"]["spec"]["terminationGracePeriodSeconds"], 1);
}

// conformance: [sig-apps] ReplicaSet should list and delete a collection of ReplicaSets
pub fn replica_set_collection(space: &Space<'_>) {
    space.make(&replica_set("listed", 2));
    space.wait_ready("name=listed", 2);
    let all = space.raw(&format!("/{APPS}/replicasets?labelSelector=name%3Dlisted"));
    assert_eq!(all["items"].as_array().map(Vec::len), Some(1));
    space.delete_collection(&space.path(APPS, "replicasets"), "name=listed");
    space.until("the sets are gone", |space| space.list("rs", "name=listed").is_empty());
    space.until("their pods are gone", |space| space.list("pods", "name=listed").is_empty());
}

// conformance: [sig-apps] ReplicaSet should validate Replicaset Status endpoints
pub fn replica_set_status(space: &Space<'_>) {
    space.make(&replica_set("state", 1));
    space.wait_ready("name=state", 1);
    let path = format!("{}/state/status", space.path(APPS, "replicasets"));
    let read = space.raw(&path);
    assert_eq!((&read["kind"], &read["spec"]["replicas"]), (&json!("ReplicaSet"), &json!(1)));
    space.update("rs", "state", "status", |rs| add_condition(rs, "StatusUpdate"));
    space.wait("rs", "state", "shows the condition", |rs| has_condition(rs, "StatusUpdate"));
    let patch = json!({"status": {"conditions": [{"type": "StatusPatched", "status": "True"}]}});
    space.patch_sub("rs", "state", "status", &patch);
    space.wait("rs", "state", "shows the patched condition", |rs| has_condition(rs, "StatusPatched"));
}

// conformance: [sig-apps] ReplicationController should surface a failure condition on a common issue like exceeded quota
pub fn replication_controller_quota(space: &Space<'_>) {
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "condition-test"},
        "spec": {"hard": {"pods": "2"}}});
    space.make(&quota);
    space.wait("quota", "condition-test", "counts", |quota| quota["status"]["hard"]["pods"] == "2");
    space.make(&replication_controller("condition-test", 3));
    let failed = space.wait("rc", "condition-test", "fails", |rc| has_condition(rc, "ReplicaFailure"));
    let shown = condition(&failed, "ReplicaFailure").unwrap();
    assert_eq!(shown["reason"], "FailedCreate");
    assert!(text(&shown["message"]).contains("exceeded quota"), "{shown}");
    space.update("rc", "condition-test", "", |rc| rc["spec"]["replicas"] = json!(2));
    space.wait("rc", "condition-test", "recovers", |rc| condition(rc, "ReplicaFailure").is_none());
}

// conformance: [sig-apps] ReplicationController should test the lifecycle of a ReplicationController
pub fn replication_controller_lifecycle(space: &Space<'_>) {
    let watch = space.watch(&space.path(CORE, "replicationcontrollers"));
    let mut body = replication_controller("life", 1);
    body["metadata"]["labels"]["test-rc-static"] = json!("true");
    space.make(&body);
    watch.next("created", |event| event["type"] == "ADDED");
    watch.next("ready", |event| event["object"]["status"]["readyReplicas"] == 1);
    space.patch("rc", "life", &json!({"metadata": {"labels": {"test-rc": "patched"}}}));
    watch.next("patched", |event| event["object"]["metadata"]["labels"]["test-rc"] == "patched");
    space.patch_sub("rc", "life", "status", &json!({"status": {"readyReplicas": 0, "availableReplicas": 0}}));
    watch.next("status patched", |event| {
        event["object"]["status"]["readyReplicas"].as_i64().unwrap_or(0) == 0
    });
    // The controller puts it right again.
    watch.next("ready again", |event| event["object"]["status"]["readyReplicas"] == 1);
    space.patch_sub("rc", "life", "scale", &json!({"spec": {"replicas": 2}}));
    watch.next("scaled", |event| event["object"]["status"]["readyReplicas"] == 2);
    let all = space.raw(&format!("/{CORE}/replicationcontrollers?labelSelector=test-rc-static%3Dtrue"));
    assert_eq!(all["items"].as_array().map(Vec::len), Some(1));
    space.update("rc", "life", "", |rc| rc["spec"]["replicas"] = json!(1));
    watch.next("updated", |event| event["object"]["status"]["replicas"] == 1);
    space.delete_collection(&space.path(CORE, "replicationcontrollers"), "test-rc-static=true");
    watch.next("deleted", |event| event["type"] == "DELETED");
}
