//! Finished jobs beyond the history limits go, the oldest first.

use client::{Propagation, target_of};
use k8s_openapi::api::batch::v1::Job;
use reconcile::Action;

use super::Observed;
use crate::job::finished_condition;

/// The job's end, `Complete` or `Failed`.
pub fn end(job: &Job) -> Option<&str> {
    finished_condition(job.status.as_ref()?).map(|condition| condition.type_.as_str())
}

/// Removes what is too much.
pub fn clean_up(observed: &Observed) -> Vec<Action> {
    let spec = &observed.spec;
    let limits = [
        ("Complete", spec.successful_jobs_history_limit.unwrap_or(3)),
        ("Failed", spec.failed_jobs_history_limit.unwrap_or(1)),
    ];
    limits.into_iter().flat_map(|(kind, limit)| surplus(observed, kind, limit)).collect()
}

fn surplus(observed: &Observed, kind: &str, limit: i32) -> Vec<Action> {
    let present = |(object, job): &&(std::sync::Arc<machinery::Object>, std::sync::Arc<Job>)| {
        end(job) == Some(kind) && object.meta().deletion_timestamp.is_none()
    };
    let mut finished: Vec<_> = observed.jobs.iter().filter(present).collect();
    let started = |job: &Job| job.status.as_ref()?.start_time.as_ref().map(|time| time.0);
    finished.sort_by_key(|(object, job)| (started(job), object.meta().name.clone()));
    let count = finished.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    finished[..count].iter().flat_map(|(object, _)| remove(observed, object)).collect()
}

/// Removes a job and says so.
pub fn remove(observed: &Observed, job: &machinery::Object) -> [Action; 2] {
    let message = format!("Deleted job {}", job.meta().name);
    [
        Action::delete(target_of::<Job>(""), job, Some(Propagation::Background)),
        Action::event(observed.reference(), "SuccessfulDelete", message),
    ]
}
