//! Defaults and bounds of a namespace's pods.

use serde_json::{Value, json};

use super::{container, create, delete, get, pod};
use crate::cluster::Cluster;

fn limit_range(name: &str, limits: &Value) -> Value {
    let mut limits = limits.clone();
    limits["type"] = json!("Container");
    json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": name}, "spec": {"limits": [limits]}})
}

fn with(name: &str, resources: &Value) -> Value {
    pod(name, &json!({"spec": {"containers": [container(&json!({"resources": resources}))]}}))
}

fn refused(cluster: &Cluster, object: &Value) -> String {
    let path = cluster.dir.path().join("refused.json");
    std::fs::write(&path, object.to_string()).unwrap();
    cluster.kubectl_fails(&["create", "-f", path.to_str().unwrap()])
}

// conformance: [sig-scheduling] LimitRange should create a LimitRange with defaults and ensure pod has those defaults applied.
pub fn defaults_and_bounds(cluster: &Cluster) {
    let amounts = |cpu: &str, memory: &str, storage: &str| json!({"cpu": cpu, "memory": memory, "ephemeral-storage": storage});
    let (min, max) = (amounts("50m", "100Mi", "100Gi"), amounts("500m", "500Mi", "500Gi"));
    let (requests, limits) = (amounts("100m", "200Mi", "200Gi"), amounts("500m", "500Mi", "500Gi"));
    let range = json!({"min": min, "max": max, "defaultRequest": requests, "default": limits});
    create(cluster, &limit_range("limits", &range));
    let stored = cluster.json(&["get", "limitrange", "limits"])["spec"]["limits"][0].clone();
    for field in ["min", "max", "defaultRequest", "default"] {
        assert_eq!(stored[field], range[field], "{field}");
    }
    create(cluster, &with("no-resources", &json!({})));
    let resources = |name: &str| get(cluster, name)["spec"]["containers"][0]["resources"].clone();
    assert_eq!(resources("no-resources"), json!({"requests": requests, "limits": limits}));
    // What is given is kept, the rest are defaults; a limit given alone is the request, too.
    create(
        cluster,
        &with(
            "partial",
            &json!({"requests": {"cpu": "300m", "ephemeral-storage": "300Gi"}, "limits": {"cpu": "300m"}}),
        ),
    );
    let expected =
        json!({"requests": amounts("300m", "200Mi", "300Gi"), "limits": amounts("300m", "500Mi", "500Gi")});
    assert_eq!(resources("partial"), expected);

    let too_little = json!({"requests": {"cpu": "10m", "memory": "50Mi", "ephemeral-storage": "50Gi"}});
    let error = refused(cluster, &with("too-little", &too_little));
    assert!(error.contains("minimum cpu usage per Container is 50m, but request is 10m"), "{error}");
    let too_much = json!({"requests": {"cpu": "600m"}, "limits": {"cpu": "600m"}});
    let error = refused(cluster, &with("too-much", &too_much));
    assert!(error.contains("maximum cpu usage per Container is 500m, but limit is 600m"), "{error}");

    let lower =
        json!([{"op": "replace", "path": "/spec/limits/0/min", "value": amounts("9m", "49Mi", "49Gi")}]);
    cluster.kubectl(&["patch", "limitrange", "limits", "--type=json", "-p", &lower.to_string()]);
    create(cluster, &with("too-little", &too_little));
    refused(cluster, &with("too-much", &too_much));
    delete(cluster, "limitrange", &["limits"]);
    let left = cluster.json(&["get", "limitrange"]);
    assert_eq!(left["items"], json!([]));
    create(cluster, &with("too-much", &too_much));
    delete(cluster, "pod", &["no-resources", "partial", "too-little", "too-much"]);
}

// conformance: [sig-scheduling] LimitRange should list, patch and delete a LimitRange by collection
pub fn a_collection(cluster: &Cluster) {
    let range = json!({"min": {"cpu": "50m"}, "max": {"cpu": "500m"}});
    cluster.kubectl(&["create", "namespace", "second"]);
    for (namespace, name) in [("default", "first"), ("second", "other")] {
        let mut object = limit_range(name, &range);
        object["metadata"]["labels"] = json!({"e2e": "limits"});
        object["metadata"]["namespace"] = json!(namespace);
        create(cluster, &object);
    }
    let names = |arguments: &[&str]| {
        let list = cluster.json(&[&["get", "limitrange"], arguments].concat());
        let items = list["items"].as_array().unwrap().clone();
        items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&["-A", "-l", "e2e=limits"]), ["first", "other"]);
    let patch = json!({"metadata": {"labels": {"first": "patched"}},
        "spec": {"limits": [{"type": "Container", "min": {"cpu": "40m"}, "max": {"cpu": "600m"}}]}});
    cluster.kubectl(&["patch", "limitrange", "first", "--type=strategic", "-p", &patch.to_string()]);
    let patched = cluster.json(&["get", "limitrange", "first"]);
    assert_eq!(patched["metadata"]["labels"]["first"], "patched");
    assert_eq!(patched["spec"]["limits"][0]["min"]["cpu"], "40m");
    assert_eq!(patched["spec"]["limits"][0]["max"]["cpu"], "600m");
    cluster.kubectl(&["delete", "limitrange", "-l", "first=patched"]);
    assert_eq!(names(&["-A", "-l", "e2e=limits"]), ["other"]);
    cluster.kubectl(&["delete", "namespace", "second"]);
}
