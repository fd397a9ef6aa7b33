//! The parts of objects that matter here.
//!
//! There may be ten thousand Services, and a node reads them all when it starts: what managed fields and annotations
//! say is not even decoded, and nobody keeps what is.

use std::borrow::Cow;
use std::sync::Arc;

use client::typed;
use k8s_openapi::api::core::v1::{Pod, Service, ServiceSpec, ServiceStatus};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use machinery::Object;
use serde::Deserialize;

#[derive(Deserialize)]
struct ServiceParts {
    spec: Option<ServiceSpec>,
    status: Option<ServiceStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SliceParts {
    address_type: String,
    endpoints: Option<Vec<Endpoint>>,
    ports: Option<Vec<EndpointPort>>,
}

#[derive(Deserialize)]
struct Placed<'a> {
    #[serde(borrow)]
    spec: PlacedSpec<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PlacedSpec<'a> {
    #[serde(borrow, default)]
    node_name: Cow<'a, str>,
}

/// Namespace, name and labels.
fn metadata(object: &Object) -> ObjectMeta {
    let meta = object.meta();
    ObjectMeta {
        name: Some(meta.name.clone()),
        namespace: Some(meta.namespace.clone()),
        labels: Some(meta.labels.clone()).filter(|labels| !labels.is_empty()),
        ..ObjectMeta::default()
    }
}

fn part<'a, T: Deserialize<'a>>(object: &'a Object) -> Option<T> {
    let part = object.part::<T>();
    part.inspect_err(|error| tracing::warn!(object = %object.key(), %error, "left out")).ok()
}

/// A Service without most of its metadata; one that does not fit its kind is left out and said so.
pub(crate) fn service_of(object: &Object) -> Option<Service> {
    let ServiceParts { spec, status } = part(object)?;
    Some(Service { metadata: metadata(object), spec, status })
}

/// An EndpointSlice without most of its metadata.
pub(crate) fn slice_of(object: &Object) -> Option<EndpointSlice> {
    let SliceParts { address_type, endpoints, ports } = part(object)?;
    Some(EndpointSlice { address_type, endpoints, ports, metadata: metadata(object) })
}

/// A pod as a whole: only this node's are asked for, and others of this node read them, too.
pub(crate) fn pod_of(object: &Object) -> Option<Arc<Pod>> {
    typed::<Pod>(object).inspect_err(|status| tracing::warn!(%status, "left out")).ok()
}

/// Whether a pod is on that node. Most are elsewhere, and of those nothing else matters.
pub(crate) fn is_on(pod: &Object, node: &str) -> bool {
    pod.part::<Placed<'_>>().is_ok_and(|pod| pod.spec.node_name == node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_are_told_apart_by_their_node() {
        let on = |spec| {
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec});
            is_on(&Object::from_value(&pod, 1).unwrap(), "here")
        };
        assert!(on(json!({"containers": [], "nodeName": "here"})));
        assert!(on(json!({"nodeName": "h\u{65}re", "containers": []})));
        assert!(!on(json!({"nodeName": "there"})) && !on(json!({"containers": []})));
    }
}
