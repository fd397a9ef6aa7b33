//! What the deployment says of itself.

use std::time::Duration;

use client::{Patch, target_of};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use reconcile::Action;
use reconcile::plan::named;
use serde_json::{Value, json};

use super::{Observed, Set, revision};

/// A deployment without this deadline.
const NO_DEADLINE: i32 = i32::MAX;

/// The numbers of the status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    replicas: i32,
    updated: i32,
    ready: i32,
    available: i32,
    terminating: i32,
    asked: i32,
}

fn count(present: Option<&Set>, past: &[Set]) -> Counts {
    let mut counts = Counts::default();
    for set in past.iter().chain(present) {
        let status = set.view.status.as_ref();
        counts.replicas += status.map_or(0, |status| status.replicas);
        counts.ready += status.and_then(|status| status.ready_replicas).unwrap_or(0);
        counts.available += set.available();
        counts.terminating += status.and_then(|status| status.terminating_replicas).unwrap_or(0);
        counts.asked += set.replicas();
    }
    counts.updated = present.and_then(|set| set.view.status.as_ref()).map_or(0, |status| status.replicas);
    counts
}

/// Whether every replica is of the present template and available.
pub fn is_complete(observed: &Observed, present: Option<&Set>, past: &[Set]) -> bool {
    complete(observed, &count(present, past))
}

fn complete(observed: &Observed, counts: &Counts) -> bool {
    let wanted = observed.replicas();
    counts.updated == wanted && counts.replicas == wanted && counts.available == wanted
}

/// The status patch, if it says anything new, and when the progress deadline must be looked at.
pub fn plan(
    observed: &Observed,
    present: Option<&Set>,
    past: &[Set],
    now: Timestamp,
) -> (Option<Action>, Option<Duration>) {
    let counts = count(present, past);
    let stored = serde_json::to_value(&observed.view.status).unwrap_or_default();
    let mut conditions = stored["conditions"].as_array().cloned().unwrap_or_default();
    set(&mut conditions, available(observed, &counts), now);
    let next = progress(observed, present, &counts, &stored, &mut conditions, now);
    let mut status = json!({
        "observedGeneration": observed.object.meta().generation,
        "replicas": counts.replicas,
        "updatedReplicas": counts.updated,
        "readyReplicas": counts.ready,
        "availableReplicas": counts.available,
        "unavailableReplicas": (counts.asked - counts.available).max(0),
        "terminatingReplicas": counts.terminating,
        "conditions": conditions,
    });
    if revision::collisions(observed) > 0 {
        status["collisionCount"] = json!(revision::collisions(observed));
    }
    (write(observed, status, &stored), next)
}

/// The status with one more name collision.
pub fn collided(observed: &Observed) -> Action {
    status_patch(observed, json!({"collisionCount": revision::collisions(observed) + 1}))
}

fn write(observed: &Observed, status: Value, stored: &Value) -> Option<Action> {
    let same = |(field, value): (&String, &Value)| match stored.get(field).filter(|stored| !stored.is_null())
    {
        Some(stored) => stored == value,
        None => value == &json!(0),
    };
    let unchanged = status.as_object().is_some_and(|fields| fields.iter().all(same));
    (!unchanged).then(|| status_patch(observed, status))
}

fn status_patch(observed: &Observed, status: Value) -> Action {
    let mut target = named(target_of::<Deployment>(""), &observed.object);
    target.subresource = "status".to_owned();
    Action::Patch { target, patch: Patch::Merge(json!({"status": status})) }
}

