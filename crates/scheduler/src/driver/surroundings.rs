//! What the rest of the cluster says about a pod: whom it is spread from, which budgets protect its victims.

use std::collections::BTreeMap;

use client::{Cache, Caches, typed};
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{ReplicationController, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as Typed;
use machinery::selector::{LabelSelector, Operator, Requirement};
use machinery::{Key, Object};
use serde_json::{Value, json};

use super::StorageCaches;
use crate::preemption::Budget;
use crate::{Defaults, PodInfo};

/// How many owners' selectors are remembered.
const REMEMBERED: usize = 256;

type Labels = BTreeMap<String, String>;

pub(super) struct Surroundings {
    pub storage: StorageCaches,
    services: Cache,
    replica_sets: Cache,
    replication_controllers: Cache,
    stateful_sets: Cache,
    budgets: Cache,
    /// By the owner's uid. The pods of one owner mostly have the same labels.
    remembered: BTreeMap<String, Remembered>,
}

struct Remembered {
    /// The revisions of the Services and of the owner.
    seen: (Option<u64>, u64),
    labels: Labels,
    spread: Option<LabelSelector>,
}

impl Surroundings {
    pub fn new(caches: &Caches) -> Self {
        Self {
            storage: StorageCaches::new(caches),
            services: caches.of::<Service>(),
            replica_sets: caches.of::<ReplicaSet>(),
            replication_controllers: caches.of::<ReplicationController>(),
            stateful_sets: caches.of::<StatefulSet>(),
            budgets: caches.of::<PodDisruptionBudget>(),
            remembered: BTreeMap::new(),
        }
    }

    pub async fn synced(&self) {
        let caches = [
            &self.services,
            &self.replica_sets,
            &self.replication_controllers,
            &self.stateful_sets,
            &self.budgets,
            &self.storage.claims,
            &self.storage.volumes,
            &self.storage.classes,
        ];
        for cache in caches {
            cache.synced().await;
        }
    }

    /// The selectors of the pod's Services and of its controller.
    pub fn defaults(&mut self, pod: &PodInfo) -> Defaults {
        if !pod.wish().spreads_by_default {
            return Defaults::default();
        }
        let owners = &pod.object.meta().owner_references;
        let Some(owner) = owners.iter().find(|owner| owner.controller == Some(true)) else {
            return Defaults { spread: some(self.of_services(pod)) };
        };
        let object = self.owner(&owner.kind, &Key::new(pod.namespace(), owner.name.as_str()));
        let seen = (self.services.revision(), object.as_ref().map_or(0, |object| object.revision()));
        if let Some(known) = self.remembered.get(&owner.uid)
            && known.seen == seen
            && known.labels == *pod.labels()
        {
            return Defaults { spread: known.spread.clone() };
        }
        let mut selector = self.of_services(pod);
        if let Some(object) = object.filter(|object| object.meta().uid == owner.uid) {
            let of_owner = selector_of(&owner.kind, &object);
            of_owner.requirements().iter().for_each(|requirement| selector.require(requirement.clone()));
        }
        if self.remembered.len() >= REMEMBERED {
            self.remembered.clear();
        }
        let (labels, spread) = (pod.labels().clone(), some(selector));
        self.remembered.insert(owner.uid.clone(), Remembered { seen, labels, spread: spread.clone() });
        Defaults { spread }
    }

    fn owner(&self, kind: &str, key: &Key) -> Option<std::sync::Arc<Object>> {
        match kind {
            "ReplicaSet" => self.replica_sets.get(key),
            "ReplicationController" => self.replication_controllers.get(key),
            "StatefulSet" => self.stateful_sets.get(key),
            _ => None,
        }
    }

    fn of_services(&self, pod: &PodInfo) -> LabelSelector {
        let mut all = Labels::new();
        for service in self.services.namespace(pod.namespace()) {
            let Ok(service) = typed::<Service>(&service) else { continue };
            let Some(selector) = service.spec.as_ref().and_then(|spec| spec.selector.as_ref()) else {
                continue;
            };
            let selects = selector.iter().all(|(key, value)| pod.labels().get(key) == Some(value));
            if selects && !selector.is_empty() {
                all.extend(selector.clone());
            }
        }
        equal_to(all)
    }

    /// The budgets that may protect victims.
    pub fn budgets(&self) -> Vec<Budget> {
        self.budgets.all().iter().filter_map(|object| budget(object)).collect()
    }
}

fn some(selector: LabelSelector) -> Option<LabelSelector> {
    (!selector.is_empty()).then_some(selector)
}

fn equal_to(labels: Labels) -> LabelSelector {
    let mut selector = LabelSelector::default();
    for (key, value) in labels {
        selector.require(Requirement { key, operator: Operator::Equals, values: vec![value] });
    }
    selector
}

fn selector_of(kind: &str, object: &Object) -> LabelSelector {
    let read = |selector: &Typed| LabelSelector::from_value(&json!(selector)).unwrap_or_default();
    let found = match kind {
        "ReplicaSet" => typed::<ReplicaSet>(object)
            .ok()
            .and_then(|set| set.spec.as_ref().map(|spec| read(&spec.selector))),
        "StatefulSet" => typed::<StatefulSet>(object)
            .ok()
            .and_then(|set| set.spec.as_ref().map(|spec| read(&spec.selector))),
        _ => typed::<ReplicationController>(object)
            .ok()
            .and_then(|controller| controller.spec.as_ref()?.selector.clone())
            .map(equal_to),
    };
    found.unwrap_or_default()
}

fn budget(object: &Object) -> Option<Budget> {
    let typed = typed::<PodDisruptionBudget>(object).ok()?;
    let selector: Value = json!(typed.spec.as_ref()?.selector.as_ref()?);
    let status = typed.status.as_ref();
    let disrupted = status.and_then(|status| status.disrupted_pods.as_ref());
    Some(Budget {
        namespace: object.meta().namespace.clone(),
        selector: LabelSelector::from_value(&selector).ok()?,
        allowed: status.map_or(0, |status| status.disruptions_allowed.map_or(0, i64::from)),
        disrupted: disrupted.map(|pods| pods.keys().cloned().collect()).unwrap_or_default(),
    })
}
