//! Resources, node selectors, host ports.

use serde_json::{Value, json};

use super::{container, create, delete, get, limited, nodes, on_node, pod, until_refused, until_running};
use crate::cluster::Cluster;

/// CPU in thousandths.
fn milli(value: &Value) -> i64 {
    let text = value.as_str().unwrap();
    match text.strip_suffix('m') {
        Some(milli) => milli.parse().unwrap(),
        None => text.parse::<i64>().unwrap() * 1000,
    }
}

// conformance: [sig-scheduling] SchedulerPredicates [Serial] validates resource limits of pods that are allowed to run
pub fn resource_limits(cluster: &Cluster) {
    let nodes = nodes(cluster);
    let node = cluster.json(&["get", "node", &nodes[0]]);
    let all = milli(&node["status"]["allocatable"]["cpu"]);
    let asks = |share: i64| limited(&json!({"cpu": format!("{}m", all * share / 100)}));
    let fillers: Vec<String> = nodes.iter().map(|node| format!("filler-{node}")).collect();
    for (filler, node) in fillers.iter().zip(&nodes) {
        let spec = json!({"nodeSelector": on_node(node), "containers": [asks(70)]});
        create(cluster, &pod(filler, &json!({"spec": spec})));
    }
    fillers.iter().for_each(|filler| until_running(cluster, filler));
    create(cluster, &pod("additional", &json!({"spec": {"containers": [asks(50)]}})));
    let message = until_refused(cluster, "additional");
    let count = nodes.len();
    let expected = format!("0/{count} nodes are available: {count} Insufficient cpu.");
    assert!(message.starts_with(&expected), "{message}");
    // What fits goes on.
    create(cluster, &pod("small", &json!({"spec": {"containers": [asks(10)]}})));
    until_running(cluster, "small");
    delete(cluster, "pod", &[&*fillers[0]]);
    until_running(cluster, "additional");
    assert_eq!(get(cluster, "additional")["spec"]["nodeName"], nodes[0]);
    delete(cluster, "pod", &["--all"]);
}

// conformance: [sig-scheduling] SchedulerPredicates [Serial] validates that NodeSelector is respected if matching
pub fn a_node_selector_that_matches(cluster: &Cluster) {
    create(cluster, &pod("without-label", &json!({})));
    until_running(cluster, "without-label");
    let node = get(cluster, "without-label")["spec"]["nodeName"].as_str().unwrap().to_owned();
    delete(cluster, "pod", &["without-label"]);
    cluster.kubectl(&["label", "node", &node, "kubernetes.io/e2e-a-label=42"]);
    let selector = json!({"kubernetes.io/e2e-a-label": "42"});
    create(cluster, &pod("with-labels", &json!({"spec": {"nodeSelector": selector}})));
    until_running(cluster, "with-labels");
    assert_eq!(get(cluster, "with-labels")["spec"]["nodeName"], node.as_str());
    delete(cluster, "pod", &["with-labels"]);
    cluster.kubectl(&["label", "node", &node, "kubernetes.io/e2e-a-label-"]);
}

// conformance: [sig-scheduling] SchedulerPredicates [Serial] validates that NodeSelector is respected if not matching
pub fn a_node_selector_that_does_not(cluster: &Cluster) {
    create(cluster, &pod("restricted", &json!({"spec": {"nodeSelector": {"label": "nonempty"}}})));
    let message = until_refused(cluster, "restricted");
    let expected = format!("{} node(s) didn't match Pod's node affinity/selector", nodes(cluster).len());
    assert!(message.contains(&expected), "{message}");
    delete(cluster, "pod", &["restricted"]);
}

// conformance: [sig-scheduling] SchedulerPredicates [Serial] validates that there exists conflict between pods with same hostPort and protocol but one using 0.0.0.0 hostIP
pub fn host_ports(cluster: &Cluster) {
    let nodes = nodes(cluster);
    let node = &nodes[0];
    let addresses = cluster.json(&["get", "node", node])["status"]["addresses"].clone();
    let address =
        addresses.as_array().unwrap().iter().find(|a| a["type"] == "InternalIP").unwrap()["address"].clone();
    let listens = |name: &str, ip: Value, protocol: &str| {
        let port = json!({"containerPort": 80, "hostPort": 54322, "hostIP": ip, "protocol": protocol});
        let spec =
            json!({"nodeSelector": on_node(node), "containers": [container(&json!({"ports": [port]}))]});
        pod(name, &json!({"spec": spec}))
    };
    create(cluster, &listens("pod4", json!(""), "TCP"));
    until_running(cluster, "pod4");
    create(cluster, &listens("pod5", address, "TCP"));
    let message = until_refused(cluster, "pod5");
    assert!(message.contains("1 node(s) didn't have free ports for the requested pod ports"), "{message}");
    let others = format!("{} node(s) didn't match Pod's node affinity/selector", nodes.len() - 1);
    assert!(nodes.len() == 1 || message.contains(&others), "{message}");
    // Another protocol is another port.
    create(cluster, &listens("pod6", json!(""), "UDP"));
    until_running(cluster, "pod6");
    delete(cluster, "pod", &["pod4", "pod5", "pod6"]);
}
