//! How much one object uses, and which resources a quota's names are about.

use machinery::quantity::Quantity;
use serde_json::Value;

use super::{Quota, Usage};
use crate::core::pod::totals;
use crate::value::Access;

/// Core resources whose number has a name of its own.
const NAMED_COUNTS: [&str; 7] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];

/// `deployments.apps`, or `pods` for the core group.
pub fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

/// Whether an update of the resource (or subresource) can use more than before.
pub fn can_grow(group: &str, resource: &str, subresource: &str) -> bool {
    group.is_empty()
        && matches!((resource, subresource), ("services" | "persistentvolumeclaims", "") | ("pods", "resize"))
}

/// The resources that names of limits are about: group and plural.
pub(super) fn counted<'a>(names: impl Iterator<Item = &'a str>) -> Vec<(&'a str, &'a str)> {
    let mut found: Vec<(&str, &str)> = Vec::new();
    for name in names {
        let resource = match name.strip_prefix("count/") {
            Some(counted) => {
                counted.split_once('.').map_or(("", counted), |(resource, group)| (group, resource))
            }
            None if NAMED_COUNTS.contains(&name) => ("", name),
            None if name.starts_with("services.") => ("", "services"),
            None if name.ends_with("storage") && !name.contains("ephemeral") => {
                ("", "persistentvolumeclaims")
            }
            None if name.contains(".storageclass.storage.k8s.io/") => ("", "persistentvolumeclaims"),
            None => ("", "pods"),
        };
        if !found.contains(&resource) {
            found.push(resource);
        }
    }
    found
}

/// What one object uses under every name that a quota could have for it.
pub(super) fn of(group: &str, resource: &str, object: &Value) -> Usage {
    let one = || Quantity::from_units(1);
    let mut usage = Usage::from([(format!("count/{}", qualified(group, resource)), one())]);
    if !group.is_empty() {
        return usage;
    }
    let is_over = matches!(object.text("/status/phase"), "Succeeded" | "Failed");
    match resource {
        "pods" if is_over => {}
        "pods" => pod(&mut usage, object),
        "services" => service(&mut usage, object),
        "persistentvolumeclaims" => claim(&mut usage, object),
        named if NAMED_COUNTS.contains(&named) => drop(usage.insert(named.to_owned(), one())),
        _ => {}
    }
    usage
}

fn pod(usage: &mut Usage, pod: &Value) {
    usage.insert("pods".to_owned(), Quantity::from_units(1));
    for (name, amount) in totals::of(pod, "requests") {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-") {
            usage.insert(name.clone(), amount);
        }
        usage.insert(format!("requests.{name}"), amount);
    }
    for (name, amount) in totals::of(pod, "limits") {
        usage.insert(format!("limits.{name}"), amount);
    }
}

fn service(usage: &mut Usage, service: &Value) {
    usage.insert("services".to_owned(), Quantity::from_units(1));
    let ports = service.items("/spec/ports").len() as i64;
    match service.text("/spec/type") {
        "NodePort" => drop(usage.insert("services.nodeports".to_owned(), Quantity::from_units(ports))),
        "LoadBalancer" => {
            usage.insert("services.loadbalancers".to_owned(), Quantity::from_units(1));
            let numbered =
                service.items("/spec/ports").iter().filter(|port| port.int("/nodePort").is_some()).count();
            let wanted = service.at("/spec/allocateLoadBalancerNodePorts") != &Value::Bool(false);
            let ports = if wanted { ports } else { numbered as i64 };
            usage.insert("services.nodeports".to_owned(), Quantity::from_units(ports));
        }
        _ => {}
    }
}

fn claim(usage: &mut Usage, claim: &Value) {
    usage.insert("persistentvolumeclaims".to_owned(), Quantity::from_units(1));
    let size = Quantity::read(claim.at("/spec/resources/requests/storage"));
    let class = claim.text("/spec/storageClassName");
    if let Some(size) = &size {
        usage.insert("requests.storage".to_owned(), *size);
    }
    if !class.is_empty() {
        let prefix = format!("{class}.storageclass.storage.k8s.io/");
        usage.insert(format!("{prefix}persistentvolumeclaims"), Quantity::from_units(1));
        if let Some(size) = size {
            usage.insert(format!("{prefix}requests.storage"), size);
        }
    }
}

/// What a pod does not say although the quota limits it: `cpu for: a; memory for: a`. Containers must name what is
/// limited, because it cannot be counted otherwise.
pub fn unspecified(pod: &Value, quota: &Quota) -> String {
    let containers: Vec<_> =
        pod.items("/spec/containers").iter().chain(pod.items("/spec/initContainers")).collect();
    let text = |name: &String| {
        let (list, resource) = match name.split_once('.') {
            Some((list @ ("requests" | "limits"), resource)) => (list, resource),
            _ => ("requests", name.as_str()),
        };
        if !matches!(resource, "cpu" | "memory" | "ephemeral-storage") {
            return None;
        }
        let pointer = format!("/resources/{list}/{resource}");
        if pod.at("/spec").has(&pointer) {
            return None;
        }
        let silent: Vec<_> =
            containers.iter().filter(|c| !c.has(&pointer)).map(|c| c.text("/name")).collect();
        (!silent.is_empty()).then(|| format!("{name} for: {}", silent.join(",")))
    };
    quota.hard.keys().filter_map(text).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_limited_must_be_said() {
        let quota = |hard: Value| Quota::read(&json!({"spec": {"hard": hard}}));
        let pod =
            json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"memory": "1"}}}]}});
        for (hard, expected) in [
            (json!({"pods": "1"}), ""),
            (json!({"requests.cpu": "1"}), "requests.cpu for: a"),
            (json!({"cpu": "1", "memory": "1"}), "cpu for: a"),
            (json!({"limits.memory": "1", "requests.memory": "1"}), "limits.memory for: a"),
            (json!({"requests.example.com/gpu": "1"}), ""),
        ] {
            assert_eq!(unspecified(&pod, &quota(hard.clone())), expected, "{hard}");
        }
    }

    #[test]
    fn names_say_what_is_counted() {
        let names = [
            "count/deployments.apps",
            "requests.cpu",
            "services.nodeports",
            "requests.storage",
            "gold.storageclass.storage.k8s.io/requests.storage",
            "requests.ephemeral-storage",
            "secrets",
        ];
        assert_eq!(
            counted(names.into_iter()),
            [
                ("apps", "deployments"),
                ("", "pods"),
                ("", "services"),
                ("", "persistentvolumeclaims"),
                ("", "secrets")
            ]
        );
    }

    #[test]
    fn services_use_ports() {
        let used = |spec: Value| {
            let usage = of("", "services", &json!({"spec": spec}));
            ["services", "services.nodeports", "services.loadbalancers"]
                .map(|name| usage.get(name).map_or(0, Quantity::value))
        };
        let ports = json!([{"port": 1}, {"port": 2, "nodePort": 30_000}]);
        assert_eq!(used(json!({"type": "ClusterIP", "ports": ports})), [1, 0, 0]);
        assert_eq!(used(json!({"type": "NodePort", "ports": ports})), [1, 2, 0]);
        assert_eq!(used(json!({"type": "LoadBalancer", "ports": ports})), [1, 2, 1]);
        let without = json!({"type": "LoadBalancer", "ports": ports, "allocateLoadBalancerNodePorts": false});
        assert_eq!(used(without), [1, 1, 1]);
    }
}
