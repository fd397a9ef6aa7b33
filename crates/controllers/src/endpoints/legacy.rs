//! The older `v1.Endpoints` object, which many clients still read.

use std::collections::BTreeMap;

use client::target_of;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Endpoints, ServiceSpec};
use machinery::Object;
use reconcile::Action;
use reconcile::plan::named;
use serde_json::{Value, json};

use super::Backend;

/// More addresses than this are left out and the object says so (`maxCapacity` upstream).
const ADDRESS_MAX: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Removes what this controller made for a Service that is gone.
pub fn remove(stored: Option<&Object>) -> Option<Action> {
    let stored =
        stored.filter(|stored| stored.meta().labels.get(MANAGED_BY).is_some_and(|by| by == MANAGER))?;
    Some(Action::delete(target_of::<Endpoints>(""), stored, None))
}

/// Creates or updates the object of a Service.
pub fn plan(
    service: &Object,
    spec: &ServiceSpec,
    backends: &[Backend],
    stored: Option<&Object>,
    now: Timestamp,
) -> Option<Action> {
    let meta = service.meta();
    let subsets = subsets(&backends[..backends.len().min(ADDRESS_MAX)]);
    let mut labels = meta.labels.clone();
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if spec.cluster_ip.as_deref() == Some("None") {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    let mut annotations = json!({TRIGGER_TIME: now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()});
    if backends.len() > ADDRESS_MAX {
        annotations[OVER_CAPACITY] = json!("truncated");
    }
    let Some(stored) = stored else {
        let body = json!({
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {
                "name": meta.name, "namespace": meta.namespace, "labels": labels, "annotations": annotations,
            },
            "subsets": subsets,
        });
        return Some(Action::Create {
            target: target_of::<Endpoints>(&meta.namespace),
            body,
            announce: None,
        });
    };
    let mut body = stored.value();
    let stored_subsets = body.get("subsets").cloned().unwrap_or_else(|| json!([]));
    if stored_subsets == subsets && stored.meta().labels == labels {
        return None;
    }
    body["subsets"] = subsets;
    body["metadata"]["labels"] = json!(labels);
    body["metadata"]["annotations"] = annotations;
    Some(Action::Update { target: named(target_of::<Endpoints>(""), stored), body })
}

/// Backends with the same ports form one subset.
fn subsets(backends: &[Backend]) -> Value {
    let mut by_ports = BTreeMap::new();
    for backend in backends.iter().filter(|backend| !backend.terminating || backend.ready) {
        by_ports.entry(backend.ports.clone()).or_insert_with(Vec::new).push(backend);
    }
    let subset = |(ports, backends): (Vec<super::Port>, Vec<&Backend>)| {
        let (ready, not_ready): (Vec<_>, Vec<_>) = backends.iter().partition(|backend| backend.ready);
        let mut subset = json!({});
        for (field, backends) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
            if !backends.is_empty() {
                subset[field] = backends.into_iter().map(address).collect();
            }
        }
        if !ports.is_empty() {
            let port = |port: &super::Port| {
                let mut value = json!({"port": port.port, "protocol": port.protocol});
                if !port.name.is_empty() {
                    value["name"] = json!(port.name);
                }
                if let Some(protocol) = &port.app_protocol {
                    value["appProtocol"] = json!(protocol);
                }
                value
            };
            subset["ports"] = ports.iter().map(port).collect();
        }
        subset
    };
    by_ports.into_iter().map(subset).collect()
}

fn address(backend: &Backend) -> Value {
    let mut address = json!({"ip": backend.addresses[0].to_string(), "targetRef": backend.target});
    if let Some(node) = &backend.node {
        address["nodeName"] = json!(node);
    }
    if let Some(hostname) = &backend.hostname {
        address["hostname"] = json!(hostname);
    }
    address
}