fn available(observed: &Observed, counts: &Counts) -> Value {
    let (_, max_unavailable) = observed.fenceposts();
    if counts.available >= observed.replicas() - max_unavailable {
        condition("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        let message = "Deployment does not have minimum availability.";
        condition("Available", "False", "MinimumReplicasUnavailable", message)
    }
}

/// Keeps `Progressing` and returns when its deadline passes.
fn progress(
    observed: &Observed,
    present: Option<&Set>,
    counts: &Counts,
    stored: &Value,
    conditions: &mut Vec<Value>,
    now: Timestamp,
) -> Option<Duration> {
    let deadline = observed.view.spec.as_ref().and_then(|spec| spec.progress_deadline_seconds).unwrap_or(600);
    if observed.is_paused() {
        set(conditions, condition("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused"), now);
        return None;
    }
    if find(conditions, "Progressing").is_some_and(|old| old["reason"] == "DeploymentPaused") {
        set(
            conditions,
            condition("Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed"),
            now,
        );
    }
    if deadline == NO_DEADLINE {
        conditions.retain(|condition| condition["type"] != "Progressing");
        return None;
    }
    let subject = present.map_or_else(
        || format!("Deployment {:?}", observed.object.meta().name),
        |set| format!("ReplicaSet {:?}", set.name()),
    );
    if complete(observed, counts) {
        let message = format!("{subject} has successfully progressed.");
        set(conditions, condition("Progressing", "True", "NewReplicaSetAvailable", &message), now);
        return None;
    }
    if has_progressed(counts, stored) || find(conditions, "Progressing").is_none() {
        let reason = if present.is_none() { "NewReplicaSetCreated" } else { "ReplicaSetUpdated" };
        let message = format!("{subject} is progressing.");
        refresh(conditions, condition("Progressing", "True", reason, &message), now);
    }
    expire(conditions, &subject, deadline, now)
}

fn expire(conditions: &mut Vec<Value>, subject: &str, deadline: i32, now: Timestamp) -> Option<Duration> {
    let progressing = find(conditions, "Progressing")?;
    if matches!(progressing["reason"].as_str(), Some("NewReplicaSetAvailable" | "ProgressDeadlineExceeded")) {
        // A rollout that was complete and is not any more restarts the clock only by progress.
        return None;
    }
    let since: Timestamp = progressing["lastUpdateTime"].as_str()?.parse().ok()?;
    let left = i64::from(deadline) - (now.as_second() - since.as_second());
    if left > 0 {
        return Some(Duration::from_secs(left.unsigned_abs()));
    }
    let message = format!("{subject} has timed out progressing.");
    set(conditions, condition("Progressing", "False", "ProgressDeadlineExceeded", &message), now);
    None
}

/// Whether anything got nearer to the goal since the stored status.
fn has_progressed(counts: &Counts, stored: &Value) -> bool {
    let number = |field: &str| stored[field].as_i64().unwrap_or(0) as i32;
    let past = counts.replicas - counts.updated;
    let stored_past = number("replicas") - number("updatedReplicas");
    counts.updated > number("updatedReplicas")
        || past < stored_past
        || counts.ready > number("readyReplicas")
        || counts.available > number("availableReplicas")
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message})
}

fn find<'a>(conditions: &'a [Value], kind: &str) -> Option<&'a Value> {
    conditions.iter().find(|condition| condition["type"] == kind)
}

/// Sets a condition; nothing changes when status and reason are the same.
fn set(conditions: &mut Vec<Value>, condition: Value, now: Timestamp) {
    let kind = condition["type"].as_str().unwrap_or_default();
    let same = |old: &Value| old["status"] == condition["status"] && old["reason"] == condition["reason"];
    if !find(conditions, kind).is_some_and(same) {
        refresh(conditions, condition, now);
    }
}

/// Sets a condition and its time of update; the transition time only moves with the status.
fn refresh(conditions: &mut Vec<Value>, mut condition: Value, now: Timestamp) {
    let time = json!(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    condition["lastUpdateTime"] = time.clone();
    condition["lastTransitionTime"] = time;
    match conditions.iter_mut().find(|old| old["type"] == condition["type"]) {
        Some(old) => {
            if old["status"] == condition["status"] {
                condition["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            *old = condition;
        }
        None => conditions.push(condition),
    }
}
