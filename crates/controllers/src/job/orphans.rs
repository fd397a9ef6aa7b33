//! Pods that wait to be counted by a job that is gone or finished: nobody will, so they are let go.

use client::{Cache, Caches, OWNER_INDEX, typed};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use machinery::{Key, Object};
use reconcile::{Controller, Input, Plan};

use super::{is_finished, is_tracked, untrack};
use crate::shared::owners;

/// The controller; its keys are pods.
pub struct OrphanPods {
    jobs: Cache,
    pods: Cache,
}

impl OrphanPods {
    pub fn new(caches: &Caches) -> Self {
        Self { jobs: caches.of::<Job>(), pods: caches.of::<Pod>() }
    }
}

/// Whether a job still counts pods.
fn counts(job: &Object) -> bool {
    typed::<Job>(job).is_ok_and(|job| !job.status.as_ref().is_some_and(is_finished))
}

/// Whether the pod waits for a job that will not count it.
fn is_orphaned(jobs: &Cache, pod: &Object) -> bool {
    let meta = pod.meta();
    if !is_tracked(pod) {
        return false;
    }
    match owners::controller_of(meta) {
        // An orphan that a job may still take over.
        None => meta.deletion_timestamp.is_some(),
        Some(controller) if controller.kind != "Job" => false,
        Some(controller) => {
            let job = jobs.get(&Key::new(&*meta.namespace, &*controller.name));
            !job.is_some_and(|job| job.meta().uid == controller.uid && counts(&job))
        }
    }
}

impl Controller for OrphanPods {
    fn name(&self) -> &'static str {
        "job-controller"
    }

    fn inputs(&self) -> Vec<Input> {
        let (of_pod, of_job, pods) = (self.jobs.clone(), self.jobs.clone(), self.pods.clone());
        let own = move |pod: &Object| {
            if is_orphaned(&of_pod, pod) { vec![pod.key()] } else { Vec::new() }
        };
        let of_gone = move |job: &Object| {
            let present = of_job.get(&job.key()).filter(|present| present.meta().uid == job.meta().uid);
            if present.is_some_and(|job| counts(&job)) {
                return Vec::new();
            }
            let pods = pods.indexed_in(OWNER_INDEX, &job.meta().uid, &job.meta().namespace);
            pods.iter().filter(|pod| is_tracked(pod)).map(|pod| pod.key()).collect()
        };
        vec![Input::new(self.pods.clone(), own), Input::new(self.jobs.clone(), of_gone)]
    }

    fn plan(&self, key: &Key, _now: Timestamp) -> Plan {
        let pod = self.pods.get(key).filter(|pod| is_orphaned(&self.jobs, pod));
        Plan { actions: pod.iter().map(|pod| untrack(pod)).collect(), ..Plan::nothing() }
    }
}
