//! The judgement of a job.

use client::{Patch, target_of};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use reconcile::{Action, Plan};
use serde_json::json;

use super::{MANAGER, Observed, TRACKING, is_finished, manage, status, tally, verdict};
use crate::shared::claim::{Claim, ObservedPod};

/// What to do for a job.
pub fn plan(observed: &Observed, now: Timestamp) -> Plan {
    let managed_by = observed.spec.managed_by.as_deref().unwrap_or(MANAGER);
    let known_mode =
        matches!(observed.spec.completion_mode.as_deref(), None | Some("NonIndexed" | "Indexed"));
    if managed_by != MANAGER || !known_mode || is_finished(&observed.status) {
        return Plan::nothing();
    }
    let (ours, claims) = claim(observed);
    if !claims.is_empty() {
        return Plan { actions: claims, ..Plan::nothing() };
    }
    let decided = verdict::decided(observed);
    let mut tally = tally::count_pods(observed, &ours, decided.is_some());
    let verdict = match decided {
        Some(decided) => Some(decided),
        None => verdict::judge(observed, &ours, &tally, now),
    };
    if verdict.is_some() && !tally.waiting.is_empty() {
        // Nothing will be tried again, so nothing waits for its replacement.
        tally = tally::count_pods(observed, &ours, true);
    }
    let mut actions = std::mem::take(&mut tally.counted);
    let mut next = None;
    if verdict.is_some() {
        actions.extend(end(observed, &tally.active));
    } else if !observed.is_deleting() {
        let (managed, again) = manage::plan(observed, &ours, &tally, now);
        actions.extend(managed);
        next = [again, verdict::until_deadline(observed, now)].into_iter().flatten().min();
    }
    let (status, events) = status::plan(observed, &tally, verdict.as_ref(), now);
    // A clock that is only started with this status is looked at when the status comes back.
    actions.extend(events.into_iter().filter(|_| status.is_some()));
    Plan { actions, status, next }
}

/// Pods are tracked from the moment they are the job's to the moment they are not.
fn claim(observed: &Observed) -> (Vec<ObservedPod>, Vec<Action>) {
    let selector = observed.spec.selector.clone().unwrap_or_default();
    let claim = Claim {
        owner: observed.object.meta(),
        selector: &selector,
        collection: target_of::<Pod>(""),
        reference: observed.owner_reference(),
    };
    let (ours, mut actions) = claim.pods(&observed.pods, |_| true);
    for action in &mut actions {
        if let Action::Patch { patch: Patch::StrategicMerge(body), .. } = action {
            let adopts = body["metadata"]["ownerReferences"][0].get("$patch").is_none();
            let field = if adopts { "finalizers" } else { "$deleteFromPrimitiveList/finalizers" };
            body["metadata"][field] = json!([TRACKING]);
        }
    }
    (ours, actions)
}

/// Removes what still runs; it counts as failed.
fn end(observed: &Observed, active: &[ObservedPod]) -> Vec<Action> {
    let delete = |(object, _): &ObservedPod| {
        Action::delete(target_of::<Pod>(""), object, None).announced(observed.reference())
    };
    active.iter().map(delete).collect()
}
