//! The judgement: whether a job is due, and what its being due does to those at work.

use std::time::Duration;

use client::target_of;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use machinery::Object;
use reconcile::{Action, Plan};
use serde_json::{Value, json};

use super::{Observed, Schedule, history, status};
use crate::shared::owners;

/// The annotation that tells a job's scheduled time, in the schedule's time zone.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// The annotation of jobs that people started from a CronJob.
const MANUAL: &str = "cronjob.kubernetes.io/instantiate";
/// More missed starts than this are worth a warning.
const MISSED_MAX: usize = 100;
/// Starting a little late is better than a moment early, when nothing would be due.
const SLACK: Duration = Duration::from_millis(100);

/// Whether the schedule started the job.
pub fn is_scheduled(job: &Object) -> bool {
    job.value().pointer("/metadata/annotations").and_then(|all| all.get(MANUAL)).is_none()
}

/// What the time asks for.
#[derive(Default)]
struct Due {
    actions: Vec<Action>,
    /// The time whose job is there now.
    scheduled: Option<Timestamp>,
    next: Option<Duration>,
}

/// What to do for a CronJob.
pub fn plan(observed: &Observed, now: Timestamp) -> Plan {
    let deleting = observed.object.meta().deletion_timestamp.is_some();
    let idle = deleting || observed.spec.suspend == Some(true);
    let due = if idle { Due::default() } else { due(observed, now) };
    let (status, events) = status::judge(observed, due.scheduled);
    let mut actions = due.actions;
    // The same events would come again and again as long as the status cannot be written.
    actions.extend(events.into_iter().filter(|_| status.is_some()));
    if !deleting {
        actions.extend(history::clean_up(observed));
    }
    Plan { actions, status, next: due.next }
}

fn zone(observed: &Observed) -> Result<TimeZone, Box<Action>> {
    let Some(name) = observed.spec.time_zone.as_deref() else { return Ok(TimeZone::UTC) };
    TimeZone::get(name).map_err(|error| {
        let message = format!("invalid timeZone: {name:?}: {error}");
        Box::new(Action::warning(observed.reference(), "UnknownTimeZone", message))
    })
}

fn due(observed: &Observed, now: Timestamp) -> Due {
    let zone = match zone(observed) {
        Ok(zone) => zone,
        Err(event) => return Due { actions: vec![*event], ..Due::default() },
    };
    let Some(schedule) = Schedule::parse(&observed.spec.schedule) else {
        let message = format!("unparseable schedule: {:?}", observed.spec.schedule);
        let event = Action::warning(observed.reference(), "UnparseableSchedule", message);
        return Due { actions: vec![event], ..Due::default() };
    };
    let earliest = earliest(observed, now);
    let mut due = Due::default();
    if let Some(time) = schedule.last(earliest, now, &zone) {
        if schedule.times(earliest, now, &zone).nth(MISSED_MAX).is_some() {
            due.actions.push(too_many_missed(observed));
        }
        start(observed, time, &zone, &mut due);
    }
    let next = schedule.next(now, &zone);
    due.next = next.map(|next| next.duration_since(now).unsigned_abs() + SLACK);
    due
}

/// Since when a start may have been missed.
fn earliest(observed: &Observed, now: Timestamp) -> Timestamp {
    let since = observed.last_schedule().unwrap_or(observed.created);
    let Some(deadline) = observed.spec.starting_deadline_seconds else { return since };
    now.checked_sub(SignedDuration::from_secs(deadline)).map_or(since, |limit| since.max(limit))
}

fn too_many_missed(observed: &Observed) -> Action {
    let message =
        "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
    Action::warning(observed.reference(), "TooManyMissedTimes", message.to_owned())
}

fn start(observed: &Observed, time: Timestamp, zone: &TimeZone, due: &mut Due) {
    let name = format!("{}-{}", observed.object.meta().name, time.as_second() / 60);
    if observed.jobs.iter().any(|(object, _)| object.meta().name == name) {
        due.scheduled = Some(time);
        return;
    }
    let at_work = observed
        .jobs
        .iter()
        .filter(|(object, job)| is_scheduled(object) && history::end(job).is_none())
        .map(|(object, _)| object);
    match observed.spec.concurrency_policy.as_deref() {
        Some("Forbid") if at_work.clone().next().is_some() => {
            let message =
                "Not starting job because prior execution is running and concurrency policy is Forbid";
            due.actions.push(Action::event(observed.reference(), "JobAlreadyActive", message.to_owned()));
            return;
        }
        Some("Replace") => {
            let leaving = at_work.filter(|job| job.meta().deletion_timestamp.is_none());
            due.actions.extend(leaving.flat_map(|job| history::remove(observed, job)));
        }
        _ => {}
    }
    due.actions.push(create(observed, name, time, zone));
}

fn create(observed: &Observed, name: String, time: Timestamp, zone: &TimeZone) -> Action {
    let meta = observed.object.meta();
    let template = &observed.object.value()["spec"]["jobTemplate"];
    let mut metadata = json!({
        "name": name,
        "namespace": meta.namespace,
        "ownerReferences": [owners::controller_reference("batch/v1", "CronJob", meta)],
        "annotations": {},
    });
    for field in ["labels", "annotations"] {
        if let Some(values) = template["metadata"].get(field).filter(|values| !values.is_null()) {
            metadata[field] = values.clone();
        }
    }
    let local = time.to_zoned(zone.clone());
    metadata["annotations"][SCHEDULED] = Value::String(rfc3339(&local));
    let body =
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template["spec"]});
    Action::Create { target: target_of::<Job>(&meta.namespace), body, announce: Some(observed.reference()) }
}

/// RFC 3339 as Go writes it: `Z` for no offset.
fn rfc3339(time: &jiff::Zoned) -> String {
    match time.offset().seconds() {
        0 => time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        _ => time.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
    }
}
