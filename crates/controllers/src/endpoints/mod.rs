//! Endpoints and EndpointSlices of Services: which pods stand behind a Service.

mod legacy;
mod observe;
mod slices;
#[cfg(test)]
mod tests;

use client::{Cache, Caches, typed};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use machinery::{Key, Object};
use reconcile::{Controller, Input, Plan};

pub use observe::{Backend, Port, backends};

use machinery::selector::labels;

/// The label by which slices name their Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The controller of both forms.
pub struct ServiceEndpoints {
    services: Cache,
    pods: Cache,
    nodes: Cache,
    slices: Cache,
    endpoints: Cache,
}

impl ServiceEndpoints {
    pub fn new(caches: &Caches) -> Self {
        Self {
            services: caches.of::<Service>(),
            pods: caches.of::<Pod>(),
            nodes: caches.of::<Node>(),
            slices: caches.of::<EndpointSlice>(),
            endpoints: caches.of::<Endpoints>(),
        }
    }

    fn slices_of(&self, key: &Key) -> Vec<std::sync::Arc<Object>> {
        let slices = self.slices.namespace(&key.namespace);
        slices.into_iter().filter(|slice| slice.meta().labels.get(SERVICE_NAME) == Some(&key.name)).collect()
    }
}

impl Controller for ServiceEndpoints {
    fn name(&self) -> &'static str {
        "endpointslice-controller"
    }

    fn inputs(&self) -> Vec<Input> {
        let services = self.services.clone();
        let by_slice = |slice: &Object| {
            let service = slice.meta().labels.get(SERVICE_NAME);
            service.map(|service| Key::new(&*slice.meta().namespace, &**service)).into_iter().collect()
        };
        vec![
            Input::own(self.services.clone()),
            Input::new(self.pods.clone(), move |pod| services_of(&services, pod)),
            Input::new(self.slices.clone(), by_slice),
            Input::own(self.endpoints.clone()),
        ]
    }

    fn plan(&self, key: &Key, now: Timestamp) -> Plan {
        let stored = self.endpoints.get(key);
        let Some(object) = self.services.get(key) else {
            return Plan {
                actions: legacy::remove(stored.as_deref()).into_iter().collect(),
                ..Plan::nothing()
            };
        };
        let Ok(service) = typed::<Service>(&object) else { return Plan::nothing() };
        let Some(spec) = service.spec.as_ref().filter(|spec| is_selecting(spec)) else {
            return Plan::nothing();
        };
        if object.meta().deletion_timestamp.is_some() {
            return Plan::nothing();
        }
        let backends = backends(spec, &key.name, &self.pods.namespace(&key.namespace), &self.nodes);
        let mut actions = slices::plan(&object, spec, &backends, &self.slices_of(key));
        actions.extend(legacy::plan(&object, spec, &backends, stored.as_deref(), now));
        Plan { actions, ..Plan::nothing() }
    }
}

fn is_selecting(spec: &k8s_openapi::api::core::v1::ServiceSpec) -> bool {
    spec.selector.as_ref().is_some_and(|selector| !selector.is_empty())
        && spec.type_.as_deref() != Some("ExternalName")
}

fn services_of(services: &Cache, pod: &Object) -> Vec<Key> {
    let selects = |service: &Object| {
        typed::<Service>(service).is_ok_and(|service| {
            let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            selector.is_some_and(|selector| {
                !selector.is_empty() && labels::includes(&pod.meta().labels, selector)
            })
        })
    };
    let namespace = services.namespace(&pod.meta().namespace);
    namespace.iter().filter(|service| selects(service)).map(|service| service.key()).collect()
}
