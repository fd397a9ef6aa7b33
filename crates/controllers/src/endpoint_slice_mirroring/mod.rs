//! EndpointSlices for the Endpoints that people write themselves, of Services without a selector.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use client::{Cache, Caches, target_of, typed};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use machinery::{Key, Object};
use reconcile::plan::named;
use reconcile::{Action, Controller, Input, Plan};
use serde_json::{Value, json};

use crate::endpoints::SERVICE_NAME;
use crate::shared::owners;

const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that say something of the Endpoints only.
const OWN_ANNOTATIONS: [&str; 2] =
    ["kubectl.kubernetes.io/last-applied-configuration", "endpoints.kubernetes.io/last-change-trigger-time"];
/// More addresses of a subset than this are left out (`--mirroring-max-endpoints-per-subset` upstream).
const ADDRESS_MAX: usize = 1000;

/// The controller.
pub struct Mirroring {
    endpoints: Cache,
    services: Cache,
    slices: Cache,
}

impl Mirroring {
    pub fn new(caches: &Caches) -> Self {
        Self {
            endpoints: caches.of::<Endpoints>(),
            services: caches.of::<Service>(),
            slices: caches.of::<EndpointSlice>(),
        }
    }

    /// The Endpoints, if they are to be mirrored.
    fn source(&self, key: &Key) -> Option<(Arc<Object>, Arc<Endpoints>)> {
        let object = self.endpoints.get(key).filter(|object| object.meta().deletion_timestamp.is_none())?;
        let service = typed::<Service>(&*self.services.get(key)?).ok()?;
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let view = typed::<Endpoints>(&object).ok()?;
        let annotations = view.metadata.annotations.as_ref();
        let is_lock = annotations.is_some_and(|all| all.contains_key(LEADER));
        let is_skipped = object.meta().labels.get(SKIP).is_some_and(|skip| skip == "true");
        (selector.is_none_or(BTreeMap::is_empty) && !is_lock && !is_skipped).then_some((object, view))
    }
}

/// The key of the Endpoints that a slice mirrors.
fn mirrored(slice: &Object) -> Option<Key> {
    let labels = &slice.meta().labels;
    labels.get(MANAGED_BY).filter(|by| *by == MANAGER)?;
    labels.get(SERVICE_NAME).map(|service| Key::new(&*slice.meta().namespace, &**service))
}

impl Controller for Mirroring {
    fn name(&self) -> &'static str {
        "endpointslicemirroring-controller"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::own(self.endpoints.clone()),
            Input::own(self.services.clone()),
            Input::new(self.slices.clone(), |slice| mirrored(slice).into_iter().collect()),
        ]
    }

    fn plan(&self, key: &Key, _now: Timestamp) -> Plan {
        let mut slices = self.slices.namespace(&key.namespace);
        slices.retain(|slice| {
            mirrored(slice).as_ref() == Some(key) && slice.meta().deletion_timestamp.is_none()
        });
        let source = self.source(key);
        let actions = plan(source.as_ref().map(|(object, view)| (&**object, &**view)), &slices);
        Plan { actions, ..Plan::nothing() }
    }
}

/// Makes the slices those of the Endpoints; none when there is nothing to mirror.
pub fn plan(source: Option<(&Object, &Endpoints)>, stored: &[Arc<Object>]) -> Vec<Action> {
    let mut wanted = source.map(|(object, view)| bodies(object, view)).unwrap_or_default();
    let mut actions = Vec::new();
    for slice in stored {
        let value = slice.value();
        // A slice's address type cannot change.
        let successor = wanted.iter().position(|body| body["addressType"] == value["addressType"]);
        let target = named(target_of::<EndpointSlice>(""), slice);
        match successor.map(|at| wanted.remove(at)) {
            None => actions.push(Action::delete(target_of::<EndpointSlice>(""), slice, None)),
            Some(body) => {
                let updated = overlay(&value, &body);
                if updated != value {
                    actions.push(Action::Update { target, body: updated });
                }
            }
        }
    }
    let namespace = source.map(|(object, _)| object.meta().namespace.clone()).unwrap_or_default();
    let create =
        |body: Value| Action::Create { target: target_of::<EndpointSlice>(&namespace), body, announce: None };
    actions.extend(wanted.into_iter().map(create));
    actions
}

fn overlay(stored: &Value, body: &Value) -> Value {
    let mut updated = stored.clone();
    for field in ["endpoints", "ports"] {
        updated[field] = body[field].clone();
    }
    for field in ["labels", "annotations"] {
        if let Some(values) = body["metadata"].get(field) {
            updated["metadata"][field] = values.clone();
        }
    }
    updated
}

/// A slice per subset and address family.
fn bodies(object: &Object, endpoints: &Endpoints) -> Vec<Value> {
    let mut bodies = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let not_ready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        let all: Vec<(&EndpointAddress, bool)> = ready.chain(not_ready).take(ADDRESS_MAX).collect();
        for (family, is_six) in [("IPv4", false), ("IPv6", true)] {
            let of_family = all.iter().filter(|(address, _)| address.ip.contains(':') == is_six);
            let list: Vec<Value> = of_family.map(|(address, ready)| endpoint(address, *ready)).collect();
            if !list.is_empty() {
                bodies.push(body(object, endpoints, family, subset, list));
            }
        }
    }
    bodies
}

fn body(
    object: &Object,
    endpoints: &Endpoints,
    family: &str,
    subset: &k8s_openapi::api::core::v1::EndpointSubset,
    list: Vec<Value>,
) -> Value {
    let meta = object.meta();
    let mut labels = meta.labels.clone();
    labels.insert(SERVICE_NAME.to_owned(), meta.name.clone());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|name, _| !OWN_ANNOTATIONS.contains(&name.as_str()));
    let mut metadata = json!({
        "generateName": format!("{}-", meta.name),
        "namespace": meta.namespace,
        "labels": labels,
        "ownerReferences": [owners::controller_reference("v1", "Endpoints", meta)],
    });
    if !annotations.is_empty() {
        metadata["annotations"] = json!(annotations);
    }
    let port = |port: &k8s_openapi::api::core::v1::EndpointPort| {
        let mut value = json!({"name": port.name.clone().unwrap_or_default(), "port": port.port,
            "protocol": port.protocol.as_deref().unwrap_or("TCP")});
        if let Some(protocol) = &port.app_protocol {
            value["appProtocol"] = json!(protocol);
        }
        value
    };
    let ports: Vec<Value> = subset.ports.iter().flatten().map(port).collect();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
        "addressType": family, "ports": ports, "endpoints": list})
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Value {
    let mut endpoint = json!({"addresses": [address.ip], "conditions": {"ready": ready}});
    if let Some(target) = &address.target_ref {
        endpoint["targetRef"] = serde_json::to_value(target).unwrap_or_default();
    }
    for (field, value) in [("hostname", &address.hostname), ("nodeName", &address.node_name)] {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            endpoint[field] = json!(value);
        }
    }
    endpoint
}
