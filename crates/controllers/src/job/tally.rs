//! Counting: which pods run, which came to an end, and what of that the status knows already.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use reconcile::Action;

use super::failure_policy::{self, Verdict};
use super::{Indexes, Observed, backoff, index_of, is_tracked, untrack};
use crate::shared::claim::ObservedPod;
use crate::shared::pods;

/// A job's pods, counted.
#[derive(Default)]
pub struct Tally {
    pub active: Vec<ObservedPod>,
    /// On their way out and not finished.
    pub terminating: Vec<ObservedPod>,
    pub ready: i32,
    /// Counted for good.
    pub succeeded: i32,
    pub failed: i32,
    /// Uids that the status names until their pods' finalizers are gone.
    pub uncounted_succeeded: Vec<String>,
    pub uncounted_failed: Vec<String>,
    /// The last failed pod of each index that is to be tried again: it is counted when its replacement, which inherits
    /// its count of failures, is there.
    pub waiting: BTreeMap<i32, ObservedPod>,
    /// How many of those count as failed.
    pub delayed: i32,
    pub succeeded_indexes: Indexes,
    pub failed_indexes: Indexes,
    /// Pods whose end the stored status knows.
    pub counted: Vec<Action>,
    /// Why the failure of a pod fails the whole job.
    pub fatal: Option<String>,
}

impl Tally {
    /// All failures, counted or not.
    pub fn failures(&self) -> i32 {
        self.failed.saturating_add(count(&self.uncounted_failed)).saturating_add(self.delayed)
    }

    /// All successes of a job without indexes.
    pub fn successes(&self) -> i32 {
        self.succeeded.saturating_add(count(&self.uncounted_succeeded))
    }
}

fn count<T>(things: &T) -> i32
where
    for<'a> &'a T: IntoIterator,
{
    i32::try_from(things.into_iter().count()).unwrap_or(i32::MAX)
}

/// Counts. `ending`: the job has come to its end, so that no index waits for a replacement.
pub fn count_pods(observed: &Observed, ours: &[ObservedPod], ending: bool) -> Tally {
    let mut tally = from_status(observed, ours);
    for pod in ours {
        if pods::is_active(&pod.1) {
            tally.ready += i32::from(pods::is_ready(&pod.1));
            tally.active.push(pod.clone());
        } else if !pods::is_finished(&pod.1) {
            tally.terminating.push(pod.clone());
        }
    }
    let stored: BTreeSet<String> =
        tally.uncounted_succeeded.iter().chain(&tally.uncounted_failed).cloned().collect();
    let mut failed = Vec::new();
    for pod in ours.iter().filter(|(object, _)| is_tracked(object)) {
        if stored.contains(&pod.0.meta().uid) {
            tally.counted.push(untrack(&pod.0));
        } else if pods::phase(&pod.1) == "Succeeded" {
            succeed(observed, pod, &mut tally);
        } else if observed.has_failed(&pod.1) {
            failed.push(pod);
        }
    }
    fail(observed, &failed, ending, &mut tally);
    tally
}

/// What the status says, with what became countable: pods without the finalizer.
fn from_status(observed: &Observed, ours: &[ObservedPod]) -> Tally {
    let status = &observed.status;
    let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let waits = |uid: &String| ours.iter().any(|(object, _)| object.meta().uid == *uid && is_tracked(object));
    let split = |uids: Option<Vec<String>>| -> (Vec<String>, Vec<String>) {
        uids.unwrap_or_default().into_iter().partition(|uid| waits(uid))
    };
    let (uncounted_succeeded, succeeded) = split(uncounted.succeeded);
    let (uncounted_failed, failed) = split(uncounted.failed);
    let indexes =
        |text: Option<&String>| Indexes::parse(text.map_or("", String::as_str), observed.completions());
    Tally {
        succeeded: status.succeeded.unwrap_or(0).saturating_add(count(&succeeded)),
        failed: status.failed.unwrap_or(0).saturating_add(count(&failed)),
        uncounted_succeeded,
        uncounted_failed,
        succeeded_indexes: indexes(status.completed_indexes.as_ref()),
        failed_indexes: indexes(status.failed_indexes.as_ref()),
        ..Tally::default()
    }
}

fn succeed(observed: &Observed, pod: &ObservedPod, tally: &mut Tally) {
    if !observed.is_indexed() {
        tally.uncounted_succeeded.push(pod.0.meta().uid.clone());
        return;
    }
    let stored = observed.status.completed_indexes.as_deref().unwrap_or_default();
    match index_of(&pod.1).filter(|index| (0..observed.completions()).contains(index)) {
        Some(index) if !Indexes::parse(stored, observed.completions()).contains(index) => {
            tally.succeeded_indexes.insert(index);
        }
        _ => tally.counted.push(untrack(&pod.0)),
    }
}

fn fail(observed: &Observed, failed: &[&ObservedPod], ending: bool, tally: &mut Tally) {
    let policy = observed.spec.pod_failure_policy.as_ref();
    let verdicts: Vec<(&ObservedPod, Verdict)> =
        failed.iter().map(|pod| (*pod, failure_policy::judge(policy, &pod.1))).collect();
    for (_, verdict) in &verdicts {
        if let Verdict::FailJob(message) = verdict {
            tally.fatal.get_or_insert_with(|| message.clone());
        }
    }
    if let Some(retries) = observed.retries_per_index() {
        for (pod, verdict) in &verdicts {
            let out_of_retries = *verdict != Verdict::Ignore && backoff::index_failures(&pod.1) >= retries;
            if let Some(index) = index_of(&pod.1)
                && (*verdict == Verdict::FailIndex || out_of_retries)
            {
                tally.failed_indexes.insert(index);
            }
        }
    }
    tally.waiting = if ending { BTreeMap::new() } else { awaiting_replacement(observed, failed, tally) };
    for (pod, verdict) in verdicts {
        let uid = &pod.0.meta().uid;
        if tally.waiting.values().any(|(object, _)| object.meta().uid == *uid) {
            tally.delayed += i32::from(verdict != Verdict::Ignore);
        } else if verdict == Verdict::Ignore {
            tally.counted.push(untrack(&pod.0));
        } else {
            tally.uncounted_failed.push(uid.clone());
        }
    }
}

/// The newest failed pod of each index that is to be tried again and is not being tried.
fn awaiting_replacement(
    observed: &Observed,
    failed: &[&ObservedPod],
    tally: &Tally,
) -> BTreeMap<i32, ObservedPod> {
    let mut newest: BTreeMap<i32, ObservedPod> = BTreeMap::new();
    if observed.retries_per_index().is_none() {
        return newest;
    }
    let tried: BTreeSet<i32> = tally.active.iter().filter_map(|(_, pod)| index_of(pod)).collect();
    for pod in failed {
        let Some(index) = index_of(&pod.1) else { continue };
        let done = tally.succeeded_indexes.contains(index) || tally.failed_indexes.contains(index);
        if done || tried.contains(&index) {
            continue;
        }
        let rank = |pod: &Pod| (backoff::absolute_failures(pod), backoff::finished_at(pod));
        match newest.get(&index) {
            Some((_, other)) if rank(other) >= rank(&pod.1) => {}
            _ => {
                newest.insert(index, (*pod).clone());
            }
        }
    }
    newest
}
