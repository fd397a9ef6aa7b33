//! As many pods at work as the job asks for.

use std::collections::BTreeSet;
use std::time::Duration;

use client::target_of;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use reconcile::Action;

use super::tally::Tally;
use super::{Observed, backoff, bodies, index_of, is_tracked, untrack};
use crate::shared::claim::ObservedPod;
use crate::shared::pods;

/// At most this many pods are created or removed in one go (`MaxPodCreateDeletePerSync` upstream).
const BURST: usize = 500;

/// What to create or remove, and when to look again.
pub fn plan(
    observed: &Observed,
    ours: &[ObservedPod],
    tally: &Tally,
    now: Timestamp,
) -> (Vec<Action>, Option<Duration>) {
    if observed.is_suspended() {
        let all: Vec<&ObservedPod> = tally.active.iter().take(BURST).collect();
        return (remove(observed, &all), None);
    }
    let wanted = wanted(observed, tally);
    let surplus = surplus(observed, tally, wanted);
    if !surplus.is_empty() {
        return (remove(observed, &surplus), None);
    }
    let mut occupied = tally.active.len();
    if observed.replaces_only_failed() {
        occupied += tally.terminating.len();
    }
    let missing = wanted.saturating_sub(occupied).min(BURST);
    if missing == 0 {
        return (Vec::new(), None);
    }
    if observed.retries_per_index().is_some() {
        return per_index(observed, tally, missing, now);
    }
    let finished: Vec<&ObservedPod> =
        ours.iter().filter(|(_, pod)| pods::phase(pod) == "Succeeded" || observed.has_failed(pod)).collect();
    let wait = backoff::of_job(&finished, now);
    if !wait.is_zero() {
        return (Vec::new(), Some(wait));
    }
    if observed.is_indexed() {
        let create = |index: i32| bodies::create(observed, Some(index), None);
        return (pending(observed, tally).take(missing).map(create).collect(), None);
    }
    (vec![bodies::create(observed, None, None); missing], None)
}

/// How many pods are to be at work.
fn wanted(observed: &Observed, tally: &Tally) -> usize {
    let parallelism = observed.spec.parallelism.unwrap_or(1).max(0);
    let left = match (observed.is_indexed(), observed.spec.completions) {
        (true, _) => observed.completions() - tally.succeeded_indexes.len() - tally.failed_indexes.len(),
        (false, Some(completions)) => completions - tally.successes(),
        // One success means that the work is done; those at work may finish theirs.
        (false, None) if tally.successes() > 0 => i32::try_from(tally.active.len()).unwrap_or(i32::MAX),
        (false, None) => parallelism,
    };
    usize::try_from(left.min(parallelism)).unwrap_or(0)
}

/// Pods of indexes that are done, twice there or out of range, and those beyond `wanted`.
fn surplus<'a>(observed: &Observed, tally: &'a Tally, wanted: usize) -> Vec<&'a ObservedPod> {
    let mut order: Vec<&ObservedPod> = tally.active.iter().collect();
    // The last are kept.
    order.sort_by(|(_, a), (_, b)| pods::removal_order(a, b));
    let mut seen = BTreeSet::new();
    let mut misplaced = |pod: &Pod| {
        let Some(index) = index_of(pod).filter(|_| observed.is_indexed()) else {
            return observed.is_indexed();
        };
        let done = tally.succeeded_indexes.contains(index) || tally.failed_indexes.contains(index);
        done || index >= observed.completions() || !seen.insert(index)
    };
    let (mut surplus, mut kept): (Vec<_>, Vec<_>) =
        order.into_iter().rev().partition(|(_, pod)| misplaced(pod));
    while kept.len() > wanted {
        surplus.extend(kept.pop());
    }
    surplus.truncate(BURST);
    surplus
}

/// Pods that are not needed any more do not count as failed, so they are not tracked any longer.
fn remove(observed: &Observed, surplus: &[&ObservedPod]) -> Vec<Action> {
    let collection = target_of::<Pod>("");
    let tracked = surplus.iter().filter(|(object, _)| is_tracked(object)).map(|(object, _)| untrack(object));
    let delete = |(object, _): &&ObservedPod| {
        Action::delete(collection.clone(), object, None).announced(observed.reference())
    };
    tracked.chain(surplus.iter().map(delete)).collect()
}

/// The lowest indexes that nobody works on and that are neither done nor given up.
fn pending<'a>(observed: &'a Observed, tally: &'a Tally) -> impl Iterator<Item = i32> + 'a {
    let waiting = tally.terminating.iter().filter(|_| observed.replaces_only_failed());
    let taken: BTreeSet<i32> =
        tally.active.iter().chain(waiting).filter_map(|(_, pod)| index_of(pod)).collect();
    (0..observed.completions()).filter(move |index| {
        let done = tally.succeeded_indexes.contains(*index) || tally.failed_indexes.contains(*index);
        !done && !taken.contains(index)
    })
}

/// Each index waits by itself after its failures.
fn per_index(
    observed: &Observed,
    tally: &Tally,
    missing: usize,
    now: Timestamp,
) -> (Vec<Action>, Option<Duration>) {
    let (mut actions, mut next) = (Vec::new(), None::<Duration>);
    for index in pending(observed, tally) {
        if actions.len() == missing {
            break;
        }
        let last = tally.waiting.get(&index).map(|(_, pod)| &**pod);
        let wait = last.map_or(Duration::ZERO, |pod| backoff::of_index(pod, now));
        if wait.is_zero() {
            actions.push(bodies::create(observed, Some(index), last));
        } else {
            next = Some(next.map_or(wait, |next| next.min(wait)));
        }
    }
    (actions, next)
}
