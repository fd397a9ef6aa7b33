use serde_json::{Value, json};

use super::*;

fn read(spec: Value, status: Value) -> Seen {
    let value = json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"app": "a"}},
        "spec": spec,
        "status": status,
    });
    PodInfo::read(&Arc::new(Object::from_value(&value, 1).unwrap())).unwrap()
}

fn waiting(spec: Value) -> PodInfo {
    match read(spec, json!({})) {
        Seen::Waiting(info) => info,
        other => panic!("{other:?}"),
    }
}

#[test]
fn some_pods_are_not_ours_to_place() {
    let is_other = |spec: Value, status: Value| matches!(read(spec, status), Seen::Other);
    assert!(is_other(json!({"schedulerName": "mine"}), json!({})));
    assert!(is_other(json!({"schedulingGates": [{"name": "g"}]}), json!({})));
    assert!(is_other(json!({"nodeName": "n"}), json!({"phase": "Succeeded"})));
    assert!(!is_other(json!({"schedulingGates": [], "schedulerName": NAME}), json!({"phase": "Pending"})));
    assert!(matches!(read(json!({"nodeName": "n", "schedulerName": "mine"}), json!({})), Seen::Placed(_)));
}

#[test]
fn initialization_and_sidecars_count() {
    let requests = |spec: Value| {
        let requests = waiting(spec).requests;
        (requests.cpu, requests.memory)
    };
    let spec = json!({
        "initContainers": [
            {"name": "i", "resources": {"requests": {"cpu": "1500m"}}},
            {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "200m"}}},
        ],
        "containers": [{"name": "c", "resources": {"requests": {"cpu": "100m", "memory": "1Mi"}}}],
        "overhead": {"cpu": "10m"},
    });
    assert_eq!(requests(spec), (1510, 1 << 20));
    // A step after a sidecar runs beside it.
    let spec = json!({
        "initContainers": [
            {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "200m"}}},
            {"name": "i", "resources": {"requests": {"cpu": "1"}}},
        ],
        "containers": [{"name": "c", "resources": {"requests": {"cpu": "900m"}}}],
    });
    assert_eq!(requests(spec).0, 1200);
    let spec = json!({
        "resources": {"requests": {"cpu": "3"}},
        "containers": [{"name": "c", "resources": {"requests": {"cpu": "1", "memory": "5"}}}],
    });
    assert_eq!(requests(spec), (3000, 5), "what the pod asks for as a whole wins by resource");
}

#[test]
fn a_resize_counts_with_the_larger_amount() {
    let cpu = |wanted: &str, status: Value| {
        let container = json!({"name": "c", "resources": {"requests": {"cpu": wanted}}});
        match read(json!({"nodeName": "n", "containers": [container]}), status) {
            Seen::Placed(info) => info.requests.cpu,
            other => panic!("{other:?}"),
        }
    };
    let has = |has: &str, promised: &str| json!({"name": "c", "resources": {"requests": {"cpu": has}}, "allocatedResources": {"cpu": promised}});
    assert_eq!(cpu("2", json!({"containerStatuses": [has("1", "1")]})), 2000);
    assert_eq!(cpu("1", json!({"containerStatuses": [has("2", "1")]})), 2000);
    let infeasible = json!([{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}]);
    assert_eq!(cpu("9", json!({"containerStatuses": [has("1", "1")], "conditions": infeasible})), 1000);
}

#[test]
fn label_keys_become_requirements_once() {
    let term = json!({"topologyKey": "k", "labelSelector": {"matchLabels": {"x": "y"}},
        "matchLabelKeys": ["app", "absent"], "mismatchLabelKeys": ["app"]});
    let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": [term]});
    let info = waiting(json!({"affinity": {"podAffinity": required}}));
    let term = &info.terms.as_ref().unwrap().affinity[0];
    assert_eq!(term.selector.as_ref().unwrap().to_string(), "x=y,app in (a),app notin (a)");
    assert_eq!(term.namespaces, ["n"]);
}

#[test]
fn images_have_full_names() {
    for (short, full) in [
        ("nginx", "docker.io/library/nginx:latest"),
        ("a/b:1", "docker.io/a/b:1"),
        ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
        ("localhost/x", "localhost/x:latest"),
        ("h:5000/x@sha256:0", "h:5000/x@sha256:0"),
    ] {
        assert_eq!(normal_image(short), full);
    }
}
