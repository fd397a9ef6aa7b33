//! PodDisruptionBudgets: how many pods may be evicted now.
//!
//! Pods of controllers that only the scale subresource of a custom resource can tell the size of do not count towards
//! `maxUnavailable` and percentages.

mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::{Cache, Caches, typed};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use machinery::selector::labels;
use machinery::{Key, Object, OwnerReference};
use reconcile::{Controller, Input, Plan};

pub use plan::plan;

use crate::shared::claim::ObservedPod;
use crate::shared::owners;

/// A budget and the pods that it protects.
pub struct Observed {
    pub object: Arc<Object>,
    pub view: Arc<PodDisruptionBudget>,
    pub pods: Vec<ObservedPod>,
    /// How many pods the controllers of these pods are to run; `None` where no pod has a known one.
    pub expected: Option<i32>,
}

/// The controller.
pub struct Disruption {
    budgets: Cache,
    pods: Cache,
    replica_sets: Cache,
    replication_controllers: Cache,
    stateful_sets: Cache,
    deployments: Cache,
}

impl Disruption {
    pub fn new(caches: &Caches) -> Self {
        Self {
            budgets: caches.of::<PodDisruptionBudget>(),
            pods: caches.of::<Pod>(),
            replica_sets: caches.of::<ReplicaSet>(),
            replication_controllers: caches.of::<ReplicationController>(),
            stateful_sets: caches.of::<StatefulSet>(),
            deployments: caches.of::<Deployment>(),
        }
    }

    fn observe(&self, key: &Key) -> Option<Observed> {
        let object = self.budgets.get(key)?;
        let view = typed::<PodDisruptionBudget>(&object)
            .inspect_err(|status| tracing::warn!(%status, "cannot be read"))
            .ok()?;
        let selects = |pod: &Arc<Object>| protects(&view, pod);
        let pods = self.pods.namespace(&key.namespace).into_iter().filter(selects);
        let pods: Vec<ObservedPod> =
            pods.filter_map(|pod| typed::<Pod>(&pod).ok().map(|view| (pod, view))).collect();
        let expected = self.expected(&key.namespace, &pods);
        Some(Observed { object, view, pods, expected })
    }

    /// The sum of the sizes of the pods' controllers, each counted once.
    fn expected(&self, namespace: &str, pods: &[ObservedPod]) -> Option<i32> {
        let mut seen = std::collections::BTreeMap::new();
        for (object, _) in pods {
            let Some(owner) = owners::controller_of(object.meta()) else { continue };
            if let Some((uid, size)) = self.size(namespace, owner) {
                seen.insert(uid, size);
            }
        }
        (!seen.is_empty()).then(|| seen.values().sum())
    }

    /// The uid and size of the controller at the top.
    fn size(&self, namespace: &str, owner: &OwnerReference) -> Option<(String, i32)> {
        let key = Key::new(namespace, &*owner.name);
        let (cache, above) = match owner.kind.as_str() {
            "ReplicaSet" => (&self.replica_sets, true),
            "ReplicationController" => (&self.replication_controllers, false),
            "StatefulSet" => (&self.stateful_sets, false),
            "Deployment" => (&self.deployments, false),
            _ => return None,
        };
        let object = cache.get(&key).filter(|object| object.meta().uid == owner.uid)?;
        let deployment =
            owners::controller_of(object.meta()).filter(|owner| above && owner.kind == "Deployment");
        if let Some(deployment) = deployment {
            return self.size(namespace, deployment);
        }
        let replicas =
            object.value().pointer("/spec/replicas").and_then(serde_json::Value::as_i64).unwrap_or(1);
        Some((owner.uid.clone(), i32::try_from(replicas).unwrap_or(i32::MAX)))
    }
}

/// Whether a budget selects a pod. One without a selector selects none, one with an empty selector all.
fn protects(budget: &PodDisruptionBudget, pod: &Object) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| labels::matches(selector, &pod.meta().labels))
}

impl Controller for Disruption {
    fn name(&self) -> &'static str {
        "disruption-controller"
    }

    fn inputs(&self) -> Vec<Input> {
        let budgets = self.budgets.clone();
        let of_pod = move |pod: &Object| {
            let protecting = budgets.namespace(&pod.meta().namespace);
            let protecting = protecting
                .iter()
                .filter(|budget| typed::<PodDisruptionBudget>(budget).is_ok_and(|b| protects(&b, pod)));
            protecting.map(|budget| budget.key()).collect()
        };
        let mut inputs = vec![Input::own(self.budgets.clone()), Input::new(self.pods.clone(), of_pod)];
        for cache in
            [&self.replica_sets, &self.replication_controllers, &self.stateful_sets, &self.deployments]
        {
            let budgets = self.budgets.clone();
            // The size of any controller may be the one that a budget of its namespace is a share of.
            inputs.push(Input::new(cache.clone(), move |controller| {
                budgets.namespace(&controller.meta().namespace).iter().map(|budget| budget.key()).collect()
            }));
        }
        inputs
    }

    fn plan(&self, key: &Key, now: Timestamp) -> Plan {
        self.observe(key).map_or_else(Plan::nothing, |observed| plan(&observed, now))
    }
}
