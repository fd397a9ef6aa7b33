//! EndpointSlices: at most a hundred endpoints each, changed as little as possible.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::target_of;
use k8s_openapi::api::core::v1::ServiceSpec;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use machinery::Object;
use reconcile::Action;
use reconcile::plan::named;
use serde_json::{Value, json};

use super::{Backend, Port, SERVICE_NAME};
use crate::shared::owners;

/// `--max-endpoints-per-slice` upstream.
const SLICE_MAX: usize = 100;
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// Slices of one kind hold endpoints of one address family with the same ports.
type Group = (&'static str, Vec<Port>);

/// What to create, change and remove for a Service.
pub fn plan(
    service: &Object,
    spec: &ServiceSpec,
    backends: &[Backend],
    stored: &[Arc<Object>],
) -> Vec<Action> {
    let mut wanted = group(spec, backends);
    let mut actions = Vec::new();
    let ours =
        stored.iter().filter(|slice| slice.meta().labels.get(MANAGED_BY).is_some_and(|by| by == MANAGER));
    for slice in ours.filter(|slice| slice.meta().deletion_timestamp.is_none()) {
        actions.extend(update(service, spec, slice, &mut wanted));
    }
    for (group, endpoints) in &wanted {
        let endpoints: Vec<&Value> = endpoints.values().collect();
        actions.extend(endpoints.chunks(SLICE_MAX).map(|chunk| create(service, spec, group, chunk)));
    }
    let never_sliced = stored.is_empty() && actions.is_empty();
    if never_sliced {
        actions.push(create(service, spec, &(families(spec)[0], Vec::new()), &[]));
    }
    actions
}

fn families(spec: &ServiceSpec) -> Vec<&'static str> {
    let families =
        spec.ip_families.iter().flatten().map(|family| if family == "IPv6" { "IPv6" } else { "IPv4" });
    let families: Vec<_> = families.collect();
    if families.is_empty() { vec!["IPv4"] } else { families }
}

/// The wanted endpoints by kind of slice and pod.
fn group(spec: &ServiceSpec, backends: &[Backend]) -> BTreeMap<Group, BTreeMap<String, Value>> {
    let mut groups: BTreeMap<Group, BTreeMap<String, Value>> = BTreeMap::new();
    for family in families(spec) {
        for backend in backends {
            let address = backend.addresses.iter().find(|address| address.is_ipv6() == (family == "IPv6"));
            if let Some(address) = address {
                let uid = backend.target["uid"].as_str().unwrap_or_default().to_owned();
                let endpoint = endpoint(spec, backend, address.to_string());
                groups.entry((family, backend.ports.clone())).or_default().insert(uid, endpoint);
            }
        }
    }
    groups
}

fn endpoint(spec: &ServiceSpec, backend: &Backend, address: String) -> Value {
    let mut endpoint = json!({
        "addresses": [address],
        "conditions": {
            "ready": backend.ready,
            "serving": backend.serving,
            "terminating": backend.terminating,
        },
        "targetRef": backend.target,
    });
    let optional = [("nodeName", &backend.node), ("zone", &backend.zone), ("hostname", &backend.hostname)];
    for (field, value) in optional {
        if let Some(value) = value {
            endpoint[field] = json!(value);
        }
    }
    if let Some(hints) = hints(spec, backend) {
        endpoint["hints"] = hints;
    }
    endpoint
}

/// For whom an endpoint is meant: those of its zone, or of its node, as `trafficDistribution` says.
fn hints(spec: &ServiceSpec, backend: &Backend) -> Option<Value> {
    let distribution = spec.traffic_distribution.as_deref()?;
    let zone = backend.zone.as_ref().map(|zone| json!([{"name": zone}]));
    let node = backend.node.as_ref().map(|node| json!([{"name": node}]));
    match distribution {
        "PreferClose" | "PreferSameZone" => zone.map(|zone| json!({"forZones": zone})),
        "PreferSameNode" => {
            let mut hints = json!({"forNodes": node?});
            if let Some(zone) = zone {
                hints["forZones"] = zone;
            }
            Some(hints)
        }
        _ => None,
    }
}

/// Brings one slice up to date and takes what it holds off `wanted`.
fn update(
    service: &Object,
    spec: &ServiceSpec,
    slice: &Object,
    wanted: &mut BTreeMap<Group, BTreeMap<String, Value>>,
) -> Option<Action> {
    let mut body = slice.value();
    let before = body.clone();
    let family = if body["addressType"] == "IPv6" { "IPv6" } else { "IPv4" };
    let held = body["endpoints"].as_array().cloned().unwrap_or_default();
    let group = wanted
        .iter_mut()
        .find(|((wanted, ports), _)| *wanted == family && ports_json(ports) == body["ports"]);
    let mut kept = Vec::new();
    if let Some((_, endpoints)) = group {
        let uid = |endpoint: &Value| endpoint["targetRef"]["uid"].as_str().unwrap_or_default().to_owned();
        kept.extend(held.iter().filter_map(|endpoint| endpoints.remove(&uid(endpoint))));
        while kept.len() < SLICE_MAX
            && let Some((_, endpoint)) = endpoints.pop_first()
        {
            kept.push(endpoint);
        }
    }
    if kept.is_empty() && !held.is_empty() && !wanted.values().all(BTreeMap::is_empty) {
        return Some(Action::delete(target_of::<EndpointSlice>(""), slice, None));
    }
    body["endpoints"] = Value::Array(kept);
    for (label, value) in labels(service, spec) {
        body["metadata"]["labels"][label] = json!(value);
    }
    (body != before).then(|| Action::Update { target: named(target_of::<EndpointSlice>(""), slice), body })
}

fn create(service: &Object, spec: &ServiceSpec, (family, ports): &Group, endpoints: &[&Value]) -> Action {
    let meta = service.meta();
    let body = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "generateName": format!("{}-", meta.name),
            "namespace": meta.namespace,
            "labels": labels(service, spec),
            "ownerReferences": [owners::controller_reference("v1", "Service", meta)],
        },
        "addressType": family,
        "ports": ports_json(ports),
        "endpoints": endpoints,
    });
    Action::Create { target: target_of::<EndpointSlice>(&meta.namespace), body, announce: None }
}

fn labels(service: &Object, spec: &ServiceSpec) -> BTreeMap<String, String> {
    let mut labels = service.meta().labels.clone();
    labels.insert(SERVICE_NAME.to_owned(), service.meta().name.clone());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if spec.cluster_ip.as_deref() == Some("None") {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}

fn ports_json(ports: &[Port]) -> Value {
    let one = |port: &Port| {
        let mut value = json!({"name": port.name, "port": port.port, "protocol": port.protocol});
        if let Some(protocol) = &port.app_protocol {
            value["appProtocol"] = json!(protocol);
        }
        value
    };
    ports.iter().map(one).collect()
}
