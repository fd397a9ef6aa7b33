//! What sig-node asks of the API alone.

use serde_json::{Value, json};

use crate::lifecycle::Kind;
use crate::space::{Space, condition, shell, with};

fn kind<'a>(space: &'a Space<'_>, path: &str, object: Value) -> Kind<'a> {
    Kind { rest: space.rest, path: path.to_owned(), object }
}

// conformance: [sig-node] ConfigMap should run through a ConfigMap lifecycle
// conformance: [sig-node] ConfigMap should update ConfigMap successfully [NodeConformance]
// conformance: [sig-node] ConfigMap should fail to create ConfigMap with empty key
pub fn config_maps(space: &Space<'_>) {
    let path = space.path("configmaps");
    kind(space, &path, json!({"metadata": {}, "data": {"a": "1"}}))
        .lives("config-map", json!({"data": {"b": "2"}}));
    space.create("configmaps", &json!({"metadata": {"name": "c"}, "data": {"data-1": "value-1"}}));
    let mut object = space.get("configmaps/c");
    object["data"]["data-1"] = json!("value");
    space.rest.ok("PUT", &space.path("configmaps/c"), Some(&object));
    assert_eq!(space.get("configmaps/c")["data"], json!({"data-1": "value"}));
    let (code, status) =
        space.rest.call("POST", &path, Some(&json!({"metadata": {"name": "e"}, "data": {"": "v"}})));
    assert_eq!((code, &status["reason"]), (422, &json!("Invalid")), "{status}");
}

// conformance: [sig-node] Secrets should patch a secret
// conformance: [sig-node] Secrets should fail to create secret due to empty secret key
pub fn secrets(space: &Space<'_>) {
    let path = space.path("secrets");
    kind(space, &path, json!({"metadata": {}, "data": {"key": "dmFsdWU="}, "type": "Opaque"}))
        .lives("secret", json!({"data": {"key": "dmFsdWUx"}}));
    let (code, status) =
        space.rest.call("POST", &path, Some(&json!({"metadata": {"name": "e"}, "data": {"": "dmFsdWU="}})));
    assert_eq!((code, &status["reason"]), (422, &json!("Invalid")), "{status}");
}

fn template() -> Value {
    json!({"metadata": {"labels": {"podtemplate-label": "x"}}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [shell("nginx", "true")]}}})
}

// conformance: [sig-node] PodTemplates should run the lifecycle of PodTemplates
// conformance: [sig-node] PodTemplates should delete a collection of pod templates
// conformance: [sig-node] PodTemplates should replace a pod template
pub fn pod_templates(space: &Space<'_>) {
    kind(space, &space.path("podtemplates"), template())
        .lives("template", json!({"template": {"metadata": {"labels": {"podtemplate": "patched"}}}}));
}

// conformance: [sig-node] Lease lease API should be available
pub fn leases(space: &Space<'_>) {
    let spec = json!({"holderIdentity": "holder", "leaseDurationSeconds": 30, "leaseTransitions": 0,
        "acquireTime": "2026-01-01T00:00:00.000000Z", "renewTime": "2026-01-01T00:00:05.000000Z"});
    let path = space.path("coordination.k8s.io/v1:leases");
    kind(space, &path, json!({"metadata": {}, "spec": spec}))
        .lives("lease", json!({"spec": {"leaseDurationSeconds": 42}}));
    let made = space.rest.ok("POST", &path, Some(&json!({"metadata": {"name": "l"}, "spec": spec})));
    assert_eq!(made["spec"], spec);
}

// conformance: [sig-node] RuntimeClass should support RuntimeClasses API operations
pub fn runtime_classes(space: &Space<'_>) {
    kind(space, "/apis/node.k8s.io/v1/runtimeclasses", json!({"metadata": {}, "handler": "h"}))
        .lives("runtime-class", json!({}));
}

fn of_class(space: &Space<'_>, name: &str, class: &str) -> (u16, Value) {
    let pod = json!({"metadata": {"name": name}, "spec": {"runtimeClassName": class,
        "containers": [shell("main", "true")]}});
    space.rest.call("POST", &space.path("pods"), Some(&pod))
}

// conformance: [sig-node] RuntimeClass should reject a Pod requesting a non-existent RuntimeClass [NodeConformance]
// conformance: [sig-node] RuntimeClass should reject a Pod requesting a deleted RuntimeClass [NodeConformance]
// conformance: [sig-node] RuntimeClass should schedule a Pod requesting a RuntimeClass without PodOverhead [NodeConformance]
// conformance: [sig-node] RuntimeClass should schedule a Pod requesting a RuntimeClass and initialize its Overhead [NodeConformance]
pub fn pods_of_runtime_classes(space: &Space<'_>) {
    let refused = |name: &str, class: &str| {
        let (code, status) = of_class(space, name, class);
        assert_eq!((code, &status["reason"]), (403, &json!("Forbidden")), "{status}");
        let message = status["message"].as_str().unwrap();
        assert!(message.contains(&format!("RuntimeClass \"{class}\" not found")), "{message}");
    };
    refused("none", "does-not-exist");
    let classes = "/apis/node.k8s.io/v1/runtimeclasses";
    let scheduled =
        |name: &str| space.until(name, "scheduled", |pod| condition(pod, "PodScheduled") == "True");
    space.rest.ok("POST", classes, Some(&json!({"metadata": {"name": "plain"}, "handler": "test-handler"})));
    assert_eq!(of_class(space, "without", "plain").0, 201);
    assert!(scheduled("without")["spec"]["overhead"].is_null());
    let overhead = json!({"podFixed": {"cpu": "10m", "memory": "1Mi"}});
    let class = json!({"metadata": {"name": "heavy"}, "handler": "test-handler", "overhead": overhead});
    space.rest.ok("POST", classes, Some(&class));
    assert_eq!(of_class(space, "with", "heavy").0, 201);
    assert_eq!(scheduled("with")["spec"]["overhead"], json!({"cpu": "10m", "memory": "1Mi"}));
    // No such handler here: the pod says so.
    let said = space.wait("why it does not start", || space.events("with", "FailedCreatePodSandBox").pop());
    assert!(said.contains("no runtime for \"test-handler\" is configured"), "{said}");
    for class in ["plain", "heavy"] {
        space.rest.ok("DELETE", &format!("{classes}/{class}"), None);
    }
    refused("late", "plain");
}

