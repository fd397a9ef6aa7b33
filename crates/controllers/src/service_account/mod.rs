//! Every namespace has a `default` service account.

use client::{Cache, Caches, target_of};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use machinery::Key;
use reconcile::{Action, Controller, Input, Plan};
use serde_json::json;

const DEFAULT: &str = "default";

/// The controller. Its keys are namespaces.
pub struct ServiceAccounts {
    namespaces: Cache,
    accounts: Cache,
}

impl ServiceAccounts {
    pub fn new(caches: &Caches) -> Self {
        Self { namespaces: caches.of::<Namespace>(), accounts: caches.of::<ServiceAccount>() }
    }
}

impl Controller for ServiceAccounts {
    fn name(&self) -> &'static str {
        "service-account-controller"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::own(self.namespaces.clone()),
            Input::new(self.accounts.clone(), |account| vec![Key::new("", &*account.meta().namespace)]),
        ]
    }

    fn plan(&self, key: &Key, _now: Timestamp) -> Plan {
        let is_live = |namespace: &machinery::Object| namespace.meta().deletion_timestamp.is_none();
        let wanted = self.namespaces.get(key).is_some_and(|namespace| is_live(&namespace));
        if !wanted || self.accounts.get(&Key::new(&*key.name, DEFAULT)).is_some() {
            return Plan::nothing();
        }
        let body = json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": DEFAULT, "namespace": key.name},
        });
        let create = Action::Create { target: target_of::<ServiceAccount>(&key.name), body, announce: None };
        Plan { actions: vec![create], ..Plan::nothing() }
    }
}
