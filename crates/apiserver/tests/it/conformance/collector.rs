//! What becomes of dependents, and of what is in a namespace.

use serde_json::{Value, json};

use super::wire::{JSON_PATCH, MERGE, STRATEGIC, Wire};
use super::world::World;

const PODS: &str = "/api/v1/namespaces/default/pods";
const CONTROLLERS: &str = "/api/v1/namespaces/default/replicationcontrollers";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";

fn pod_spec() -> Value {
    json!({"containers": [{"name": "nginx", "image": "nginx:1"}]})
}

fn controller(name: &str, replicas: u32) -> Value {
    json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {"name": name},
        "template": {"metadata": {"labels": {"name": name}}, "spec": pod_spec()}}})
}

fn deployment(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"replicas": 2, "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": pod_spec()}}})
}

async fn until_pods(wire: &Wire, selector: &str, count: usize) -> Vec<Value> {
    let path = format!("{PODS}?labelSelector={selector}");
    wire.until(&format!("{count} pods of {selector}"), &path, |answer| {
        answer.as_ref().unwrap()["items"].as_array().unwrap().len() == count
    })
    .await;
    wire.items(&path).await
}

async fn delete(wire: &Wire, path: &str, policy: &str) {
    let uid = wire.get(path).await.unwrap()["metadata"]["uid"].clone();
    let options = json!({"propagationPolicy": policy, "preconditions": {"uid": uid}});
    wire.delete_with(path, &options).await.unwrap();
}

// conformance: [sig-api-machinery] Garbage collector should delete pods created by rc when not orphaning
async fn background(wire: &Wire) {
    wire.post(CONTROLLERS, &controller("simpletest-rc", 2)).await.unwrap();
    until_pods(wire, "name%3Dsimpletest-rc", 2).await;
    delete(wire, &format!("{CONTROLLERS}/simpletest-rc"), "Background").await;
    until_pods(wire, "name%3Dsimpletest-rc", 0).await;
}

// conformance: [sig-api-machinery] Garbage collector should orphan pods created by rc if delete options say so [Serial]
async fn orphans(wire: &Wire) {
    const COUNT: usize = 100;
    wire.post(CONTROLLERS, &controller("orphaner", COUNT as u32)).await.unwrap();
    until_pods(wire, "name%3Dorphaner", COUNT).await;
    let path = format!("{CONTROLLERS}/orphaner");
    wire.until("the status counts them", &path, |rc| rc.as_ref().unwrap()["status"]["replicas"] == COUNT)
        .await;
    delete(wire, &path, "Orphan").await;
    wire.until_gone(&path).await;
    let left = until_pods(wire, "name%3Dorphaner", COUNT).await;
    for pod in left {
        assert!(
            pod["metadata"]["ownerReferences"].is_null() && pod["metadata"]["deletionTimestamp"].is_null()
        );
    }
    wire.delete(&format!("{PODS}?labelSelector=name%3Dorphaner")).await.unwrap();
}

