//! What the set says of itself.

use std::time::Duration;

use client::target_of;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use reconcile::Action;
use serde_json::{Value, json};

use super::history::{self, History};
use super::{Observed, REVISION_LABEL, is_available};
use crate::shared::claim::ObservedPod;
use crate::shared::{pods, status};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    replicas: i32,
    ready: i32,
    available: i32,
    current: i32,
    updated: i32,
}

/// The status patch, if it says anything new, and when a pod becomes available.
pub fn plan(
    observed: &Observed,
    history: &History<'_>,
    pods: &[ObservedPod],
    now: Timestamp,
) -> (Option<Action>, Option<Duration>) {
    let counts = count(observed, history, pods, now);
    let (current, counts) = complete(observed, history, counts);
    let mut wanted = json!({
        "observedGeneration": observed.object.meta().generation,
        "replicas": counts.replicas,
        "readyReplicas": counts.ready,
        "availableReplicas": counts.available,
        "currentReplicas": counts.current,
        "updatedReplicas": counts.updated,
        "currentRevision": current,
        "updateRevision": history.update.name(),
    });
    wanted["collisionCount"] = json!(history::collisions(observed));
    let stored = serde_json::to_value(&observed.view.status).unwrap_or_default();
    let patch = status::patch_if_new(target_of::<StatefulSet>(""), &observed.object, &wanted, &stored);
    (patch, next(observed, pods, now))
}

fn count(observed: &Observed, history: &History<'_>, pods: &[ObservedPod], now: Timestamp) -> Counts {
    let mut counts = Counts::default();
    for (object, pod) in pods {
        counts.replicas += 1;
        if pods::phase(pod) == "Running" && pods::is_ready(pod) {
            counts.ready += 1;
            counts.available += i32::from(is_available(pod, observed.min_ready_seconds(), now));
        }
        if !pods::is_deleting(pod) {
            let revision = object.meta().labels.get(REVISION_LABEL).map(String::as_str);
            counts.current += i32::from(revision == Some(history.current.name()));
            counts.updated += i32::from(revision == Some(history.update.name()));
        }
    }
    counts
}

/// A rollout that reached every pod makes its revision the current one.
fn complete<'a>(observed: &Observed, history: &History<'a>, mut counts: Counts) -> (&'a str, Counts) {
    let wanted = observed.replicas();
    let all = [counts.updated, counts.ready, counts.replicas].iter().all(|count| *count == wanted);
    if observed.is_rolling() && all {
        counts.current = counts.updated;
        return (history.update.name(), counts);
    }
    (history.current.name(), counts)
}

fn next(observed: &Observed, pods: &[ObservedPod], now: Timestamp) -> Option<Duration> {
    let waits =
        pods.iter().filter_map(|(_, pod)| pods::until_available(pod, observed.min_ready_seconds(), now));
    waits.filter(|wait| !wait.is_zero()).min().map(|wait| wait.unsigned_abs())
}

/// The status with one more name collision.
pub fn collided(observed: &Observed) -> Action {
    let status: Value = json!({"collisionCount": history::collisions(observed) + 1});
    status::patch(target_of::<StatefulSet>(""), &observed.object, &status)
}
