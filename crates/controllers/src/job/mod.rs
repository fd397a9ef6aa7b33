//! Job: pods that run to their end, so and so many times.
//!
//! Pods carry a finalizer until their end is counted in the job's status, so that none is counted twice or missed
//! (KEP-2307): a finished pod's uid is written into `uncountedTerminatedPods`, then the finalizer goes, then the
//! uid becomes a number. Each of the three is judged from what is observed.

mod backoff;
mod bodies;
mod failure_policy;
mod indexes;
mod manage;
mod orphans;
mod plan;
mod status;
mod success_policy;
mod tally;
#[cfg(test)]
mod tests;
mod verdict;

use std::sync::Arc;

use client::{Cache, Caches, Patch, target_of, typed};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use machinery::selector::labels;
use machinery::{Key, Object};
use reconcile::plan::named;
use reconcile::{Action, Controller, Input, Plan, Reference};
use serde_json::{Value, json};

pub use indexes::Indexes;
pub use orphans::OrphanPods;
pub use plan::plan;

use crate::shared::claim::{self, ObservedPod};
use crate::shared::{owners, pods};

/// The finalizer of pods that are not counted yet.
pub const TRACKING: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const INDEX_IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
/// Who manages jobs that do not say it.
const MANAGER: &str = "kubernetes.io/job-controller";

/// A job and its pods.
pub struct Observed {
    pub object: Arc<Object>,
    pub spec: JobSpec,
    pub status: JobStatus,
    /// Pods that it manages or could adopt.
    pub pods: Vec<ObservedPod>,
}

impl Observed {
    pub fn new(object: Arc<Object>, view: &Job, pods: Vec<ObservedPod>) -> Option<Self> {
        Some(Self { spec: view.spec.clone()?, status: view.status.clone().unwrap_or_default(), object, pods })
    }

    fn reference(&self) -> Reference {
        Reference::new("batch/v1", "Job", &self.object)
    }

    fn owner_reference(&self) -> Value {
        owners::controller_reference("batch/v1", "Job", self.object.meta())
    }

    fn is_deleting(&self) -> bool {
        self.object.meta().deletion_timestamp.is_some()
    }

    fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    fn completions(&self) -> i32 {
        self.spec.completions.unwrap_or(0)
    }

    /// The retries of each index, where indexes fail one by one.
    fn retries_per_index(&self) -> Option<i32> {
        self.spec.backoff_limit_per_index.filter(|_| self.is_indexed())
    }

    /// Pods are replaced only when they have come to their end, not already when they are on their way out.
    fn replaces_only_failed(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed")
    }

    /// Whether a pod counts as failed.
    fn has_failed(&self, pod: &Pod) -> bool {
        match pods::phase(pod) {
            "Failed" => true,
            "Succeeded" => false,
            _ => pods::is_deleting(pod) && !self.replaces_only_failed(),
        }
    }
}

/// Whether the job has come to its end.
pub fn is_finished(status: &JobStatus) -> bool {
    finished_condition(status).is_some()
}

/// `Complete` or `Failed`.
pub fn finished_condition(status: &JobStatus) -> Option<&k8s_openapi::api::batch::v1::JobCondition> {
    let ends = |kind: &str| matches!(kind, "Complete" | "Failed");
    status.conditions.iter().flatten().find(|condition| ends(&condition.type_) && condition.status == "True")
}

/// Whether the pod is not counted yet.
fn is_tracked(pod: &Object) -> bool {
    pod.meta().finalizers.iter().any(|finalizer| finalizer == TRACKING)
}

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// Which of the completions a pod works on.
fn index_of(pod: &Pod) -> Option<i32> {
    annotation(pod, INDEX)?.parse().ok()
}

/// Lets a counted pod go.
fn untrack(pod: &Object) -> Action {
    let body =
        json!({"metadata": {"uid": pod.meta().uid, "$deleteFromPrimitiveList/finalizers": [TRACKING]}});
    Action::Patch { target: named(target_of::<Pod>(""), pod), patch: Patch::StrategicMerge(body) }
}

/// The controller.
pub struct Jobs {
    jobs: Cache,
    pods: Cache,
}

impl Jobs {
    pub fn new(caches: &Caches) -> Self {
        Self { jobs: caches.of::<Job>(), pods: caches.of::<Pod>() }
    }

    fn observe(&self, key: &Key) -> Option<Observed> {
        let object = self.jobs.get(key)?;
        let view =
            typed::<Job>(&object).inspect_err(|status| tracing::warn!(%status, "cannot be read")).ok()?;
        let selector = view.spec.as_ref()?.selector.clone().unwrap_or_default();
        let pods = claim::candidate_pods(&self.pods, &key.namespace, &object.meta().uid, &selector);
        Observed::new(object, &view, pods)
    }
}

impl Controller for Jobs {
    fn name(&self) -> &'static str {
        "job-controller"
    }

    fn inputs(&self) -> Vec<Input> {
        let jobs = self.jobs.clone();
        vec![Input::own(self.jobs.clone()), Input::new(self.pods.clone(), move |pod| pod_keys(&jobs, pod))]
    }

    fn plan(&self, key: &Key, now: Timestamp) -> Plan {
        self.observe(key).map_or_else(Plan::nothing, |observed| plan(&observed, now))
    }
}

fn pod_keys(jobs: &Cache, pod: &Object) -> Vec<Key> {
    let meta = pod.meta();
    if let Some(controller) = owners::controller_of(meta) {
        let ours = controller.kind == "Job";
        return ours.then(|| Key::new(&*meta.namespace, &*controller.name)).into_iter().collect();
    }
    let selects = |job: &Object| {
        typed::<Job>(job).is_ok_and(|job| {
            let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            selector.is_some_and(|selector| labels::matches(selector, &meta.labels))
        })
    };
    jobs.namespace(&meta.namespace).iter().filter(|job| selects(job)).map(|job| job.key()).collect()
}
