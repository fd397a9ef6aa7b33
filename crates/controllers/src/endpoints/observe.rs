//! Pods as the backends of a Service.

use std::net::IpAddr;
use std::sync::Arc;

use client::{Cache, typed};
use k8s_openapi::api::core::v1::{Node, Pod, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use machinery::selector::labels;
use machinery::{Key, Object};
use serde_json::{Value, json};

use crate::shared::pods;

/// A pod behind a Service.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    pub addresses: Vec<IpAddr>,
    pub ports: Vec<Port>,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    pub node: Option<String>,
    pub zone: Option<String>,
    pub hostname: Option<String>,
    /// A `v1.ObjectReference` to the pod.
    pub target: Value,
}

/// A port of a Service as one pod serves it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    pub name: String,
    pub port: i32,
    pub protocol: String,
    pub app_protocol: Option<String>,
}

/// The pods that a Service selects and that have an address, in order of their names.
pub fn backends(
    spec: &ServiceSpec,
    service: &str,
    candidates: &[Arc<Object>],
    nodes: &Cache,
) -> Vec<Backend> {
    let Some(selector) = &spec.selector else { return Vec::new() };
    let selected = candidates.iter().filter(|pod| labels::includes(&pod.meta().labels, selector));
    selected.filter_map(|object| backend(spec, service, object, nodes)).collect()
}

fn backend(spec: &ServiceSpec, service: &str, object: &Object, nodes: &Cache) -> Option<Backend> {
    let pod = typed::<Pod>(object).ok()?;
    if pods::is_finished(&pod) {
        return None;
    }
    let status = pod.status.as_ref()?;
    let ips = status.pod_ips.as_deref().unwrap_or_default().iter().map(|ip| ip.ip.as_str());
    let addresses: Vec<IpAddr> = ips.filter_map(|ip| ip.parse().ok()).collect();
    if addresses.is_empty() {
        return None;
    }
    let (serving, terminating) = (pods::is_ready(&pod), pods::is_deleting(&pod));
    let publish = spec.publish_not_ready_addresses == Some(true);
    let pod_spec = pod.spec.as_ref()?;
    let in_subdomain = pod_spec.subdomain.as_deref() == Some(service);
    Some(Backend {
        addresses,
        ports: spec.ports.iter().flatten().filter_map(|port| resolve(port, &pod)).collect(),
        ready: publish || (serving && !terminating),
        serving,
        terminating,
        zone: pod_spec.node_name.as_deref().and_then(|node| zone(nodes, node)),
        node: pod_spec.node_name.clone(),
        hostname: pod_spec.hostname.clone().filter(|_| in_subdomain),
        target: json!({
            "kind": "Pod",
            "namespace": object.meta().namespace,
            "name": object.meta().name,
            "uid": object.meta().uid,
        }),
    })
}

fn zone(nodes: &Cache, node: &str) -> Option<String> {
    let node = nodes.get(&Key::new("", node))?;
    let labels = &typed::<Node>(&node).ok()?.metadata.labels;
    labels.as_ref()?.get("topology.kubernetes.io/zone").cloned()
}

/// A Service's port on a pod; `None` when it names a port that the pod does not have.
fn resolve(port: &ServicePort, pod: &Pod) -> Option<Port> {
    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    let number = match &port.target_port {
        None => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => named_port(pod, name, &protocol)?,
    };
    let name = port.name.clone().unwrap_or_default();
    Some(Port { name, port: number, protocol, app_protocol: port.app_protocol.clone() })
}

fn named_port(pod: &Pod, name: &str, protocol: &str) -> Option<i32> {
    let spec = pod.spec.as_ref()?;
    let sidecars =
        spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let same = |port: &&k8s_openapi::api::core::v1::ContainerPort| {
        port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol
    };
    ports.into_iter().find(same).map(|port| port.container_port)
}