// conformance: [sig-api-machinery] Garbage collector should keep the rc around until all its pods are deleted if the deleteOptions says so [Serial]
async fn foreground(wire: &Wire) {
    const COUNT: usize = 100;
    wire.post(CONTROLLERS, &controller("foreground", COUNT as u32)).await.unwrap();
    let pods = until_pods(wire, "name%3Dforeground", COUNT).await;
    // One pod stays a while, and so must its owner.
    let held = format!("{PODS}/{}", pods[0]["metadata"]["name"].as_str().unwrap());
    let hold = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    wire.patch(&held, MERGE, &hold).await.unwrap();
    let path = format!("{CONTROLLERS}/foreground");
    delete(wire, &path, "Foreground").await;
    until_pods(wire, "name%3Dforeground", 1).await;
    let owner = wire.get(&path).await.unwrap();
    assert!(owner["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(owner["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    wire.patch(&held, MERGE, &json!({"metadata": {"finalizers": null}})).await.unwrap();
    wire.until_gone(&path).await;
    until_pods(wire, "name%3Dforeground", 0).await;
}

// conformance: [sig-api-machinery] Garbage collector should not delete dependents that have both valid owner and owner that's waiting for dependents to be deleted [Serial]
async fn two_owners(wire: &Wire) {
    const COUNT: usize = 50;
    wire.post(CONTROLLERS, &controller("simpletest-rc-to-be-deleted", COUNT as u32)).await.unwrap();
    let staying = wire.post(CONTROLLERS, &controller("simpletest-rc-to-stay", 0)).await.unwrap();
    let pods = until_pods(wire, "name%3Dsimpletest-rc-to-be-deleted", COUNT).await;
    let path = format!("{CONTROLLERS}/simpletest-rc-to-be-deleted");
    wire.until("the status counts them", &path, |rc| rc.as_ref().unwrap()["status"]["replicas"] == COUNT)
        .await;
    let reference = json!({"apiVersion": "v1", "kind": "ReplicationController",
        "name": "simpletest-rc-to-stay", "uid": staying["metadata"]["uid"]});
    let patch = json!({"metadata": {"ownerReferences": [reference]}});
    for pod in &pods[..COUNT / 2] {
        let name = pod["metadata"]["name"].as_str().unwrap();
        wire.patch(&format!("{PODS}/{name}"), STRATEGIC, &patch).await.unwrap();
    }
    delete(wire, &path, "Foreground").await;
    wire.until_gone(&path).await;
    let left = wire.items(&format!("{PODS}?labelSelector=name%3Dsimpletest-rc-to-be-deleted")).await;
    assert_eq!(left.len(), COUNT / 2);
    for pod in left {
        assert!(pod["metadata"]["deletionTimestamp"].is_null());
        let owners = pod["metadata"]["ownerReferences"].as_array().unwrap();
        assert_eq!(owners.len(), 1, "{owners:?}");
        assert_eq!(owners[0]["name"], "simpletest-rc-to-stay");
    }
    delete(wire, &format!("{CONTROLLERS}/simpletest-rc-to-stay"), "Background").await;
    until_pods(wire, "name%3Dsimpletest-rc-to-be-deleted", 0).await;
}

// conformance: [sig-api-machinery] Garbage collector should not be blocked by dependency circle
async fn circle(wire: &Wire) {
    let mut uids = Vec::new();
    for name in ["pod1", "pod2", "pod3"] {
        let body = json!({"metadata": {"name": name, "labels": {"in": "circle"}}, "spec": pod_spec()});
        uids.push(wire.post(PODS, &body).await.unwrap()["metadata"]["uid"].clone());
    }
    for (pod, owner) in [(0, 2), (1, 0), (2, 1)] {
        let reference = json!({"apiVersion": "v1", "kind": "Pod", "name": format!("pod{}", owner + 1),
            "uid": uids[owner], "controller": true, "blockOwnerDeletion": true});
        let add = json!([{"op": "add", "path": "/metadata/ownerReferences", "value": [reference]}]);
        wire.patch(&format!("{PODS}/pod{}", pod + 1), JSON_PATCH, &add).await.unwrap();
    }
    delete(wire, &format!("{PODS}/pod1"), "Foreground").await;
    until_pods(wire, "in%3Dcircle", 0).await;
}

async fn rolled_out(wire: &Wire, name: &str) -> Value {
    wire.post(DEPLOYMENTS, &deployment(name)).await.unwrap();
    let path = format!("{SETS}?labelSelector=app%3D{name}");
    wire.until("the replica set is there", &path, |sets| {
        sets.as_ref().unwrap()["items"].as_array().unwrap().len() == 1
    })
    .await;
    until_pods(wire, &format!("app%3D{name}"), 2).await;
    wire.items(&path).await.remove(0)
}

// conformance: [sig-api-machinery] Garbage collector should delete RS created by deployment when not orphaning
async fn deployment_background(wire: &Wire) {
    let set = rolled_out(wire, "collected").await;
    let path = format!("{DEPLOYMENTS}/collected");
    wire.until("its revision is written on it", &path, |deployment| {
        let annotations = &deployment.as_ref().unwrap()["metadata"]["annotations"];
        annotations["deployment.kubernetes.io/revision"] == "1"
    })
    .await;
    assert_eq!(wire.get(&path).await.unwrap()["metadata"]["generation"], 1, "nobody wished anything else");
    delete(wire, &format!("{DEPLOYMENTS}/collected"), "Background").await;
    wire.until_gone(&format!("{SETS}/{}", set["metadata"]["name"].as_str().unwrap())).await;
    until_pods(wire, "app%3Dcollected", 0).await;
}

// conformance: [sig-api-machinery] Garbage collector should orphan RS created by deployment when deleteOptions.PropagationPolicy is Orphan
async fn deployment_orphan(wire: &Wire) {
    let set = rolled_out(wire, "orphaned").await;
    delete(wire, &format!("{DEPLOYMENTS}/orphaned"), "Orphan").await;
    wire.until_gone(&format!("{DEPLOYMENTS}/orphaned")).await;
    let path = format!("{SETS}/{}", set["metadata"]["name"].as_str().unwrap());
    let set = wire.get(&path).await.unwrap();
    assert!(set["metadata"]["ownerReferences"].is_null(), "{set}");
    assert_eq!(until_pods(wire, "app%3Dorphaned", 2).await.len(), 2);
    delete(wire, &path, "Background").await;
}

/// The owners have no event of their own after their pods were let go.
async fn orphaned_jobs(wire: &Wire) {
    const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";
    for index in 0..3 {
        let spec = json!({"restartPolicy": "Never", "containers": pod_spec()["containers"]});
        let job = json!({"metadata": {"name": format!("job-{index}"), "labels": {"of": "jobs"}},
            "spec": {"template": {"metadata": {"labels": {"of": "jobs"}}, "spec": spec}}});
        wire.post(JOBS, &job).await.unwrap();
    }
    until_pods(wire, "of%3Djobs", 3).await;
    let options = json!({"propagationPolicy": "Orphan"});
    wire.delete_with(&format!("{JOBS}?labelSelector=of%3Djobs"), &options).await.unwrap();
    for index in 0..3 {
        wire.until_gone(&format!("{JOBS}/job-{index}")).await;
    }
    for pod in until_pods(wire, "of%3Djobs", 3).await {
        assert!(pod["metadata"]["ownerReferences"].is_null(), "{pod}");
    }
    wire.delete(&format!("{PODS}?labelSelector=of%3Djobs")).await.unwrap();
}

#[tokio::test]
async fn dependents_follow_their_owners() {
    let world = World::start().await;
    let wire = &world.admin;
    background(wire).await;
    orphans(wire).await;
    foreground(wire).await;
    two_owners(wire).await;
    circle(wire).await;
    deployment_background(wire).await;
    deployment_orphan(wire).await;
    orphaned_jobs(wire).await;
}

// conformance: [sig-api-machinery] OrderedNamespaceDeletion namespace deletion should delete pod first
async fn pods_go_first(world: &World) {
    let wire = &world.admin;
    let path = world.namespace("ordered").await;
    let held = json!({"metadata": {"name": "pod1", "finalizers": ["e2e.example.com/finalizer"]}, "spec": pod_spec()});
    wire.post(&format!("{path}/pods"), &held).await.unwrap();
    wire.post(&format!("{path}/configmaps"), &json!({"metadata": {"name": "configmap1"}})).await.unwrap();
    wire.delete(&path).await.unwrap();
    wire.until("the controller has been there", &path, |namespace| {
        let status = &namespace.as_ref().unwrap()["status"];
        let conditions = status["conditions"].as_array();
        status["phase"] == "Terminating"
            && conditions.is_some_and(|all| {
                all.iter().any(|c| c["type"] == "NamespaceFinalizersRemaining" && c["status"] == "True")
            })
    })
    .await;
    let namespace = wire.get(&path).await.unwrap();
    let kinds: Vec<_> =
        namespace["status"]["conditions"].as_array().unwrap().iter().map(|c| c["type"].clone()).collect();
    assert!(kinds.contains(&json!("NamespaceDeletionContentFailure")), "{kinds:?}");
    assert!(
        wire.get(&format!("{path}/pods/pod1")).await.unwrap()["metadata"]["deletionTimestamp"].is_string()
    );
    let map = wire.get(&format!("{path}/configmaps/configmap1")).await.unwrap();
    assert!(map["metadata"]["deletionTimestamp"].is_null());
    wire.patch(&format!("{path}/pods/pod1"), MERGE, &json!({"metadata": {"finalizers": null}}))
        .await
        .unwrap();
    wire.until_gone(&path).await;
}

// conformance: [sig-api-machinery] Namespaces [Serial] should ensure that all pods are removed when a namespace is deleted
// conformance: [sig-api-machinery] Namespaces [Serial] should ensure that all services are removed when a namespace is deleted
async fn everything_goes(world: &World) {
    let wire = &world.admin;
    let path = world.namespace("nsdeletetest").await;
    wire.until("the service account", &format!("{path}/serviceaccounts/default"), Result::is_ok).await;
    wire.post(&format!("{path}/pods"), &json!({"metadata": {"name": "test-pod"}, "spec": pod_spec()}))
        .await
        .unwrap();
    let service = json!({"metadata": {"name": "test-service"}, "spec": {"ports": [{"port": 80}]}});
    wire.post(&format!("{path}/services"), &service).await.unwrap();
    wire.delete(&path).await.unwrap();
    wire.until_gone(&path).await;
    let path = world.namespace("nsdeletetest").await;
    assert!(wire.items(&format!("{path}/pods")).await.is_empty());
    assert!(wire.get(&format!("{path}/services/test-service")).await.unwrap_err().is_not_found());
}

// conformance: [sig-api-machinery] Namespaces [Serial] should patch a Namespace
// conformance: [sig-api-machinery] Namespaces [Serial] should apply an update to a Namespace
async fn patched_and_updated(world: &World) {
    let wire = &world.admin;
    let path = world.namespace("patched").await;
    let patched = wire
        .patch(&path, STRATEGIC, &json!({"metadata": {"labels": {"testLabel": "testValue"}}}))
        .await
        .unwrap();
    assert_eq!(patched["metadata"]["labels"]["testLabel"], "testValue");
    let mut update = wire.get(&path).await.unwrap();
    update["metadata"]["labels"]["patched"] = json!("updated");
    assert_eq!(wire.put(&path, &update).await.unwrap()["metadata"]["labels"]["patched"], "updated");
}

// conformance: [sig-api-machinery] Namespaces [Serial] should apply changes to a namespace status
async fn namespace_status(world: &World) {
    let wire = &world.admin;
    let path = world.namespace("status").await;
    let got = wire.get(&format!("{path}/status")).await.unwrap();
    assert_eq!(got["status"]["phase"], "Active");
    let condition =
        |kind: &str| json!({"type": kind, "status": "True", "reason": "E2E", "message": "Set by a test"});
    let patch = json!({"metadata": {"annotations": {"e2e-patched-ns-status": "status"}},
        "status": {"conditions": [condition("StatusPatch")]}});
    let patched = wire.patch(&format!("{path}/status"), MERGE, &patch).await.unwrap();
    assert_eq!(patched["status"]["conditions"][0]["type"], "StatusPatch");
    assert_eq!(patched["metadata"]["annotations"]["e2e-patched-ns-status"], "status");
    let mut update = patched;
    update["status"]["conditions"].as_array_mut().unwrap().push(condition("StatusUpdate"));
    let updated = wire.put(&format!("{path}/status"), &update).await.unwrap();
    assert_eq!(updated["status"]["conditions"][1]["type"], "StatusUpdate");
    assert_eq!(updated["status"]["phase"], "Active");
}

// conformance: [sig-api-machinery] Namespaces [Serial] should apply a finalizer to a Namespace
async fn namespace_finalizer(world: &World) {
    let wire = &world.admin;
    let path = world.namespace("finalized").await;
    let mut namespace = wire.get(&path).await.unwrap();
    assert_eq!(namespace["spec"]["finalizers"], json!(["kubernetes"]));
    namespace["spec"]["finalizers"] = json!(["kubernetes", "e2e.example.com/fakeFinalizer"]);
    let mut with = wire.put(&format!("{path}/finalize"), &namespace).await.unwrap();
    assert_eq!(with["spec"]["finalizers"], namespace["spec"]["finalizers"]);
    with["spec"]["finalizers"] = json!(["kubernetes"]);
    let without = wire.put(&format!("{path}/finalize"), &with).await.unwrap();
    assert_eq!(without["spec"]["finalizers"], json!(["kubernetes"]));
}

#[tokio::test]
async fn namespaces_live_and_take_everything_along() {
    let world = World::start().await;
    patched_and_updated(&world).await;
    namespace_status(&world).await;
    namespace_finalizer(&world).await;
    everything_goes(&world).await;
    pods_go_first(&world).await;
}
