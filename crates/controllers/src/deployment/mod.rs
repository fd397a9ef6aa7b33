//! Deployment: replica sets for the present and past templates, and the way from one to the next.

mod plan;
mod revision;
mod rolling;
mod scaling;
mod status;

use std::sync::Arc;

use client::{Cache, Caches, OWNER_INDEX, typed};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use machinery::selector::labels;
use machinery::{Key, Object, Status};
use reconcile::{Controller, Input, Plan, Reference};

pub use plan::{plan, plan_failure};

use crate::shared::{intstr, owners, pods};

/// A Deployment and what belongs to it.
pub struct Observed {
    pub object: Arc<Object>,
    pub view: Arc<Deployment>,
    /// Managed by it, or orphans that it selects.
    pub sets: Vec<Set>,
}

/// A replica set of the deployment.
#[derive(Clone)]
pub struct Set {
    pub object: Arc<Object>,
    pub view: Arc<ReplicaSet>,
    /// How many of its pods have not finished.
    pub unfinished_pods: usize,
}

impl Set {
    pub fn name(&self) -> &str {
        &self.object.meta().name
    }

    /// What it is asked to run.
    pub fn replicas(&self) -> i32 {
        self.view.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0)
    }

    /// How many of its pods are available.
    pub fn available(&self) -> i32 {
        self.view.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
    }

    fn annotation(&self, name: &str) -> Option<&str> {
        self.view.metadata.annotations.as_ref()?.get(name).map(String::as_str)
    }
}

impl Observed {
    fn replicas(&self) -> i32 {
        self.view.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    fn is_paused(&self) -> bool {
        self.view.spec.as_ref().and_then(|spec| spec.paused).unwrap_or(false)
    }

    fn is_recreate(&self) -> bool {
        let strategy = self.view.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
        strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
    }

    /// Surge and unavailability in pods; never both zero (`ResolveFenceposts` upstream).
    fn fenceposts(&self) -> (i32, i32) {
        if self.is_recreate() {
            return (0, self.replicas());
        }
        let strategy = self.view.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let surge = resolve(rolling.and_then(|rolling| rolling.max_surge.as_ref()), self.replicas(), true);
        let unavailable =
            resolve(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), self.replicas(), false);
        if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable.min(self.replicas())) }
    }

    fn max_surge(&self) -> i32 {
        self.fenceposts().0
    }

    fn reference(&self) -> Reference {
        Reference::new("apps/v1", "Deployment", &self.object)
    }
}

/// A number or a percentage of `total`; 25 % when absent.
fn resolve(value: Option<&IntOrString>, total: i32, round_up: bool) -> i32 {
    let quarter = IntOrString::String("25%".to_owned());
    intstr::resolve(value.unwrap_or(&quarter), total, round_up)
}

/// The controller.
pub struct Deployments {
    deployments: Cache,
    sets: Cache,
    pods: Cache,
}

impl Deployments {
    pub fn new(caches: &Caches) -> Self {
        Self {
            deployments: caches.of::<Deployment>(),
            sets: caches.of::<ReplicaSet>(),
            pods: caches.of::<Pod>(),
        }
    }

    fn observe(&self, key: &Key) -> Option<Observed> {
        let object = self.deployments.get(key)?;
        let view = typed::<Deployment>(&object)
            .inspect_err(|status| tracing::warn!(%status, "cannot be read"))
            .ok()?;
        let selector = &view.spec.as_ref()?.selector;
        let concerns = |set: &Object| match owners::controller_of(set.meta()) {
            Some(controller) => controller.uid == object.meta().uid,
            None => labels::matches(selector, &set.meta().labels),
        };
        let sets = self.sets.namespace(&key.namespace).into_iter().filter(|set| concerns(set));
        let sets = sets.filter_map(|set| self.set(set)).collect();
        Some(Observed { object, view, sets })
    }

    fn set(&self, object: Arc<Object>) -> Option<Set> {
        let view = typed::<ReplicaSet>(&object).ok()?;
        let owned = self.pods.indexed(OWNER_INDEX, &object.meta().uid);
        let unfinished = |pod: &Arc<Object>| typed::<Pod>(pod).is_ok_and(|pod| !pods::is_finished(&pod));
        let unfinished_pods = owned.iter().filter(|pod| unfinished(pod)).count();
        Some(Set { object, view, unfinished_pods })
    }
}

impl Controller for Deployments {
    fn name(&self) -> &'static str {
        "deployment-controller"
    }

    fn inputs(&self) -> Vec<Input> {
        let (deployments, sets) = (self.deployments.clone(), self.sets.clone());
        vec![
            Input::own(self.deployments.clone()),
            Input::new(self.sets.clone(), move |set| set_keys(&deployments, set)),
            Input::new(self.pods.clone(), move |pod| pod_keys(&sets, pod)),
        ]
    }

    fn plan(&self, key: &Key, now: Timestamp) -> Plan {
        self.observe(key).map_or_else(Plan::nothing, |observed| plan(&observed, now))
    }

    fn plan_failure(&self, key: &Key, now: Timestamp, failure: &Status) -> Plan {
        self.observe(key).map_or_else(Plan::nothing, |observed| plan_failure(&observed, failure, now))
    }
}

fn set_keys(deployments: &Cache, set: &Object) -> Vec<Key> {
    let meta = set.meta();
    if let Some(controller) = owners::controller_of(meta) {
        let ours = controller.kind == "Deployment";
        return ours.then(|| Key::new(&*meta.namespace, &*controller.name)).into_iter().collect();
    }
    let selects = |deployment: &Object| {
        typed::<Deployment>(deployment).is_ok_and(|deployment| {
            deployment.spec.as_ref().is_some_and(|spec| labels::matches(&spec.selector, &meta.labels))
        })
    };
    deployments
        .namespace(&meta.namespace)
        .iter()
        .filter(|object| selects(object))
        .map(|object| object.key())
        .collect()
}

/// A pod matters to a deployment only by its end: `Recreate` waits for the last old pod.
fn pod_keys(sets: &Cache, pod: &Object) -> Vec<Key> {
    let meta = pod.meta();
    let Some(controller) = owners::controller_of(meta).filter(|controller| controller.kind == "ReplicaSet")
    else {
        return Vec::new();
    };
    let set = sets.get(&Key::new(&*meta.namespace, &*controller.name));
    let owner = set.as_deref().and_then(|set| owners::controller_of(set.meta()));
    owner.map(|owner| Key::new(&*meta.namespace, &*owner.name)).into_iter().collect()
}

#[cfg(test)]
mod tests;
