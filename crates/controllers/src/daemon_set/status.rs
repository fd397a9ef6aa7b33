//! What the set says of itself.

use std::time::Duration;

use client::target_of;
use k8s_openapi::api::apps::v1::DaemonSet;
use reconcile::Action;
use serde_json::json;

use super::plan::{Context, Place};
use super::{Observed, history};
use crate::shared::{pods, status};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    current: i32,
    misscheduled: i32,
    ready: i32,
    updated: i32,
    available: i32,
}

/// The status patch, if it says anything new, and when a pod becomes available.
pub fn plan(context: &Context<'_>) -> (Option<Action>, Option<Duration>) {
    let mut counts = Counts::default();
    for place in context.places.values() {
        count(context, place, &mut counts);
    }
    let observed = context.observed;
    let desired = context.desired();
    let wanted = json!({
        "observedGeneration": observed.object.meta().generation,
        "desiredNumberScheduled": desired,
        "currentNumberScheduled": counts.current,
        "numberMisscheduled": counts.misscheduled,
        "numberReady": counts.ready,
        "updatedNumberScheduled": counts.updated,
        "numberAvailable": counts.available,
        "numberUnavailable": desired - counts.available,
    });
    let stored = serde_json::to_value(&observed.view.status).unwrap_or_default();
    let patch = status::patch_if_new(target_of::<DaemonSet>(""), &observed.object, &wanted, &stored);
    (patch, next(context))
}

fn count(context: &Context<'_>, place: &Place, counts: &mut Counts) {
    if place.pods.is_empty() {
        return;
    }
    if !place.fit.should_run {
        counts.misscheduled += 1;
        return;
    }
    counts.current += 1;
    // While one pod takes over from another, the one that serves counts.
    let ready = place.pods.iter().find(|(_, pod)| pods::is_ready(pod));
    if let Some((_, pod)) = ready {
        counts.ready += 1;
        counts.available += i32::from(context.observed.is_available(pod, context.now));
    }
    counts.updated += i32::from(place.pods.iter().any(|pod| context.is_updated(pod)));
}

fn next(context: &Context<'_>) -> Option<Duration> {
    let pods = context.places.values().flat_map(|place| &place.pods);
    let min_ready = context.observed.min_ready_seconds();
    let waits = pods.filter_map(|(_, pod)| pods::until_available(pod, min_ready, context.now));
    waits.filter(|wait| !wait.is_zero()).min().map(|wait| wait.unsigned_abs())
}

/// The status with one more name collision.
pub fn collided(observed: &Observed) -> Action {
    let status = json!({"collisionCount": history::collisions(observed) + 1});
    status::patch(target_of::<DaemonSet>(""), &observed.object, &status)
}
