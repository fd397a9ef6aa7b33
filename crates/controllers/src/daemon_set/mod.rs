//! DaemonSet: one pod on every node that fits.

mod fit;
mod history;
mod plan;
mod rolling;
mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use client::{Cache, Caches, typed};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec};
use k8s_openapi::api::core::v1::{Node, Pod};
use machinery::selector::labels;
use machinery::{Key, Object, Status};
use reconcile::{Controller, Input, Plan, Reference};
use serde_json::Value;

pub use plan::{plan, plan_failure};

use crate::shared::claim::{self, ObservedPod};
use crate::shared::revisions::{self, Revision};
use crate::shared::{owners, pods};

/// The label by which pods and revisions name a template.
const HASH_LABEL: &str = "controller-revision-hash";
/// The older label, a count of template changes.
const GENERATION_LABEL: &str = "pod-template-generation";
const GENERATION_ANNOTATION: &str = "deprecated.daemonset.template.generation";

/// A DaemonSet and what belongs to it.
pub struct Observed {
    pub object: Arc<Object>,
    pub view: Arc<DaemonSet>,
    pub spec: DaemonSetSpec,
    /// Pods that it manages or could adopt.
    pub pods: Vec<ObservedPod>,
    pub revisions: Vec<Revision>,
    pub nodes: Vec<Arc<Node>>,
}

impl Observed {
    fn reference(&self) -> Reference {
        Reference::new("apps/v1", "DaemonSet", &self.object)
    }

    fn owner_reference(&self) -> Value {
        owners::controller_reference("apps/v1", "DaemonSet", self.object.meta())
    }

    fn template_generation(&self) -> Option<&String> {
        self.view.metadata.annotations.as_ref()?.get(GENERATION_ANNOTATION)
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.min_ready_seconds.unwrap_or(0)
    }

    fn is_available(&self, pod: &Pod, now: Timestamp) -> bool {
        pods::until_available(pod, self.min_ready_seconds(), now).is_some_and(|wait| wait.is_zero())
    }

    /// Whether a pod is of the present template. `hashes` are those of the revisions with that template.
    fn is_updated(&self, pod: &Object, hashes: &BTreeSet<&str>) -> bool {
        let labels = &pod.meta().labels;
        let generation = self.template_generation().filter(|generation| !generation.is_empty());
        labels.get(HASH_LABEL).is_some_and(|hash| hashes.contains(hash.as_str()))
            || generation.is_some_and(|generation| labels.get(GENERATION_LABEL) == Some(generation))
    }

    /// The set's pods by node, oldest first: those on a node and those that are bound for one.
    fn by_node(&self, ours: &[ObservedPod]) -> BTreeMap<String, Vec<ObservedPod>> {
        let mut nodes: BTreeMap<String, Vec<ObservedPod>> = BTreeMap::new();
        for (object, pod) in ours {
            if let Some(node) = target_node(pod) {
                nodes.entry(node).or_default().push((object.clone(), pod.clone()));
            }
        }
        for pods in nodes.values_mut() {
            pods.sort_by_key(|(_, a)| age(a));
        }
        nodes
    }
}

/// Scheduled pods come first, then the oldest.
fn age(pod: &Pod) -> (bool, Option<Timestamp>, Option<String>) {
    let unscheduled = pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_none());
    (unscheduled, pod.metadata.creation_timestamp.as_ref().map(|time| time.0), pod.metadata.name.clone())
}

/// The node that a pod is on, or that its affinity names.
fn target_node(pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    if let Some(node) = spec.node_name.as_ref().filter(|node| !node.is_empty()) {
        return Some(node.clone());
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let by_name = fields.into_iter().find(|field| field.key == "metadata.name" && field.operator == "In")?;
    by_name.values.as_ref()?.first().cloned()
}

/// The controller.
pub struct DaemonSets {
    sets: Cache,
    pods: Cache,
    revisions: Cache,
    nodes: Cache,
}

impl DaemonSets {
    pub fn new(caches: &Caches) -> Self {
        Self {
            sets: caches.of::<DaemonSet>(),
            pods: caches.of::<Pod>(),
            revisions: caches.of::<ControllerRevision>(),
            nodes: caches.of::<Node>(),
        }
    }

    fn observe(&self, key: &Key) -> Option<Observed> {
        let object = self.sets.get(key)?;
        let view = typed::<DaemonSet>(&object)
            .inspect_err(|status| tracing::warn!(%status, "cannot be read"))
            .ok()?;
        let spec = view.spec.clone()?;
        let pods = claim::candidate_pods(&self.pods, &key.namespace, &object.meta().uid, &spec.selector);
        let revisions = revisions::of(&self.revisions, object.meta(), &spec.selector);
        let nodes = self.nodes.all().iter().filter_map(|node| typed::<Node>(node).ok()).collect();
        Some(Observed { object, view, spec, pods, revisions, nodes })
    }
}

impl Controller for DaemonSets {
    fn name(&self) -> &'static str {
        "daemonset-controller"
    }

    fn inputs(&self) -> Vec<Input> {
        let (sets, all) = (self.sets.clone(), self.sets.clone());
        vec![
            Input::own(self.sets.clone()),
            Input::new(self.pods.clone(), move |pod| pod_keys(&sets, pod)),
            Input::new(self.nodes.clone(), move |_| all.all().iter().map(|set| set.key()).collect()),
            // Revisions that others change are noticed with the next change of the set, as upstream.
            Input::new(self.revisions.clone(), |_| Vec::new()),
        ]
    }

    fn plan(&self, key: &Key, now: Timestamp) -> Plan {
        self.observe(key).map_or_else(Plan::nothing, |observed| plan(&observed, now))
    }

    fn plan_failure(&self, key: &Key, now: Timestamp, failure: &Status) -> Plan {
        self.observe(key).map_or_else(Plan::nothing, |observed| plan_failure(&observed, failure, now))
    }
}

fn pod_keys(sets: &Cache, pod: &Object) -> Vec<Key> {
    let meta = pod.meta();
    if let Some(controller) = owners::controller_of(meta) {
        let ours = controller.kind == "DaemonSet";
        return ours.then(|| Key::new(&*meta.namespace, &*controller.name)).into_iter().collect();
    }
    let selects = |set: &Object| {
        typed::<DaemonSet>(set).is_ok_and(|set| {
            set.spec.as_ref().is_some_and(|spec| labels::matches(&spec.selector, &meta.labels))
        })
    };
    let namespace = sets.namespace(&meta.namespace);
    namespace.iter().filter(|set| selects(set)).map(|set| set.key()).collect()
}
