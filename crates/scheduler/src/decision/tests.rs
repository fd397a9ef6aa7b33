use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use machinery::Key;
use serde_json::{Value, json};

use super::*;
use crate::plugins;

fn node(snapshot: &mut Snapshot, name: &str, extra: Value) {
    let mut value = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "3"}},
    });
    json_patch(&mut value, extra);
    let node: Node = serde_json::from_value(value).unwrap();
    snapshot.set_node(name, Arc::new(node));
}

fn json_patch(value: &mut Value, extra: Value) {
    *value = machinery::patch::merge_patch(value, &extra);
}

fn pod(name: &str, spec: Value) -> PodInfo {
    let mut value = json!({"metadata": {"name": name, "uid": name}, "spec": {"containers": [{"name": "c"}]}});
    json_patch(&mut value, json!({"spec": spec}));
    PodInfo::new(Key::new("default", name), Arc::new(serde_json::from_value::<Pod>(value).unwrap()))
}

fn asks(resources: Value) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": resources}}]})
}

fn check(snapshot: &Snapshot, spec: Value, wanted: &str) {
    match schedule(snapshot, &pod("p", spec.clone()), &plugins::filters(), &plugins::scores(), 0) {
        Decision::Bind { node } => assert_eq!(node, wanted, "{spec}"),
        Decision::Unschedulable { message } => assert_eq!(message, wanted, "{spec}"),
    }
}

fn two() -> Snapshot {
    let mut snapshot = Snapshot::default();
    node(&mut snapshot, "a", json!({"metadata": {"labels": {"disk": "ssd", "size": "5"}}}));
    node(
        &mut snapshot,
        "b",
        json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}}),
    );
    snapshot
}

#[test]
fn filters_say_why_not() {
    check(&Snapshot::default(), json!({}), "no nodes available to schedule pods");
    let nodes = two();
    check(&nodes, json!({}), "a");
    check(
        &nodes,
        asks(json!({"cpu": "3"})),
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {k: v}.",
    );
    check(
        &nodes,
        json!({"tolerations": [{"operator": "Exists"}], "nodeSelector": {"kubernetes.io/hostname": "b"}}),
        "b",
    );
    check(
        &nodes,
        json!({"nodeSelector": {"disk": "hdd"}}),
        "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint {k: v}.",
    );
    let affinity = |operator: &str, values: Value| {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "size", "operator": operator, "values": values}]}]}}}})
    };
    check(&nodes, affinity("Gt", json!(["4"])), "a");
    check(&nodes, affinity("In", json!(["4", "5"])), "a");
}

#[test]
fn cordoned_and_full_nodes_take_nothing() {
    let mut snapshot = Snapshot::default();
    node(&mut snapshot, "a", json!({"spec": {"unschedulable": true}}));
    check(&snapshot, json!({}), "0/1 nodes are available: 1 node(s) were unschedulable.");
    node(&mut snapshot, "a", json!({}));
    for index in 0..3 {
        let mut placed = pod(&format!("p{index}"), json!({}));
        placed.node = Some("a".to_owned());
        snapshot.place(Arc::new(placed));
    }
    check(&snapshot, json!({}), "0/1 nodes are available: 1 Too many pods.");
    assert!(snapshot.remove_pod(&Key::new("default", "p0")));
    check(&snapshot, json!({}), "a");
}

#[test]
fn ports_clash_by_protocol_and_address() {
    let mut snapshot = Snapshot::default();
    node(&mut snapshot, "a", json!({}));
    let port = |ip: &str, protocol: &str| json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80, "hostIP": ip, "protocol": protocol}]}]});
    let mut placed = pod("placed", port("127.0.0.1", "TCP"));
    placed.node = Some("a".to_owned());
    snapshot.place(Arc::new(placed));
    let taken = "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.";
    check(&snapshot, port("127.0.0.1", "TCP"), taken);
    check(&snapshot, port("", "TCP"), taken);
    check(&snapshot, port("127.0.0.2", "TCP"), "a");
    check(&snapshot, port("127.0.0.1", "UDP"), "a");
}

#[test]
fn the_emptier_node_wins() {
    let mut snapshot = Snapshot::default();
    node(&mut snapshot, "a", json!({}));
    node(&mut snapshot, "b", json!({}));
    let mut placed = pod("placed", asks(json!({"cpu": "1", "memory": "2Gi"})));
    placed.node = Some("a".to_owned());
    snapshot.place(Arc::new(placed));
    check(&snapshot, json!({}), "b");
}

#[test]
fn initialization_and_sidecars_count() {
    let spec = json!({
        "initContainers": [
            {"name": "i", "resources": {"requests": {"cpu": "1500m"}}},
            {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "200m"}}},
        ],
        "containers": [{"name": "c", "resources": {"requests": {"cpu": "100m", "memory": "1Mi"}}}],
        "overhead": {"cpu": "10m"},
    });
    let info = pod("p", spec);
    assert_eq!((info.requests["cpu"], info.requests["memory"]), (1510, 1 << 20));
}
