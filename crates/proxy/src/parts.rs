//! The parts of objects that matter here.
//!
//! There may be ten thousand Services, and a node reads them all when it starts: what managed fields and annotations
//! say is not even decoded, and nobody keeps what is.

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
