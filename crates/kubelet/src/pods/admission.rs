//! Whether this node can hold a pod; the scheduler may have been wrong or not asked.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use machinery::selector::nodes;

use crate::quantity;

/// What a pod takes of its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    pub cpu_millis: i64,
    pub memory_bytes: i64,
    pub ports: Vec<HostPort>,
}

impl Claims {
    /// What the pod's specification asks for.
    pub fn of(pod: &Pod) -> Self {
        let (cpu_millis, memory_bytes) = quantity::pod_requests(pod);
        Self { cpu_millis, memory_bytes, ports: host_ports(pod) }
    }
}

/// A port of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    protocol: String,
    address: String,
    number: i32,
}

impl HostPort {
    const ANY: &str = "0.0.0.0";

    fn clashes(&self, other: &Self) -> bool {
        let any = |port: &Self| port.address == Self::ANY;
        let shared = self.address == other.address || any(self) || any(other);
        shared && self.protocol == other.protocol && self.number == other.number
    }
}

/// The node's ports that a pod listens on while it runs: its containers' and its sidecars'.
fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let taken = ports.filter_map(|port| {
        let given = |text: &Option<String>, default: &str| {
            text.clone().filter(|text| !text.is_empty()).unwrap_or_else(|| default.to_owned())
        };
        Some(HostPort {
            protocol: given(&port.protocol, "TCP"),
            address: given(&port.host_ip, HostPort::ANY),
            number: port.host_port.filter(|number| *number > 0)?,
        })
    });
    taken.collect()
}

/// What the node has and what is taken.
#[derive(Clone, Debug, Default)]
pub struct Room {
    pub cpu_millis: i64,
    pub memory_bytes: i64,
    pub pods: usize,
    pub used: Claims,
    pub used_pods: usize,
}

impl Room {
    /// A pod that is there.
    pub fn take(&mut self, claims: &Claims) {
        self.used_pods += 1;
        self.used.cpu_millis = self.used.cpu_millis.saturating_add(claims.cpu_millis);
        self.used.memory_bytes = self.used.memory_bytes.saturating_add(claims.memory_bytes);
        self.used.ports.extend(claims.ports.iter().cloned());
    }
}

/// Reason and message as upstream writes them.
type Refusal = (String, String);

/// Whether the pod fits beside the others.
pub fn admit(pod: &Pod, claims: &Claims, room: &Room) -> Result<(), Refusal> {
    fits(claims, room)?;
    sysctls(pod)?;
    let taken = |port: &HostPort| room.used.ports.iter().any(|used| used.clashes(port));
    if claims.ports.iter().any(taken) {
        return predicate("NodePorts", "node(s) didn't have free ports for the requested pod ports");
    }
    let os = pod.spec.as_ref().and_then(|spec| spec.os.as_ref()).map(|os| os.name.as_str());
    if os.is_some_and(|os| os != "linux") {
        let message = "Failed to admit pod as the OS field doesn't match node OS";
        return Err(("PodOSNotSupported".to_owned(), message.to_owned()));
    }
    Ok(())
}

fn fits(claims: &Claims, room: &Room) -> Result<(), Refusal> {
    let short = |name: &str, requested: i64, used: i64, capacity: i64| {
        let message = format!(
            "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
        );
        Err((format!("OutOf{name}"), message))
    };
    if room.used_pods >= room.pods {
        return short("pods", 1, room.used_pods as i64, room.pods as i64);
    }
    let (cpu, memory, used) = (claims.cpu_millis, claims.memory_bytes, &room.used);
    if cpu > 0 && used.cpu_millis.saturating_add(cpu) > room.cpu_millis {
        return short("cpu", cpu, used.cpu_millis, room.cpu_millis);
    }
    if memory > 0 && used.memory_bytes.saturating_add(memory) > room.memory_bytes {
        return short("memory", memory, used.memory_bytes, room.memory_bytes);
    }
    Ok(())
}

fn predicate(name: &str, cause: &str) -> Result<(), Refusal> {
    Err((name.to_owned(), format!("Predicate {name} failed: {cause}")))
}

/// Whether the pod's node selector and required node affinity hold for a node of this name with these labels.
pub fn selected(pod: &Pod, name: &str, labels: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    if nodes::admits(spec, labels, name) {
        return Ok(());
    }
    predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector")
}

/// What a pod may set in its own namespaces without harm to others; upstream's list.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

