//! The objects that every cluster has: system namespaces, the `kubernetes` Service, priority classes, flow control,
//! default roles. Written through the in-process door, each only when it is missing or differs.

use std::sync::Arc;

use auth::User;
use client::{Client, Patch, Target, WriteOptions};
use futures::StreamExt;
use machinery::Status;
use serde_json::{Value, json};

use crate::config::ClusterFacts;
use crate::core::Core;
use crate::transport::InProcess;

const MANAGER: &str = "kube-apiserver";
const WRITES_AT_ONCE: usize = 64;
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// What is done when an object exists already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Existing {
    /// It belongs to the administrator from now on.
    Keep,
    /// It is the system's: its fields are set again.
    Reconcile,
    /// A default role or binding: what is missing in its lists is added, what administrators added stays.
    Extend,
}

/// Writes what is missing.
pub async fn ensure(core: &Arc<Core>, facts: &ClusterFacts) -> Result<(), Status> {
    let user = User::system_masters("system:apiserver");
    let client = Client::new(Arc::new(InProcess::new(core.clone(), user)));
    let namespace = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    ensure_all(core, &client, NAMESPACES.map(namespace).into(), Existing::Keep).await?;
    let kept = priority_classes()
        .into_iter()
        .chain(flow_control())
        .chain(service_range(facts))
        .chain([metrics_api()])
        .collect();
    tokio::try_join!(
        ensure_all(core, &client, kept, Existing::Keep),
        ensure_all(core, &client, auth::bootstrap_objects(), Existing::Extend),
        ensure_all(core, &client, kubernetes_service(facts), Existing::Reconcile),
    )
    .map(drop)
}

/// Tells those who look for it, e.g. charts, that metrics are served here.
fn metrics_api() -> Value {
    json!({
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {
            "name": "v1beta1.metrics.k8s.io",
            "labels": {"kube-aggregator.kubernetes.io/automanaged": "onstart"},
        },
        "spec": {
            "group": "metrics.k8s.io",
            "version": "v1beta1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
        },
    })
}

/// Writes many at the same time, so that the store commits them together.
async fn ensure_all(
    core: &Core,
    client: &Client,
    objects: Vec<Value>,
    existing: Existing,
) -> Result<(), Status> {
    let writes = objects.into_iter().map(|object| ensure_one(core, client, object, existing));
    let mut writes = futures::stream::iter(writes).buffer_unordered(WRITES_AT_ONCE);
    while let Some(written) = writes.next().await {
        written?;
    }
    Ok(())
}

async fn ensure_one(core: &Core, client: &Client, object: Value, existing: Existing) -> Result<(), Status> {
    let target = target_of(core, &object)?;
    let options = WriteOptions { field_manager: MANAGER.to_owned(), ..WriteOptions::default() };
    match client.transport().get(&target, &client::ListOptions::default()).await {
        Err(status) if status.is_not_found() => {
            let collection = Target { name: String::new(), ..target };
            match client.transport().create(&collection, object, &options).await {
                Err(status) if !status.is_already_exists() => Err(status),
                _ => Ok(()),
            }
        }
        Err(status) => Err(status),
        Ok(_) if existing == Existing::Keep => Ok(()),
        Ok(present) => {
            let present = present.value();
            let object = if existing == Existing::Extend { extended(&present, object) } else { object };
            if contains(&present, &object) || is_protected(&present) {
                return Ok(());
            }
            client.transport().patch(&target, Patch::Merge(object), &options).await.map(drop)
        }
    }
}

/// The wanted role or binding with everything that administrators added to its lists.
fn extended(present: &Value, mut wanted: Value) -> Value {
    for field in ["rules", "subjects"] {
        let Some(list) = wanted.get_mut(field).and_then(Value::as_array_mut) else { continue };
        let own = present.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
        let missing: Vec<_> =
            list.drain(..).filter(|item| !own.iter().any(|known| contains(known, item))).collect();
        *list = own.into_iter().chain(missing).collect();
    }
    wanted
}

/// Administrators take a default role out of the system's hands with this annotation.
fn is_protected(present: &Value) -> bool {
    present
        .pointer("/metadata/annotations/rbac.authorization.kubernetes.io~1autoupdate")
        .is_some_and(|v| v == "false")
}

/// Whether `present` already says everything that `wanted` says.
fn contains(present: &Value, wanted: &Value) -> bool {
    match (present, wanted) {
        (Value::Object(present), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| match present.get(key) {
                Some(own) => contains(own, value),
                None => value.is_null() || value.as_array().is_some_and(Vec::is_empty),
            })
        }
        (Value::Array(present), Value::Array(wanted)) => {
            present.len() == wanted.len()
                && present.iter().zip(wanted).all(|(own, value)| contains(own, value))
        }
        (present, wanted) => present == wanted,
    }
}

fn target_of(core: &Core, object: &Value) -> Result<Target, Status> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = text("/apiVersion").split_once('/').unwrap_or(("", text("/apiVersion")));
    let table = core.table.load();
    let row = table
        .find_kind(group, version, text("/kind"))
        .ok_or_else(|| Status::internal(format!("no row for {} {}", text("/apiVersion"), text("/kind"))))?;
    Ok(Target {
        group: group.to_owned(),
        version: version.to_owned(),
        resource: row.resource.clone(),
        namespace: text("/metadata/namespace").to_owned(),
        name: text("/metadata/name").to_owned(),
        subresource: String::new(),
    })
}

