//! ClusterRoles that aggregate others: their rules are the union of those that they select.

use client::{Cache, Caches, Patch, target_of, typed};
use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use machinery::Key;
use reconcile::plan::named;
use reconcile::{Action, Controller, Input, Plan};
use serde_json::json;

use machinery::selector::labels;

/// The controller.
pub struct Aggregation {
    roles: Cache,
}

impl Aggregation {
    pub fn new(caches: &Caches) -> Self {
        Self { roles: caches.of::<ClusterRole>() }
    }
}

impl Controller for Aggregation {
    fn name(&self) -> &'static str {
        "clusterrole-aggregation-controller"
    }

    fn inputs(&self) -> Vec<Input> {
        let roles = self.roles.clone();
        let aggregating = move |_: &machinery::Object| {
            let all = roles.all();
            let aggregates = |role: &ClusterRole| role.aggregation_rule.is_some();
            all.iter()
                .filter(|role| typed(role).is_ok_and(|role| aggregates(&role)))
                .map(|role| role.key())
                .collect()
        };
        vec![Input::new(self.roles.clone(), aggregating)]
    }

    fn plan(&self, key: &Key, _now: Timestamp) -> Plan {
        let Some(object) = self.roles.get(key) else { return Plan::nothing() };
        let Ok(role) = typed::<ClusterRole>(&object) else { return Plan::nothing() };
        let Some(rule) = &role.aggregation_rule else { return Plan::nothing() };
        let selectors = rule.cluster_role_selectors.as_deref().unwrap_or_default();
        let mut rules: Vec<PolicyRule> = Vec::new();
        for other in self.roles.all().iter().filter(|other| other.key() != *key) {
            if selectors.iter().any(|selector| labels::matches(selector, &other.meta().labels))
                && let Ok(other) = typed::<ClusterRole>(other)
            {
                let new = other.rules.iter().flatten().filter(|rule| !rules.contains(rule)).cloned();
                let new: Vec<_> = new.collect();
                rules.extend(new);
            }
        }
        if role.rules.as_deref().unwrap_or_default() == rules {
            return Plan::nothing();
        }
        let patch = Patch::Merge(json!({"rules": rules}));
        let action = Action::Patch { target: named(target_of::<ClusterRole>(""), &object), patch };
        Plan { actions: vec![action], ..Plan::nothing() }
    }
}
