//! What a fake node writes: its object, its Lease, its pods' status.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{Config, LABEL};

const LEASE_SECONDS: u32 = 40;
pub const LEASE_NAMESPACE: &str = "kube-node-lease";

/// Seconds, as `metav1.Time` has them.
pub fn second(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub fn node(config: &Config, index: usize, now: Timestamp) -> Value {
    let name = config.name(index);
    let mut labels = json!({
        LABEL: "true",
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
    });
    if config.zones > 0 {
        labels["topology.kubernetes.io/zone"] = json!(format!("zone-{}", index % config.zones));
    }
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"podCIDR": pod_range(index), "podCIDRs": [pod_range(index)]},
        "status": status(config, index, now),
    })
}

pub fn status(config: &Config, index: usize, now: Timestamp) -> Value {
    let amounts = json!({"cpu": config.cpu, "memory": config.memory, "pods": config.pods.to_string()});
    json!({
        "capacity": amounts,
        "allocatable": amounts,
        "addresses": [{"type": "InternalIP", "address": node_address(index)}, {"type": "Hostname", "address": config.name(index)}],
        "conditions": conditions(now),
        "nodeInfo": {"architecture": "amd64", "operatingSystem": "linux", "kubeletVersion": "v1.36.0-fake",
            "kubeProxyVersion": "", "containerRuntimeVersion": "fake://0", "osImage": "fake", "kernelVersion": "fake",
            "bootID": "", "machineID": "", "systemUUID": ""},
    })
}

/// Out of the range that RFC 2544 sets aside for measuring.
fn node_address(index: usize) -> String {
    format!("198.{}.{}.{}", 18 + (index >> 16 & 1), index >> 8 & 255, index & 255)
}

/// A /24 out of the range of RFC 6598, so that no real node has to do without.
fn pod_range(index: usize) -> String {
    format!("{}/24", pod_address(index, 0))
}

/// An address of a node's range.
pub fn pod_address(node: usize, number: u8) -> String {
    format!("100.{}.{}.{number}", 64 + (node >> 8 & 63), node & 255)
}

fn conditions(now: Timestamp) -> Value {
    let at = second(now);
    let condition = |kind: &str, status: &str, reason: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": "this node is not real",
            "lastHeartbeatTime": at, "lastTransitionTime": at})
    };
    json!([
        condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
        condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
        condition("PIDPressure", "False", "KubeletHasSufficientPID"),
        condition("Ready", "True", "KubeletReady"),
    ])
}

pub fn lease(name: &str, uid: &str, now: Timestamp) -> Value {
    let owner = json!({"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid});
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": LEASE_NAMESPACE, "ownerReferences": [owner]},
        "spec": lease_spec(name, now),
    })
}

pub fn lease_spec(name: &str, now: Timestamp) -> Value {
    json!({
        "holderIdentity": name,
        "leaseDurationSeconds": LEASE_SECONDS,
        "renewTime": now.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
    })
}

/// Names of a pod's containers with their images.
pub type Containers<'a> = Vec<(&'a str, &'a str)>;

/// The status of a pod that runs.
pub fn running(containers: &Containers<'_>, node: usize, address: &str, now: Timestamp) -> Value {
    let at = second(now);
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": at});
    let container = |(name, image): &(&str, &str)| {
        json!({"name": name, "image": image, "imageID": image, "ready": true, "started": true, "restartCount": 0,
            "containerID": format!("fake://{address}/{name}"), "state": {"running": {"startedAt": at}}})
    };
    let kinds = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"];
    json!({
        "phase": "Running",
        "startTime": at,
        "hostIP": node_address(node),
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": kinds.map(condition),
        "containerStatuses": containers.iter().map(container).collect::<Vec<_>>(),
    })
}
