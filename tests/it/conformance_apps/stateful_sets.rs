//! StatefulSets: order, bursts, failed pods, the API.

use serde_json::{Value, json};

use super::space::{SLEEP, Space, add_condition, has_condition, is_ready, name, script, template, text, web};

const APPS: &str = "apis/apps/v1";
const PODS: &str = "api/v1";

/// A set whose pods are ready as long as `/tmp/unready` is not there.
pub fn stateful_set(name: &str, replicas: i32, spec: Value) -> Value {
    let labels = json!({"name": name});
    let mut container = script(SLEEP);
    container["readinessProbe"] = json!({"exec": {"command": ["test", "!", "-e", "/tmp/unready"]}, "periodSeconds": 1,
        "failureThreshold": 1});
    let mut body = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name, "labels": labels},
        "spec": {"replicas": replicas, "serviceName": "test", "selector": {"matchLabels": labels},
            "template": template(&labels, container)}});
    for (field, value) in spec.as_object().into_iter().flatten() {
        body["spec"][field] = value.clone();
    }
    body
}

fn break_pod(space: &Space<'_>, pod: &str) {
    space.kubectl(&["exec", pod, "--", "touch", "/tmp/unready"]);
    space.wait("pod", pod, "is not ready", |pod| !is_ready(pod));
}

fn mend_pod(space: &Space<'_>, pod: &str) {
    space.kubectl(&["exec", pod, "--", "rm", "/tmp/unready"]);
}

fn resize(space: &Space<'_>, set: &str, replicas: i32) {
    space.kubectl(&["scale", "sts", set, &format!("--replicas={replicas}")]);
}

/// Nothing happens for a while, which the set had the time to do.
fn stays(space: &Space<'_>, selector: &str, count: usize) {
    for _ in 0..8 {
        assert_eq!(space.list("pods", selector).len(), count);
        std::thread::sleep(std::time::Duration::from_millis(250));
    }
}

// conformance: [sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] Scaling should happen in predictable order and halt if any stateful pod is unhealthy [Slow]
pub fn ordered_scaling(space: &Space<'_>) {
    let watch = space.watch(&space.path(PODS, "pods"));
    space.make(&stateful_set("ss", 1, json!({})));
    space.wait_ready("name=ss", 1);
    break_pod(space, "ss-0");
    resize(space, "ss", 3);
    stays(space, "name=ss", 1);
    mend_pod(space, "ss-0");
    space.wait_ready("name=ss", 3);
    assert_eq!(watch.names("ADDED", 3), ["ss-0", "ss-1", "ss-2"]);
    let all = ["ss-0", "ss-1", "ss-2"];
    all.iter().for_each(|pod| break_pod(space, pod));
    resize(space, "ss", 0);
    stays(space, "name=ss", 3);
    // A last broken one is deleted as it is.
    all[..2].iter().for_each(|pod| mend_pod(space, pod));
    assert_eq!(watch.names("DELETED", 3), ["ss-2", "ss-1", "ss-0"]);
    space.wait("sts", "ss", "has no replicas", |set| set["status"]["replicas"] == 0);
}

// conformance: [sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] Burst scaling should run to completion even with unhealthy pods [Slow]
pub fn burst_scaling(space: &Space<'_>) {
    space.make(&stateful_set("ss", 1, json!({"podManagementPolicy": "Parallel"})));
    space.wait_ready("name=ss", 1);
    break_pod(space, "ss-0");
    resize(space, "ss", 3);
    space.until("the other pods come", |space| space.list("pods", "name=ss").len() == 3);
    mend_pod(space, "ss-0");
    space.wait_ready("name=ss", 3);
    for pod in ["ss-0", "ss-1", "ss-2"] {
        break_pod(space, pod);
    }
    resize(space, "ss", 0);
    space.until("all pods go", |space| space.list("pods", "name=ss").is_empty());
    space.wait("sts", "ss", "has no replicas", |set| set["status"]["replicas"] == 0);
}

