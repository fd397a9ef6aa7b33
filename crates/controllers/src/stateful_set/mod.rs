//! StatefulSet: pods with names, an order and storage of their own.

mod bodies;
mod claims;
mod history;
mod plan;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::{Cache, Caches, typed};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use machinery::selector::labels;
use machinery::{Key, Object, Status};
use reconcile::{Controller, Input, Plan, Reference};
use serde_json::Value;

pub use plan::{plan, plan_failure};

use crate::shared::claim::{self, ObservedPod};
use crate::shared::revisions::{self, Revision};
use crate::shared::{owners, pods};

/// The label by which a pod names its revision.
const REVISION_LABEL: &str = "controller-revision-hash";

/// A StatefulSet and what belongs to it.
pub struct Observed {
    pub object: Arc<Object>,
    pub view: Arc<StatefulSet>,
    pub spec: StatefulSetSpec,
    /// Pods that it manages or could adopt.
    pub pods: Vec<ObservedPod>,
    pub revisions: Vec<Revision>,
    /// The claims of the namespace, if the set has claim templates.
    pub claims: Vec<Arc<Object>>,
}

impl Observed {
    fn name(&self) -> &str {
        &self.object.meta().name
    }

    fn reference(&self) -> Reference {
        Reference::new("apps/v1", "StatefulSet", &self.object)
    }

    fn owner_reference(&self) -> Value {
        owners::controller_reference("apps/v1", "StatefulSet", self.object.meta())
    }

    fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    /// The ordinal of the first replica.
    fn start(&self) -> i32 {
        self.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0)
    }

    fn is_wanted(&self, ordinal: i32) -> bool {
        ordinal >= self.start() && i64::from(ordinal) < i64::from(self.start()) + i64::from(self.replicas())
    }

    fn is_ordered(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    fn is_rolling(&self) -> bool {
        let strategy = self.spec.update_strategy.as_ref();
        strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete")
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.min_ready_seconds.unwrap_or(0)
    }

    /// The first ordinal that gets a new template.
    fn first_updated(&self) -> i32 {
        let rolling =
            self.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        self.start().saturating_add(rolling.and_then(|rolling| rolling.partition).unwrap_or(0))
    }

    /// The ordinal of a pod's or claim's name below `prefix`.
    fn ordinal(&self, name: &str) -> Option<i32> {
        let digits = name.strip_prefix(self.name())?.strip_prefix('-')?;
        let plain =
            digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
        plain.then(|| digits.parse().ok()).flatten()
    }
}

/// Running, ready and not on its way out.
fn is_healthy(pod: &Pod) -> bool {
    pods::phase(pod) == "Running" && pods::is_ready(pod) && !pods::is_deleting(pod)
}

fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    is_healthy(pod) && pods::until_available(pod, min_ready_seconds, now).is_some_and(|wait| wait.is_zero())
}

/// The controller.
pub struct StatefulSets {
    sets: Cache,
    pods: Cache,
    revisions: Cache,
    claims: Cache,
}

impl StatefulSets {
    pub fn new(caches: &Caches) -> Self {
        Self {
            sets: caches.of::<StatefulSet>(),
            pods: caches.of::<Pod>(),
            revisions: caches.of::<ControllerRevision>(),
            claims: caches.of::<PersistentVolumeClaim>(),
        }
    }

    fn observe(&self, key: &Key) -> Option<Observed> {
        let object = self.sets.get(key)?;
        let view = typed::<StatefulSet>(&object)
            .inspect_err(|status| tracing::warn!(%status, "cannot be read"))
            .ok()?;
        let spec = view.spec.clone()?;
        let pods = claim::candidate_pods(&self.pods, &key.namespace, &object.meta().uid, &spec.selector);
        let revisions = revisions::of(&self.revisions, object.meta(), &spec.selector);
        let has_claims = spec.volume_claim_templates.as_ref().is_some_and(|templates| !templates.is_empty());
        let claims = if has_claims { self.claims.namespace(&key.namespace) } else { Vec::new() };
        Some(Observed { object, view, spec, pods, revisions, claims })
    }
}

impl Controller for StatefulSets {
    fn name(&self) -> &'static str {
        "statefulset-controller"
    }

    fn inputs(&self) -> Vec<Input> {
        let (sets, of_claim) = (self.sets.clone(), self.sets.clone());
        vec![
            Input::own(self.sets.clone()),
            Input::new(self.pods.clone(), move |pod| pod_keys(&sets, pod)),
            Input::new(self.revisions.clone(), |revision| owner_keys(revision).unwrap_or_default()),
            Input::new(self.claims.clone(), move |claim| claim_keys(&of_claim, claim)),
        ]
    }

    fn plan(&self, key: &Key, now: Timestamp) -> Plan {
        self.observe(key).map_or_else(Plan::nothing, |observed| plan(&observed, now))
    }

    fn plan_failure(&self, key: &Key, now: Timestamp, failure: &Status) -> Plan {
        self.observe(key).map_or_else(Plan::nothing, |observed| plan_failure(&observed, failure, now))
    }
}

/// The key of the managing StatefulSet; `None` when nothing manages the object.
fn owner_keys(object: &Object) -> Option<Vec<Key>> {
    let controller = owners::controller_of(object.meta())?;
    let ours = controller.kind == "StatefulSet";
    Some(ours.then(|| Key::new(&*object.meta().namespace, &*controller.name)).into_iter().collect())
}

fn pod_keys(sets: &Cache, pod: &Object) -> Vec<Key> {
    owner_keys(pod).unwrap_or_else(|| {
        let selects = |set: &Object| {
            typed::<StatefulSet>(set).is_ok_and(|set| {
                set.spec.as_ref().is_some_and(|spec| labels::matches(&spec.selector, &pod.meta().labels))
            })
        };
        let namespace = sets.namespace(&pod.meta().namespace);
        namespace.iter().filter(|set| selects(set)).map(|set| set.key()).collect()
    })
}

/// The sets whose claims have names like this one: `TEMPLATE-SET-ORDINAL`.
fn claim_keys(sets: &Cache, claim: &Object) -> Vec<Key> {
    let Some((stem, _)) = claim.meta().name.rsplit_once('-') else { return Vec::new() };
    let namespace = sets.namespace(&claim.meta().namespace);
    let concerned = |set: &&Arc<Object>| stem.ends_with(&format!("-{}", set.meta().name));
    namespace.iter().filter(concerned).map(|set| set.key()).collect()
}
