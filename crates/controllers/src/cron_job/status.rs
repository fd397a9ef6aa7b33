//! What the CronJob says of itself: the jobs at work, the last schedule, the last success.

use client::{Patch, target_of};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use machinery::Object;
use reconcile::Action;
use reconcile::plan::named;
use serde_json::{Value, json};

use super::{Observed, history, plan};
use crate::shared::status::{is_new, time};

/// The new status and events about jobs that ended.
pub fn judge(observed: &Observed, scheduled: Option<Timestamp>) -> (Option<Action>, Vec<Action>) {
    let stored = serde_json::to_value(&observed.status).unwrap_or_default();
    let known = stored["active"].as_array().cloned().unwrap_or_default();
    let unfinished = observed
        .jobs
        .iter()
        .filter(|(object, job)| plan::is_scheduled(object) && history::end(job).is_none());
    let active: Vec<Value> = unfinished.map(|(object, _)| reference(object, &known)).collect();
    let mut wanted = json!({"active": active});
    if let Some(scheduled) = scheduled {
        wanted["lastScheduleTime"] = json!(time(scheduled));
    }
    if let Some(succeeded) = last_success(observed) {
        wanted["lastSuccessfulTime"] = json!(time(succeeded));
    }
    let events = known.iter().filter_map(|entry| ended(observed, entry)).collect();
    if !is_new(&wanted, &stored) {
        return (None, events);
    }
    let mut target = named(target_of::<CronJob>(""), &observed.object);
    target.subresource = "status".to_owned();
    let guard =
        json!({"uid": observed.object.meta().uid, "resourceVersion": observed.object.revision().to_string()});
    let body = json!({"metadata": guard, "status": wanted});
    (Some(Action::Patch { target, patch: Patch::Merge(body) }), events)
}

fn reference(job: &Object, known: &[Value]) -> Value {
    let meta = job.meta();
    let same = known.iter().find(|entry| entry["uid"] == *meta.uid);
    same.cloned().unwrap_or_else(|| {
        json!({"apiVersion": "batch/v1", "kind": "Job", "namespace": meta.namespace, "name": meta.name,
            "uid": meta.uid, "resourceVersion": job.revision().to_string()})
    })
}

fn last_success(observed: &Observed) -> Option<Timestamp> {
    let completed = |job: &Job| job.status.as_ref()?.completion_time.as_ref().map(|time| time.0);
    let succeeded = observed.jobs.iter().filter(|(_, job)| history::end(job) == Some("Complete"));
    let last = succeeded.filter_map(|(_, job)| completed(job)).max();
    last.max(observed.status.last_successful_time.as_ref().map(|time| time.0))
}

/// An event about a job that was at work and is not any more.
fn ended(observed: &Observed, entry: &Value) -> Option<Action> {
    let name = entry["name"].as_str().unwrap_or_default();
    match observed.jobs.iter().find(|(object, _)| entry["uid"] == *object.meta().uid) {
        None => {
            let message = format!("Active job went missing: {name}");
            Some(Action::event(observed.reference(), "MissingJob", message))
        }
        Some((_, job)) => {
            let message = format!("Saw completed job: {name}, condition: {}", history::end(job)?);
            Some(Action::event(observed.reference(), "SawCompletedJob", message))
        }
    }
}