fn priority_classes() -> Vec<Value> {
    let class = |name: &str, value: i64, description: &str| {
        json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
            "metadata": {"name": name}, "value": value, "description": description,
        })
    };
    let last_resort = "This priority should only be used for critical pods that must not be moved";
    vec![
        class(
            "system-node-critical",
            2_000_001_000,
            &format!(
                "Used for system critical pods that must not be moved from their current node. {last_resort}."
            ),
        ),
        class(
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ]
}

fn flow_control() -> Vec<Value> {
    const VERSION: &str = "flowcontrol.apiserver.k8s.io/v1";
    let everything = |group: &str| {
        json!([{
            "subjects": [{"kind": "Group", "group": {"name": group}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }])
    };
    let mut catch_all_rules = everything("system:unauthenticated");
    if let (Some(rules), Value::Array(more)) =
        (catch_all_rules.as_array_mut(), everything("system:authenticated"))
    {
        rules.extend(more);
    }
    let schema = |name: &str, level: &str, precedence: i64, method: Value, rules: Value| {
        let mut spec = json!({"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": rules});
        if !method.is_null() {
            spec["distinguisherMethod"] = method;
        }
        json!({"apiVersion": VERSION, "kind": "FlowSchema", "metadata": {"name": name, "annotations": {"apf.kubernetes.io/autoupdate-spec": "true"}}, "spec": spec})
    };
    let level = |name: &str, spec: Value| json!({"apiVersion": VERSION, "kind": "PriorityLevelConfiguration", "metadata": {"name": name, "annotations": {"apf.kubernetes.io/autoupdate-spec": "true"}}, "spec": spec});
    vec![
        level(
            "exempt",
            json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}}),
        ),
        level(
            "catch-all",
            json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"}}}),
        ),
        schema("exempt", "exempt", 1, Value::Null, everything("system:masters")),
        schema("catch-all", "catch-all", 10_000, json!({"type": "ByUser"}), catch_all_rules),
    ]
}

/// The ServiceCIDR `kubernetes`: the range that the cluster was started with.
fn service_range(facts: &ClusterFacts) -> Option<Value> {
    let wanted = !facts.service_ranges.is_empty();
    wanted.then(|| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
            "metadata": {"name": "kubernetes"}, "spec": {"cidrs": facts.service_ranges},
        })
    })
}

/// The Service `kubernetes` and where it leads.
fn kubernetes_service(facts: &ClusterFacts) -> Vec<Value> {
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let addresses: Vec<String> = facts.service_addresses.iter().map(ToString::to_string).collect();
    let families: Vec<&str> = facts
        .service_addresses
        .iter()
        .map(|address| if address.is_ipv4() { "IPv4" } else { "IPv6" })
        .collect();
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {
            "type": "ClusterIP", "sessionAffinity": "None",
            "clusterIP": addresses.first(), "clusterIPs": addresses,
            "ipFamilies": families,
            "ipFamilyPolicy": if addresses.len() > 1 { "PreferDualStack" } else { "SingleStack" },
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": facts.server_port}],
        },
    });
    let mut objects = vec![service];
    let server: Vec<String> = facts.server_addresses.iter().map(ToString::to_string).collect();
    if server.is_empty() {
        return objects;
    }
    let mirrored = json!({"endpointslice.kubernetes.io/skip-mirror": "true"});
    objects.push(json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": mirrored},
        "subsets": [{
            "addresses": server.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>(),
            "ports": [{"name": "https", "port": facts.server_port, "protocol": "TCP"}],
        }],
    }));
    objects.push(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": if facts.server_addresses[0].is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": server, "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": facts.server_port, "protocol": "TCP"}],
    }));
    objects
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_administrators_added_to_a_default_role_stays() {
        let rule = |verb: &str| json!({"apiGroups": [""], "resources": ["pods"], "verbs": [verb]});
        let role = |rules: Vec<Value>| json!({"metadata": {"name": "a"}, "rules": rules});
        let cases = [
            // present, wanted, what it becomes
            (vec![rule("get")], vec![rule("get")], vec![rule("get")]),
            (vec![rule("own")], vec![rule("get")], vec![rule("own"), rule("get")]),
            (vec![rule("get"), rule("own")], vec![rule("get")], vec![rule("get"), rule("own")]),
            (vec![], vec![rule("get")], vec![rule("get")]),
        ];
        for (present, wanted, expected) in cases {
            let present = role(present);
            let becomes = extended(&present, role(wanted));
            assert_eq!(becomes, role(expected.clone()), "{present}");
            assert_eq!(contains(&present, &becomes), present["rules"] == json!(expected), "{present}");
        }
    }

    #[test]
    fn only_what_differs_is_written() {
        let present = json!({"metadata": {"name": "a", "uid": "1"}, "spec": {"ports": [{"port": 443, "protocol": "TCP"}]}});
        let cases = [
            (json!({"spec": {"ports": [{"port": 443}]}}), true),
            (json!({"spec": {"ports": [{"port": 80}]}}), false),
            (json!({"spec": {"ports": []}}), false),
            (json!({"spec": {"other": null, "more": []}}), true),
            (json!({"metadata": {"name": "b"}}), false),
        ];
        for (wanted, expected) in cases {
            assert_eq!(contains(&present, &wanted), expected, "{wanted}");
        }
    }
}
