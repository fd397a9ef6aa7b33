//! Whether this node can hold a pod; the scheduler may have been wrong or not asked.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

use crate::quantity;

/// What the node has and what is taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Room {
    pub cpu_millis: i64,
    pub memory_bytes: i64,
    pub pods: usize,
    pub used_cpu_millis: i64,
    pub used_memory_bytes: i64,
    pub used_pods: usize,
}

/// `Err` with reason and message as upstream writes them.
pub fn admit(pod: &Pod, room: &Room) -> Result<(), (String, String)> {
    let (cpu, memory) = quantity::pod_requests(pod);
    let short = |name: &str, requested: i64, used: i64, capacity: i64| {
        let message = format!(
            "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
        );
        Err((format!("OutOf{name}"), message))
    };
    if room.used_pods >= room.pods {
        return short("pods", 1, room.used_pods as i64, room.pods as i64);
    }
    if cpu > 0 && room.used_cpu_millis.saturating_add(cpu) > room.cpu_millis {
        return short("cpu", cpu, room.used_cpu_millis, room.cpu_millis);
    }
    if memory > 0 && room.used_memory_bytes.saturating_add(memory) > room.memory_bytes {
        return short("memory", memory, room.used_memory_bytes, room.memory_bytes);
    }
    sysctls(pod)?;
    let os = pod.spec.as_ref().and_then(|spec| spec.os.as_ref()).map(|os| os.name.as_str());
    if os.is_some_and(|os| os != "linux") {
        let message = "Failed to admit pod as the OS field doesn't match node OS";
        return Err(("PodOSNotSupported".to_owned(), message.to_owned()));
    }
    Ok(())
}

/// Whether the pod's node selector selects a node with these labels.
pub fn selected(pod: &Pod, labels: &BTreeMap<String, String>) -> Result<(), (String, String)> {
    let selector = pod.spec.iter().flat_map(|spec| spec.node_selector.iter().flatten());
    if selector.into_iter().any(|(key, value)| labels.get(key) != Some(value)) {
        let message = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        return Err(("NodeAffinity".to_owned(), message.to_owned()));
    }
    Ok(())
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

fn sysctls(pod: &Pod) -> Result<(), (String, String)> {
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

    fn check(spec: Value, want: Option<(&str, &str)>) {
        let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
        let room = Room {
            cpu_millis: 2000,
            memory_bytes: 1000,
            pods: 3,
            used_cpu_millis: 1500,
            used_memory_bytes: 0,
            used_pods: 2,
        };
        let labels = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
        let got = admit(&pod, &room).and_then(|()| selected(&pod, &labels)).err();
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
        check(json!({"containers": [], "nodeSelector": {"zone": "a"}}), None);
        check(
            json!({"containers": [], "nodeSelector": {"zone": "b"}}),
            Some((
                "NodeAffinity",
                "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
            )),
        );
    }
}
