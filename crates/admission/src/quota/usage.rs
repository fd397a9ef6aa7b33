//! How much of a quota an object uses. Pure.

use std::collections::BTreeMap;

use machinery::quantity::Quantity;
use resources::core::pod::quality;
use resources::value::Access;
use serde_json::Value;

use crate::limit_ranger::pod_total;

/// Amounts by the names that quotas use: `pods`, `requests.cpu`, `count/deployments.apps`.
pub type Usage = BTreeMap<String, Quantity>;

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

/// Whether an update of the resource can use more than before.
pub fn can_grow(group: &str, resource: &str) -> bool {
    group.is_empty() && matches!(resource, "services" | "persistentvolumeclaims")
}

/// The resources that the names of a quota's limits are about: group and plural.
pub fn counted_resources(hard: &Value) -> Vec<(&str, &str)> {
    let mut found: Vec<(&str, &str)> = Vec::new();
    for (name, _) in hard.members("") {
        let resource = match name.strip_prefix("count/") {
            Some(counted) => {
                counted.split_once('.').map_or(("", counted), |(resource, group)| (group, resource))
            }
            None if NAMED_COUNTS.contains(&name.as_str()) => ("", name.as_str()),
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

/// What one object uses of a quota.
pub fn of(group: &str, resource: &str, object: &Value, quota: &Value) -> Usage {
    let mut usage = Usage::new();
    if resource == "pods" && group.is_empty() && !matches(object, quota) {
        return usage;
    }
    let one = || Quantity::from_units(1);
    usage.insert(format!("count/{}", qualified(group, resource)), one());
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
    for (name, amount) in pod_total(pod, "requests") {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            usage.insert(name.clone(), amount);
        }
        usage.insert(format!("requests.{name}"), amount);
    }
    for (name, amount) in pod_total(pod, "limits") {
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

/// Whether a pod is in the scopes of a quota.
pub fn matches(pod: &Value, quota: &Value) -> bool {
    let simple =
        quota.items("/spec/scopes").iter().filter_map(Value::as_str).all(|scope| in_scope(pod, scope));
    let expressions = quota.items("/spec/scopeSelector/matchExpressions").iter();
    simple && expressions.into_iter().all(|expression| in_expression(pod, expression))
}

fn in_scope(pod: &Value, scope: &str) -> bool {
    let terminating = pod.has("/spec/activeDeadlineSeconds");
    let best_effort = quality::class(pod) == "BestEffort";
    match scope {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => best_effort,
        "NotBestEffort" => !best_effort,
        "PriorityClass" => !pod.text("/spec/priorityClassName").is_empty(),
        "CrossNamespacePodAffinity" => ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
            let affinity = pod.at("/spec/affinity").at(&format!("/{kind}"));
            let required = affinity.items("/requiredDuringSchedulingIgnoredDuringExecution").iter();
            required
                .into_iter()
                .any(|term| !term.items("/namespaces").is_empty() || term.has("/namespaceSelector"))
        }),
        _ => false,
    }
}

fn in_expression(pod: &Value, expression: &Value) -> bool {
    let scope = expression.text("/scopeName");
    if scope != "PriorityClass" {
        return in_scope(pod, scope) == (expression.text("/operator") != "DoesNotExist");
    }
    let class = pod.at("/spec/priorityClassName");
    let listed = expression.items("/values").contains(class);
    match expression.text("/operator") {
        "In" => listed,
        "NotIn" => !listed,
        "DoesNotExist" => class.as_str().is_none_or(str::is_empty),
        _ => in_scope(pod, scope),
    }
}

/// Adds usage up.
pub fn add(total: &mut Usage, usage: Usage) {
    for (name, amount) in usage {
        let sum = total.remove(&name).map_or(amount, |known| known + amount);
        total.insert(name, sum);
    }
}

/// The part of usage that is limited.
pub fn limited(usage: Usage, hard: &Value) -> Usage {
    usage.into_iter().filter(|(name, _)| hard.get(name).is_some()).collect()
}

/// What is used more than before.
pub fn growth(usage: Usage, before: &Usage) -> Usage {
    let more = usage.into_iter().map(|(name, amount)| match before.get(&name) {
        Some(known) => (name, amount - *known),
        None => (name, amount),
    });
    more.filter(|(_, amount)| !amount.is_zero() && !amount.is_negative()).collect()
}

/// What a pod does not say although the quota limits it: `cpu for: a; memory for: a`. Containers must name what is
/// limited, because it cannot be counted otherwise.
pub fn unspecified(pod: &Value, hard: &Value) -> String {
    let mut texts = Vec::new();
    let containers: Vec<_> =
        pod.items("/spec/containers").iter().chain(pod.items("/spec/initContainers")).collect();
    for (name, _) in hard.members("") {
        let (list, resource) = match name.split_once('.') {
            Some((list @ ("requests" | "limits"), resource)) => (list, resource),
            _ => ("requests", name.as_str()),
        };
        if !matches!(resource, "cpu" | "memory") {
            continue;
        }
        let pointer = format!("/resources/{list}/{resource}");
        let silent: Vec<_> =
            containers.iter().filter(|c| !c.has(&pointer)).map(|c| c.text("/name")).collect();
        if !silent.is_empty() {
            texts.push(format!("{name} for: {}", silent.join(",")));
        }
    }
    texts.join("; ")
}

/// What goes beyond, in upstream's words; `None` when nothing does.
pub fn excess(delta: &Usage, used: &Usage, hard: &Value) -> Option<String> {
    let zero = Quantity::from_units(0);
    let over: Vec<(&String, [String; 3])> = delta
        .iter()
        .filter_map(|(name, amount)| {
            let used = *used.get(name).unwrap_or(&zero);
            let limit = Quantity::read(hard.get(name)?)?;
            let is_over = used + *amount > limit;
            is_over.then(|| (name, [amount.to_string(), used.to_string(), limit.to_string()]))
        })
        .collect();
    if over.is_empty() {
        return None;
    }
    let list = |column: usize| {
        over.iter().map(|(name, amounts)| format!("{name}={}", amounts[column])).collect::<Vec<_>>().join(",")
    };
    Some(format!("requested: {}, used: {}, limited: {}", list(0), list(1), list(2)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_beyond_a_quota_is_named() {
        let quota = json!({"spec": {"hard": {"pods": "1", "requests.cpu": "1"}}});
        let pod =
            json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "600m"}}}]}});
        let hard = &quota["spec"]["hard"];
        let delta = limited(of("", "pods", &pod, &quota), hard);
        assert_eq!(excess(&delta, &Usage::new(), hard), None);
        assert_eq!(
            excess(&delta, &delta, hard).unwrap(),
            "requested: pods=1,requests.cpu=600m, used: pods=1,requests.cpu=600m, limited: pods=1,requests.cpu=1"
        );
        assert_eq!(
            unspecified(&json!({"spec": {"containers": [{"name": "a"}]}}), hard),
            "requests.cpu for: a"
        );
    }

    #[test]
    fn scopes_select_pods() {
        let quota = |scope: &str| json!({"spec": {"hard": {"pods": "1"}, "scopes": [scope]}});
        let pod = json!({"spec": {"activeDeadlineSeconds": 1, "containers": [{}]}});
        for (scope, holds) in [("Terminating", true), ("NotTerminating", false), ("BestEffort", true)] {
            assert_eq!(of("", "pods", &pod, &quota(scope)).is_empty(), !holds, "{scope}");
        }
    }

    #[test]
    fn names_say_what_is_counted() {
        let hard = json!({"count/deployments.apps": "1", "requests.cpu": "1", "services.nodeports": "1",
            "requests.storage": "1Gi", "gold.storageclass.storage.k8s.io/requests.storage": "1Gi"});
        assert_eq!(
            counted_resources(&hard),
            [("apps", "deployments"), ("", "persistentvolumeclaims"), ("", "pods"), ("", "services")]
        );
    }
}
