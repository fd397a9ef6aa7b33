//! CronJob: a job at every time of a schedule.

mod history;
mod plan;
mod schedule;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::{Cache, Caches, OWNER_INDEX, typed};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use machinery::{Key, Object};
use reconcile::{Controller, Input, Plan, Reference};

pub use plan::plan;
pub use schedule::Schedule;

use crate::shared::owners;

/// A CronJob and its jobs.
pub struct Observed {
    pub object: Arc<Object>,
    pub created: Timestamp,
    pub spec: CronJobSpec,
    pub status: CronJobStatus,
    pub jobs: Vec<(Arc<Object>, Arc<Job>)>,
}

impl Observed {
    pub fn new(object: Arc<Object>, view: &CronJob, jobs: Vec<(Arc<Object>, Arc<Job>)>) -> Option<Self> {
        let created = view.metadata.creation_timestamp.as_ref()?.0;
        let (spec, status) = (view.spec.clone(), view.status.clone().unwrap_or_default());
        Some(Self { object, created, spec, status, jobs })
    }

    fn reference(&self) -> Reference {
        Reference::new("batch/v1", "CronJob", &self.object)
    }

    fn last_schedule(&self) -> Option<Timestamp> {
        self.status.last_schedule_time.as_ref().map(|time| time.0)
    }
}

/// The controller.
pub struct CronJobs {
    cron_jobs: Cache,
    jobs: Cache,
}

impl CronJobs {
    pub fn new(caches: &Caches) -> Self {
        Self { cron_jobs: caches.of::<CronJob>(), jobs: caches.of::<Job>() }
    }

    fn observe(&self, key: &Key) -> Option<Observed> {
        let object = self.cron_jobs.get(key)?;
        let view =
            typed::<CronJob>(&object).inspect_err(|status| tracing::warn!(%status, "cannot be read")).ok()?;
        let owned = self.jobs.indexed_in(OWNER_INDEX, &object.meta().uid, &key.namespace);
        let ours = owned.into_iter().filter(|job| owners::is_controlled_by(job, &object.meta().uid));
        let jobs = ours.filter_map(|job| typed::<Job>(&job).ok().map(|view| (job, view))).collect();
        Observed::new(object, &view, jobs)
    }
}

impl Controller for CronJobs {
    fn name(&self) -> &'static str {
        "cronjob-controller"
    }

    fn inputs(&self) -> Vec<Input> {
        let of_job = |job: &Object| {
            let controller =
                owners::controller_of(job.meta()).filter(|controller| controller.kind == "CronJob");
            controller.map(|owner| Key::new(&*job.meta().namespace, &*owner.name)).into_iter().collect()
        };
        vec![Input::own(self.cron_jobs.clone()), Input::new(self.jobs.clone(), of_job)]
    }

    fn plan(&self, key: &Key, now: Timestamp) -> Plan {
        self.observe(key).map_or_else(Plan::nothing, |observed| plan(&observed, now))
    }
}
