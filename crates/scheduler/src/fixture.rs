//! Small clusters for tests.

use std::sync::Arc;

use machinery::Object;
use machinery::patch::merge_patch;
use serde_json::{Value, json};

use crate::decision::Wait;
use crate::{Decision, Defaults, NodeInfo, PodInfo, Round, Seen, Snapshot, schedule};

pub fn object(value: &Value) -> Arc<Object> {
    Arc::new(Object::from_value(value, 1).unwrap())
}

/// A node with 2 CPUs, 4 GiB and room for 10 pods, changed by `extra`.
pub fn node(name: &str, extra: Value) -> NodeInfo {
    let value = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10"}},
    });
    NodeInfo::read(&object(&merge_patch(&value, &extra))).unwrap()
}

/// A node in a zone.
pub fn in_zone(name: &str, zone: &str) -> NodeInfo {
    node(name, json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}}))
}

/// A waiting pod `default/NAME`, changed by `extra`.
pub fn pod(name: &str, extra: Value) -> PodInfo {
    match seen(name, extra) {
        Seen::Waiting(info) => info,
        other => panic!("{other:?}"),
    }
}

/// A pod on a node.
pub fn placed(name: &str, node: &str, extra: Value) -> Arc<PodInfo> {
    match seen(name, merge_patch(&json!({"spec": {"nodeName": node}}), &extra)) {
        Seen::Placed(info) => Arc::new(info),
        other => panic!("{other:?}"),
    }
}

fn seen(name: &str, extra: Value) -> Seen {
    let value = json!({
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"containers": [{"name": "c"}]},
    });
    PodInfo::read(&object(&merge_patch(&value, &extra))).unwrap()
}

/// A cluster of nodes and pods on them.
pub fn cluster(nodes: Vec<NodeInfo>, pods: Vec<Arc<PodInfo>>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for node in nodes {
        snapshot.set_node(node);
    }
    for pod in pods {
        snapshot.place(pod);
    }
    snapshot
}

/// The containers of a pod that asks for this.
pub fn asks(requests: Value) -> Value {
    json!({"spec": {"containers": [{"name": "c", "resources": {"requests": requests}}]}})
}

pub fn labelled(labels: Value, spec: Value) -> Value {
    json!({"metadata": {"labels": labels}, "spec": spec})
}

pub fn decide(snapshot: &Snapshot, pod: &PodInfo) -> Decision {
    schedule(snapshot, pod, &Defaults::default(), &Round::default()).0
}

/// The name of the node, or the message.
pub fn outcome(snapshot: &Snapshot, pod: &PodInfo) -> String {
    match decide(snapshot, pod) {
        Decision::Bind { node } => node.to_string(),
        Decision::Wait(Wait { message, .. }) => message,
    }
}
