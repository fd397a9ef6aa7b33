//! ReplicaSet and ReplicationController: as many pods as asked for.
//!
//! Both kinds are one judgement; [`Owner`] is what it needs to know of either.

mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use client::{Cache, Caches, Target, target_of, typed};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use machinery::selector::labels;
use machinery::{Key, Object, ObjectMeta, Status};
use reconcile::{Controller, Input, Plan, Reference};
use serde_json::Value;

pub use plan::plan;

use crate::shared::claim::{self, ObservedPod};
use crate::shared::owners;

/// A ReplicaSet or ReplicationController as the judgement sees it.
pub struct Owner {
    pub meta: ObjectMeta,
    pub reference: Reference,
    /// Its own collection.
    pub target: Target,
    pub replicas: i32,
    pub min_ready_seconds: i32,
    pub selector: LabelSelector,
    pub template: Option<PodTemplateSpec>,
    /// The status as stored.
    pub status: Value,
    /// The names differ by kind: `observedGeneration` etc. are common.
    pub api_version: &'static str,
    pub kind: &'static str,
}

/// Which of the two kinds a controller runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    ReplicaSet,
    ReplicationController,
}

/// The controller of one of the two kinds.
pub struct Replication {
    kind: Kind,
    owners: Cache,
    pods: Cache,
}

impl Replication {
    pub fn new(kind: Kind, caches: &Caches) -> Self {
        let owners = match kind {
            Kind::ReplicaSet => caches.of::<ReplicaSet>(),
            Kind::ReplicationController => caches.of::<ReplicationController>(),
        };
        Self { kind, owners, pods: caches.of::<Pod>() }
    }

    fn owner(&self, key: &Key) -> Option<Owner> {
        let object = self.owners.get(key)?;
        let owner = match self.kind {
            Kind::ReplicaSet => replica_set(&object),
            Kind::ReplicationController => replication_controller(&object),
        };
        owner.inspect_err(|status| tracing::warn!(%status, "cannot be read")).ok()
    }

    fn observe(&self, key: &Key) -> Option<(Owner, Vec<ObservedPod>)> {
        let owner = self.owner(key)?;
        let pods = claim::candidate_pods(&self.pods, &key.namespace, &owner.meta.uid, &owner.selector);
        Some((owner, pods))
    }
}

/// Whether a pod is managed by the owner, or is an orphan that it could take.
fn concerns(owner: &Owner, pod: &Object) -> bool {
    match owners::controller_of(pod.meta()) {
        Some(controller) => controller.uid == owner.meta.uid,
        None => labels::matches(&owner.selector, &pod.meta().labels),
    }
}

impl Controller for Replication {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::ReplicaSet => "replicaset-controller",
            Kind::ReplicationController => "replication-controller",
        }
    }

    fn inputs(&self) -> Vec<Input> {
        let (owners, kind) = (self.owners.clone(), self.kind);
        vec![
            Input::own(self.owners.clone()),
            Input::new(self.pods.clone(), move |pod| keys(&owners, kind, pod)),
        ]
    }

    fn plan(&self, key: &Key, now: Timestamp) -> Plan {
        self.observe(key).map_or_else(Plan::nothing, |(owner, pods)| plan(&owner, &pods, None, now))
    }

    fn plan_failure(&self, key: &Key, now: Timestamp, failure: &Status) -> Plan {
        let Some((owner, pods)) = self.observe(key) else { return Plan::nothing() };
        Plan { actions: Vec::new(), ..plan(&owner, &pods, Some(failure), now) }
    }
}

/// The owners that a pod concerns: its controller, or for an orphan every one that selects it.
fn keys(owners: &Cache, kind: Kind, pod: &Object) -> Vec<Key> {
    let meta = pod.meta();
    if let Some(controller) = owners::controller_of(meta) {
        let wanted = match kind {
            Kind::ReplicaSet => "ReplicaSet",
            Kind::ReplicationController => "ReplicationController",
        };
        let ours = controller.kind == wanted;
        return ours.then(|| Key::new(&*meta.namespace, &*controller.name)).into_iter().collect();
    }
    let selects = |owner: &Object| match kind {
        Kind::ReplicaSet => replica_set(owner),
        Kind::ReplicationController => replication_controller(owner),
    };
    let namespace = owners.namespace(&meta.namespace);
    let selecting = namespace.iter().filter(|owner| selects(owner).is_ok_and(|owner| concerns(&owner, pod)));
    selecting.map(|owner| owner.key()).collect()
}

fn replica_set(object: &Object) -> Result<Owner, Status> {
    let view = typed::<ReplicaSet>(object)?;
    let spec = view.spec.clone().unwrap_or_default();
    Ok(Owner {
        meta: object.meta().clone(),
        reference: Reference::new("apps/v1", "ReplicaSet", object),
        target: target_of::<ReplicaSet>(""),
        replicas: spec.replicas.unwrap_or(1),
        min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
        selector: spec.selector,
        template: spec.template,
        status: serde_json::to_value(&view.status).unwrap_or_default(),
        api_version: "apps/v1",
        kind: "ReplicaSet",
    })
}

fn replication_controller(object: &Object) -> Result<Owner, Status> {
    let view = typed::<ReplicationController>(object)?;
    let spec = view.spec.clone().unwrap_or_default();
    let match_labels: Option<BTreeMap<_, _>> = spec.selector;
    Ok(Owner {
        meta: object.meta().clone(),
        reference: Reference::new("v1", "ReplicationController", object),
        target: target_of::<ReplicationController>(""),
        replicas: spec.replicas.unwrap_or(1),
        min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
        selector: LabelSelector { match_labels, match_expressions: None },
        template: spec.template,
        status: serde_json::to_value(&view.status).unwrap_or_default(),
        api_version: "v1",
        kind: "ReplicationController",
    })
}
