//! Every namespace has the ConfigMap `kube-root-ca.crt`, by which pods know the API server.

use client::{Cache, Caches, Patch, target_of};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use machinery::{Key, Object};
use reconcile::plan::named_key;
use reconcile::{Action, Controller, Input, Plan};
use serde_json::json;

const NAME: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

/// The controller. Its keys are namespaces.
pub struct RootCa {
    namespaces: Cache,
    config_maps: Cache,
    certificate: String,
}

impl RootCa {
    pub fn new(caches: &Caches, certificate: String) -> Self {
        Self { namespaces: caches.of::<Namespace>(), config_maps: caches.of::<ConfigMap>(), certificate }
    }

    fn is_right(&self, stored: &Object) -> bool {
        stored.value().pointer("/data") == Some(&json!({"ca.crt": self.certificate}))
    }
}

impl Controller for RootCa {
    fn name(&self) -> &'static str {
        "root-ca-certificate-publisher"
    }

    fn inputs(&self) -> Vec<Input> {
        let by_map = |map: &Object| match map.meta().name.as_str() {
            NAME => vec![Key::new("", &*map.meta().namespace)],
            _ => Vec::new(),
        };
        vec![Input::own(self.namespaces.clone()), Input::new(self.config_maps.clone(), by_map)]
    }

    fn plan(&self, key: &Key, _now: Timestamp) -> Plan {
        let namespace = self.namespaces.get(key);
        if namespace.is_none_or(|namespace| namespace.meta().deletion_timestamp.is_some()) {
            return Plan::nothing();
        }
        let data = json!({"ca.crt": self.certificate});
        let collection = target_of::<ConfigMap>(&key.name);
        let action = match self.config_maps.get(&Key::new(&*key.name, NAME)) {
            Some(stored) if self.is_right(&stored) => return Plan::nothing(),
            Some(_) => {
                let patch = Patch::Json(json!([{"op": "add", "path": "/data", "value": data}]));
                Action::Patch { target: named_key(collection, &key.name, NAME), patch }
            }
            None => {
                let body = json!({
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {
                        "name": NAME,
                        "namespace": key.name,
                        "annotations": {"kubernetes.io/description": DESCRIPTION},
                    },
                    "data": data,
                });
                Action::Create { target: collection, body, announce: None }
            }
        };
        Plan { actions: vec![action], ..Plan::nothing() }
    }
}