// conformance: [sig-node] Node Lifecycle should run through the lifecycle of a node
pub fn nodes(space: &Space<'_>) {
    let node = kind(
        space,
        "/api/v1/nodes",
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"unschedulable": true}}),
    );
    node.lives("e2e-fake-node", json!({"metadata": {"labels": {"patched": "true"}}}));
    let ready = json!({"conditions": [{"type": "Ready", "status": "True", "reason": "E2E", "message": "Set by test"}]});
    node.has_status("e2e-fake-node-status", ready);
}

fn dra(resource: &str) -> String {
    format!("/apis/resource.k8s.io/v1/{resource}")
}

// conformance: [sig-node] [DRA] CRUD Tests resource.k8s.io/v1 DeviceClass
pub fn device_classes(space: &Space<'_>) {
    let selectors = json!([{"cel": {"expression": "device.driver == 'example.org'"}}]);
    kind(space, &dra("deviceclasses"), json!({"metadata": {}, "spec": {"selectors": selectors}}))
        .lives("device-class", json!({"spec": {"selectors": []}}));
}

fn claim() -> Value {
    json!({"devices": {"requests": [{"name": "req-0", "exactly": {"deviceClassName": "class"}}]}})
}

// conformance: [sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceClaim
pub fn resource_claims(space: &Space<'_>) {
    let path = space.path("resource.k8s.io/v1:resourceclaims");
    let claims = kind(space, &path, json!({"metadata": {}, "spec": claim()}));
    claims.lives("claim", json!({}));
    let result = json!({"request": "req-0", "driver": "driver.example.org", "pool": "p", "device": "d"});
    claims.has_status("claim-status", json!({"allocation": {"devices": {"results": [result]}}}));
}

// conformance: [sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceClaimTemplate
pub fn resource_claim_templates(space: &Space<'_>) {
    let path = space.path("resource.k8s.io/v1:resourceclaimtemplates");
    kind(space, &path, json!({"metadata": {}, "spec": {"spec": claim()}})).lives("claim-template", json!({}));
}

// conformance: [sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceSlice
pub fn resource_slices(space: &Space<'_>) {
    let spec = json!({"driver": "driver.example.org", "nodeName": "n", "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1},
        "devices": [{"name": "d0"}]});
    kind(space, &dra("resourceslices"), json!({"metadata": {}, "spec": spec}))
        .lives("slice", json!({"spec": {"devices": [{"name": "d0"}, {"name": "d1"}]}}));
}

fn tolerating(space: &Space<'_>, name: &str, seconds: u64) {
    let toleration = json!({"key": TAINT, "operator": "Equal", "value": "evictTaintVal", "effect": "NoExecute",
        "tolerationSeconds": seconds});
    space.pod(name, json!({"tolerations": [toleration], "containers": [shell("main", crate::space::IDLE)]}));
}

const TAINT: &str = "kubernetes.io/e2e-evict-taint-key";

fn taint(space: &Space<'_>, tainted: bool) {
    let nodes = space.rest.get("/api/v1/nodes");
    let name = nodes["items"][0]["metadata"]["name"].as_str().unwrap();
    let taints = json!([{"key": TAINT, "value": "evictTaintVal", "effect": "NoExecute"}]);
    let patch = json!({"spec": {"taints": if tainted { taints } else { Value::Null }}});
    space.rest.ok("PATCH", &format!("/api/v1/nodes/{name}"), Some(&patch));
}

fn is_there(space: &Space<'_>, pod: &str) -> bool {
    let (code, pod) = space.rest.call("GET", &space.path(&format!("pods/{pod}")), None);
    code == 200 && pod["metadata"]["deletionTimestamp"].is_null()
}

// conformance: [sig-node] NoExecuteTaintManager Multiple Pods [Serial] evicts pods with minTolerationSeconds [Disruptive]
// conformance: [sig-node] NoExecuteTaintManager Single Pod [Serial] removing taint cancels eviction [Disruptive]
pub fn taints_evict(space: &Space<'_>) {
    tolerating(space, "soon", 3);
    tolerating(space, "later", 8);
    tolerating(space, "stays", 20);
    space.pod("at-once", with(json!({"containers": [shell("main", crate::space::IDLE)]}), json!({})));
    for pod in ["soon", "later", "stays", "at-once"] {
        space.ready(pod);
    }
    taint(space, true);
    space.wait("the first is gone", || (!is_there(space, "at-once")).then_some(()));
    space.wait("the second is gone", || (!is_there(space, "soon")).then_some(()));
    assert!(is_there(space, "later"));
    space.wait("the third is gone", || (!is_there(space, "later")).then_some(()));
    assert!(is_there(space, "stays"));
    taint(space, false);
    std::thread::sleep(std::time::Duration::from_secs(15));
    assert!(is_there(space, "stays"));
}