// conformance: [sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] Should recreate evicted statefulset
pub fn evicted(space: &Space<'_>) {
    let node = name(&space.raw("/api/v1/nodes")["items"][0]);
    let ports = json!([{"containerPort": 21017, "hostPort": 21017}]);
    let with_port = |mut container: Value| {
        container["ports"] = ports.clone();
        container
    };
    // Two pods want the same port of the node, which the scheduler is not asked about.
    let blocker = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "test-pod"},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [with_port(script(SLEEP))]}});
    space.make(&blocker);
    space.wait("pod", "test-pod", "is ready", is_ready);
    let watch = space.watch(&space.path(PODS, "pods"));
    let mut set = stateful_set("ss", 1, json!({}));
    set["spec"]["template"] = template(&json!({"name": "ss"}), with_port(script(SLEEP)));
    set["spec"]["template"]["spec"]["nodeName"] = json!(node);
    space.make(&set);
    let of_set = |event: &Value| event["object"]["metadata"]["name"] == "ss-0";
    let first = watch.next("the pod comes", |event| of_set(event) && event["type"] == "ADDED");
    watch.next("the pod fails", |event| of_set(event) && event["object"]["status"]["phase"] == "Failed");
    watch.next("the pod is removed", |event| of_set(event) && event["type"] == "DELETED");
    space.delete("pod", "test-pod");
    let pods = space.wait_ready("name=ss", 1);
    assert_ne!(pods[0]["metadata"]["uid"], first["object"]["metadata"]["uid"]);
}

// conformance: [sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should have a working scale subresource
pub fn scale(space: &Space<'_>) {
    space.make(&stateful_set("ss", 1, json!({})));
    space.wait_ready("name=ss", 1);
    let path = format!("{}/ss/scale", space.path(APPS, "statefulsets"));
    let mut scale = space.raw(&path);
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["replicas"]), (&json!(1), &json!(1)));
    scale["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    scale["spec"]["replicas"] = json!(2);
    assert_eq!(space.put_raw(&path, &scale)["spec"]["replicas"], 2);
    assert_eq!(space.get("sts", "ss")["spec"]["replicas"], 2);
    space.patch_sub("sts", "ss", "scale", &json!({"spec": {"replicas": 4}}));
    assert_eq!(space.get("sts", "ss")["spec"]["replicas"], 4);
}

// conformance: [sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should list, patch and delete a collection of StatefulSets
pub fn collection(space: &Space<'_>) {
    space.make(&stateful_set("ss", 1, json!({})));
    space.wait_ready("name=ss", 1);
    let patch = json!({"metadata": {"labels": {"test-ss": "patched"}}, "spec": {"replicas": 2,
        "template": {"spec": {"containers": [{"name": "c", "env": [{"name": "A", "value": "b"}]}]}}}});
    let patched = space.patch("sts", "ss", &patch);
    assert_eq!(
        (&patched["metadata"]["labels"]["test-ss"], &patched["spec"]["replicas"]),
        (&json!("patched"), &json!(2))
    );
    space.wait("sts", "ss", "is updated", |set| {
        let status = &set["status"];
        status["readyReplicas"] == 2
            && status["updatedReplicas"] == 2
            && status["currentRevision"] == status["updateRevision"]
    });
    let all = space.raw(&format!("/{APPS}/statefulsets?labelSelector=test-ss%3Dpatched"));
    assert_eq!(all["items"].as_array().map(Vec::len), Some(1));
    space.delete_collection(&space.path(APPS, "statefulsets"), "test-ss=patched");
    space.until("the set is gone", |space| space.list("sts", "test-ss=patched").is_empty());
}

// conformance: [sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should validate Statefulset Status endpoints
pub fn status(space: &Space<'_>) {
    let mut set = stateful_set("ss", 1, json!({}));
    set["spec"]["template"] = template(&json!({"name": "ss"}), web());
    space.make(&set);
    space.wait_ready("name=ss", 1);
    let path = format!("{}/ss/status", space.path(APPS, "statefulsets"));
    let read = space.raw(&path);
    assert!(text(&read["status"]["updateRevision"]).starts_with("ss-"), "{read}");
    space.update("sts", "ss", "status", |set| add_condition(set, "StatusUpdate"));
    space.wait("sts", "ss", "shows the condition", |set| has_condition(set, "StatusUpdate"));
    let patch = json!({"metadata": {"annotations": {"statefulsetstatus": "patched"}},
        "status": {"conditions": [{"type": "StatusPatched", "status": "True"}]}});
    let patched = space.patch_sub("sts", "ss", "status", &patch);
    assert_eq!(patched["metadata"]["annotations"]["statefulsetstatus"], "patched");
    space.wait("sts", "ss", "shows the patched condition", |set| has_condition(set, "StatusPatched"));
}
