//! What the job says of itself.

use client::{Patch, target_of};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use reconcile::Action;
use reconcile::plan::named;
use serde_json::{Value, json};

use super::Observed;
use super::tally::Tally;
use super::verdict::Verdict;
use crate::shared::conditions::{self, condition};
use crate::shared::status::time;

/// The new status, and events that go with it.
pub fn plan(
    observed: &Observed,
    tally: &Tally,
    verdict: Option<&Verdict>,
    now: Timestamp,
) -> (Option<Action>, Vec<Action>) {
    let stored = serde_json::to_value(&observed.status).unwrap_or_default();
    let mut wanted = counts(observed, tally);
    let mut events = Vec::new();
    let mut all = stored["conditions"].as_array().cloned().unwrap_or_default();
    match verdict {
        Some(verdict) => {
            decide(&mut all, verdict.interim(), verdict, now);
            if is_over(tally) {
                decide(&mut all, verdict.last(), verdict, now);
                events.push(ended(observed, verdict));
                if verdict.succeeded {
                    wanted["completionTime"] = json!(time(now));
                }
            }
        }
        None => events.extend(suspend(observed, &mut all, &mut wanted, now)),
    }
    let start =
        wanted.get("startTime").is_none() && !observed.is_suspended() && observed.status.start_time.is_none();
    if start {
        wanted["startTime"] = json!(time(now));
    }
    if Some(&all) != stored["conditions"].as_array() && !all.is_empty() {
        wanted["conditions"] = Value::Array(all);
    }
    (write(observed, &wanted, &stored), events)
}

fn counts(observed: &Observed, tally: &Tally) -> Value {
    let succeeded = if observed.is_indexed() { tally.succeeded_indexes.len() } else { tally.succeeded };
    let mut wanted = json!({
        "active": tally.active.len(),
        "ready": tally.ready,
        "terminating": tally.terminating.len(),
        "succeeded": succeeded,
        "failed": tally.failed,
        "uncountedTerminatedPods": {"succeeded": tally.uncounted_succeeded, "failed": tally.uncounted_failed},
    });
    if observed.is_indexed() {
        wanted["completedIndexes"] = json!(tally.succeeded_indexes.to_string());
    }
    if observed.retries_per_index().is_some() {
        wanted["failedIndexes"] = json!(tally.failed_indexes.to_string());
    }
    wanted
}

/// Whether no pod is left whose end could still change the numbers.
fn is_over(tally: &Tally) -> bool {
    let uncounted = tally.uncounted_succeeded.len() + tally.uncounted_failed.len();
    tally.active.is_empty() && tally.terminating.is_empty() && tally.waiting.is_empty() && uncounted == 0
}

fn decide(all: &mut Vec<Value>, kind: &str, verdict: &Verdict, now: Timestamp) {
    if !conditions::is_true(all, kind) {
        let mut decided = condition(kind, "True", &verdict.reason, &verdict.message);
        decided["lastProbeTime"] = json!(time(now));
        conditions::set(all, decided, now);
    }
}

fn ended(observed: &Observed, verdict: &Verdict) -> Action {
    if verdict.succeeded {
        return Action::event(observed.reference(), "Completed", "Job completed".to_owned());
    }
    Action::warning(observed.reference(), &verdict.reason, verdict.message.clone())
}

/// Shows that the job is suspended or goes on; going on restarts the clock of its deadline.
fn suspend(observed: &Observed, all: &mut Vec<Value>, wanted: &mut Value, now: Timestamp) -> Option<Action> {
    let is_shown = conditions::is_true(all, "Suspended");
    let (status, reason, message, event) = match (observed.is_suspended(), is_shown) {
        (true, false) => ("True", "JobSuspended", "Job suspended", "Suspended"),
        (false, true) => ("False", "JobResumed", "Job resumed", "Resumed"),
        _ => return None,
    };
    let mut shown = condition("Suspended", status, reason, message);
    shown["lastProbeTime"] = json!(time(now));
    conditions::set(all, shown, now);
    if status == "False" {
        wanted["startTime"] = json!(time(now));
    }
    Some(Action::event(observed.reference(), event, message.to_owned()))
}

/// Writes what changed, guarded by the revision: numbers build on the stored ones.
fn write(observed: &Observed, wanted: &Value, stored: &Value) -> Option<Action> {
    let is_absent = |value: &Value| {
        *value == json!(0) || *value == json!("") || *value == json!({"succeeded": [], "failed": []})
    };
    let is_new = |field: &str, value: &Value| match stored.get(field).filter(|stored| !stored.is_null()) {
        // Upstream writes these three also when they are zero.
        None if matches!(field, "ready" | "terminating" | "uncountedTerminatedPods") => true,
        None => !is_absent(value),
        Some(stored) if field == "uncountedTerminatedPods" => {
            let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
            ["succeeded", "failed"].iter().any(|name| list(stored, name) != list(value, name))
        }
        Some(stored) => stored != value,
    };
    let fields = wanted.as_object()?;
    if !fields.iter().any(|(field, value)| is_new(field, value)) {
        return None;
    }
    let mut target = named(target_of::<Job>(""), &observed.object);
    target.subresource = "status".to_owned();
    let guard =
        json!({"uid": observed.object.meta().uid, "resourceVersion": observed.object.revision().to_string()});
    Some(Action::Patch { target, patch: Patch::Merge(json!({"metadata": guard, "status": wanted})) })
}