fn sysctls(pod: &Pod) -> Result<(), Refusal> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let forbidden = |message: String| Err(("SysctlForbidden".to_owned(), message));
    for sysctl in spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten()) {
        let name = sysctl.name.replace('/', ".");
        if !SAFE_SYSCTLS.contains(&name.as_str()) {
            return forbidden(format!("forbidden sysctl: {name:?} not allowlisted"));
        }
        if name.starts_with("net.") && spec.host_network == Some(true) {
            return forbidden(format!("forbidden sysctl: {name:?} not allowed with host net enabled"));
        }
        if name.starts_with("kernel.") && spec.host_ipc == Some(true) {
            return forbidden(format!("forbidden sysctl: {name:?} not allowed with host ipc enabled"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn port(protocol: &str, address: &str, number: i32) -> HostPort {
        HostPort { protocol: protocol.to_owned(), address: address.to_owned(), number }
    }

    fn check(spec: Value, want: Option<(&str, &str)>) {
        let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
        let room = Room {
            cpu_millis: 2000,
            memory_bytes: 1000,
            pods: 3,
            used: Claims {
                cpu_millis: 1500,
                memory_bytes: 0,
                ports: vec![port("TCP", "0.0.0.0", 80), port("UDP", "10.0.0.1", 53)],
            },
            used_pods: 2,
        };
        let labels = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
        let got = admit(&pod, &Claims::of(&pod), &room).and_then(|()| selected(&pod, "n", &labels)).err();
        assert_eq!(got, want.map(|(reason, message)| (reason.to_owned(), message.to_owned())));
    }

    #[test]
    fn judges() {
        let asks = |cpu: &str, memory: &str| json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]});
        check(asks("500m", "1000"), None);
        check(
            asks("501m", "1"),
            Some((
                "OutOfcpu",
                "Node didn't have enough resource: cpu, requested: 501, used: 1500, capacity: 2000",
            )),
        );
        check(
            asks("0", "1001"),
            Some((
                "OutOfmemory",
                "Node didn't have enough resource: memory, requested: 1001, used: 0, capacity: 1000",
            )),
        );
        let tuned = |name: &str, host: bool| {
            json!({"containers": [], "hostNetwork": host,
            "securityContext": {"sysctls": [{"name": name, "value": "1"}]}})
        };
        check(tuned("kernel.shm_rmid_forced", true), None);
        check(
            tuned("kernel.msgmax", false),
            Some(("SysctlForbidden", "forbidden sysctl: \"kernel.msgmax\" not allowlisted")),
        );
        check(
            tuned("net.ipv4.tcp_syncookies", true),
            Some((
                "SysctlForbidden",
                "forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host net enabled",
            )),
        );
    }

    #[test]
    fn ports_of_the_node_are_taken_once() {
        let refused = Some((
            "NodePorts",
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
        ));
        for (port, is_free) in [
            (json!({"containerPort": 80}), true),
            (json!({"containerPort": 8080, "hostPort": 80}), false),
            (json!({"containerPort": 8080, "hostPort": 80, "hostIP": "10.0.0.1", "protocol": "TCP"}), false),
            (json!({"containerPort": 80, "hostPort": 80, "protocol": "UDP"}), true),
            (json!({"containerPort": 80, "hostPort": 81}), true),
            (json!({"containerPort": 53, "hostPort": 53, "hostIP": "10.0.0.2", "protocol": "UDP"}), true),
            (json!({"containerPort": 53, "hostPort": 53, "hostIP": "10.0.0.1", "protocol": "UDP"}), false),
            (json!({"containerPort": 53, "hostPort": 53, "protocol": "UDP"}), false),
        ] {
            let container = json!({"name": "c", "ports": [port]});
            let wanted = if is_free { None } else { refused };
            check(json!({"containers": [container]}), wanted);
            // A sidecar goes on listening; another init container does not count.
            check(json!({"containers": [], "initContainers": [container]}), None);
            let mut sidecar = container.clone();
            sidecar["restartPolicy"] = json!("Always");
            check(json!({"containers": [], "initContainers": [sidecar]}), wanted);
        }
    }

    #[test]
    fn nodes_are_chosen_by_labels_and_name() {
        let refused = Some((
            "NodeAffinity",
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        ));
        let term = |term: Value| {
            json!({"containers": [], "affinity": {"nodeAffinity":
                {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}})
        };
        let label = |operator: &str, values: Value| {
            term(json!({"matchExpressions": [{"key": "zone", "operator": operator, "values": values}]}))
        };
        let name = |name: &str| {
            term(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}))
        };
        for (spec, is_chosen) in [
            (json!({"containers": [], "nodeSelector": {"zone": "a"}}), true),
            (json!({"containers": [], "nodeSelector": {"zone": "b"}}), false),
            (label("In", json!(["b", "a"])), true),
            (label("NotIn", json!(["a"])), false),
            (label("Exists", json!([])), true),
            (label("DoesNotExist", json!([])), false),
            (label("Gt", json!(["1"])), false),
            (name("n"), true),
            (name("m"), false),
            (term(json!({})), false),
        ] {
            check(spec, if is_chosen { None } else { refused });
        }
    }
}
