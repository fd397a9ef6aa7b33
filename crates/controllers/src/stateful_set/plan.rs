//! The judgement: which pod comes, goes or is replaced next.
//!
//! With `OrderedReady` one thing happens at a time, in order of the ordinals; with `Parallel` all at once.

use client::target_of;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use machinery::Status;
use machinery::selector::labels;
use reconcile::{Action, Plan};

use super::history::{self, History};
use super::{Observed, REVISION_LABEL, bodies, claims, is_available, is_healthy, status};
use crate::shared::claim::{Claim, ObservedPod};
use crate::shared::{intstr, pods, revisions};

/// The pods of a set by ordinal.
pub struct Slots {
    /// What is wanted, in ascending order.
    pub replicas: Vec<(i32, Option<ObservedPod>)>,
    /// What is too much, in descending order.
    pub condemned: Vec<(i32, ObservedPod)>,
}

/// Whether what comes after may go on (`false`: only after this is done).
type Step = (Vec<Action>, bool);

struct Context<'a> {
    observed: &'a Observed,
    history: &'a History<'a>,
    now: Timestamp,
}

/// What to do for a set.
pub fn plan(observed: &Observed, now: Timestamp) -> Plan {
    if labels::is_empty(&observed.spec.selector) {
        return Plan::nothing();
    }
    let deleting = observed.object.meta().deletion_timestamp.is_some();
    let (ours, mut claims) = claim(observed);
    if !deleting {
        claims.extend(revisions::adopt(
            &observed.revisions,
            observed.object.meta(),
            &observed.owner_reference(),
        ));
    }
    if !claims.is_empty() {
        return Plan { actions: claims, ..Plan::nothing() };
    }
    let history = match history::judge(observed) {
        Ok(history) => history,
        Err(_) if deleting => return Plan::nothing(),
        Err(create) => return Plan { actions: vec![*create], ..Plan::nothing() },
    };
    let slots = slots(observed, &ours);
    let context = Context { observed, history: &history, now };
    let mut actions: Vec<Action> = history.renumber.clone().into_iter().collect();
    if !deleting {
        actions.extend(context.act(&slots));
        actions.extend(history::clean_up(observed, &history));
    }
    let (status, next) = status::plan(observed, &history, &ours, now);
    Plan { actions, status, next }
}

/// Another object has the name that a new revision should get: try another name.
pub fn plan_failure(observed: &Observed, failure: &Status, _now: Timestamp) -> Plan {
    let taken = failure.is_already_exists() && history::judge(observed).is_err();
    Plan { status: taken.then(|| status::collided(observed)), ..Plan::nothing() }
}

fn claim(observed: &Observed) -> (Vec<ObservedPod>, Vec<Action>) {
    let claim = Claim {
        owner: observed.object.meta(),
        selector: &observed.spec.selector,
        collection: target_of::<Pod>(""),
        reference: observed.owner_reference(),
    };
    claim.pods(&observed.pods, |pod| observed.ordinal(&pod.meta().name).is_some())
}

fn slots(observed: &Observed, ours: &[ObservedPod]) -> Slots {
    let pod_of = |ordinal: i32| {
        let name = bodies::pod_name(observed, ordinal);
        ours.iter().find(|(object, _)| object.meta().name == name).cloned()
    };
    let end = observed.start().saturating_add(observed.replicas());
    let replicas = (observed.start()..end).map(|ordinal| (ordinal, pod_of(ordinal))).collect();
    let surplus = ours.iter().filter_map(|pod| {
        let ordinal = observed.ordinal(&pod.0.meta().name)?;
        (!observed.is_wanted(ordinal)).then(|| (ordinal, pod.clone()))
    });
    let mut condemned: Vec<_> = surplus.collect();
    condemned.sort_by_key(|(ordinal, _)| std::cmp::Reverse(*ordinal));
    Slots { replicas, condemned }
}

fn is_at(pod: &ObservedPod, revision: &str) -> bool {
    pod.0.meta().labels.get(REVISION_LABEL).is_some_and(|name| name == revision)
}

impl Context<'_> {
    fn act(&self, slots: &Slots) -> Vec<Action> {
        let ordered = self.observed.is_ordered();
        let mut actions = Vec::new();
        let replicas = slots.replicas.iter().map(|(ordinal, pod)| self.replica(*ordinal, pod.as_ref()));
        let first_unhealthy = self.first_unhealthy(slots);
        let condemned =
            slots.condemned.iter().map(|(ordinal, pod)| self.condemned(*ordinal, pod, first_unhealthy));
        for (more, settled) in replicas.chain(condemned) {
            actions.extend(more);
            if ordered && !settled {
                return actions;
            }
        }
        if self.observed.is_rolling() {
            actions.extend(self.update(slots));
        }
        actions
    }

    fn delete(&self, pod: &ObservedPod) -> Action {
        Action::delete(target_of::<Pod>(""), &pod.0, None).announced(self.observed.reference())
    }

    fn is_available(&self, pod: &Pod) -> bool {
        is_available(pod, self.observed.min_ready_seconds(), self.now)
    }

    /// Brings one wanted ordinal closer to a running pod.
    fn replica(&self, ordinal: i32, pod: Option<&ObservedPod>) -> Step {
        let Some(pod) = pod else {
            if claims::is_leaving(self.observed, ordinal) {
                return (Vec::new(), false);
            }
            let mut actions = claims::create_missing(self.observed, ordinal);
            actions.push(bodies::create(self.observed, self.history, ordinal));
            return (actions, false);
        };
        let (deleting, finished) = (pods::is_deleting(&pod.1), pods::is_finished(&pod.1));
        if finished {
            return (if deleting { Vec::new() } else { self.recreate(pod) }, false);
        }
        let mut actions = claims::own(self.observed, ordinal, Some(pod));
        if !deleting {
            actions.extend(claims::create_missing(self.observed, ordinal));
        }
        let settled = self.is_available(&pod.1);
        if !settled && self.is_stale(ordinal, pod) {
            actions.push(self.delete(pod));
        }
        (actions, settled)
    }

    /// Whether an ordered set is stuck with a pod of a template that was given up before it ever became ready.
    fn is_stale(&self, ordinal: i32, pod: &ObservedPod) -> bool {
        self.observed.is_ordered()
            && self.observed.is_rolling()
            && !pods::is_deleting(&pod.1)
            && !is_healthy(&pod.1)
            && ordinal >= self.observed.first_updated()
            && !is_at(pod, self.history.update.name())
            && !is_at(pod, self.history.current.name())
    }

    fn recreate(&self, pod: &ObservedPod) -> Vec<Action> {
        let (word, reason) = match pods::phase(&pod.1) {
            "Failed" => ("failed", "RecreatingFailedPod"),
            _ => ("terminated", "RecreatingTerminatedPod"),
        };
        let meta = pod.0.meta();
        let set = self.observed.object.key();
        let message = format!("StatefulSet {set} is recreating {word} Pod {}", meta.name);
        let about = self.observed.reference();
        let event = match word {
            "failed" => Action::warning(about, reason, message),
            _ => Action::event(about, reason, message),
        };
        vec![event, self.delete(pod)]
    }

    /// The unhealthy pod that an ordered set may remove although it is not ready.
    fn first_unhealthy(&self, slots: &Slots) -> Option<i32> {
        let unhealthy = |ordinal: i32, pod: Option<&ObservedPod>| {
            let healthy = pod.is_some_and(|pod| is_healthy(&pod.1));
            (!healthy).then_some(ordinal)
        };
        let replicas = slots.replicas.iter().find_map(|(ordinal, pod)| unhealthy(*ordinal, pod.as_ref()));
        // From the lowest ordinal up.
        let condemned =
            || slots.condemned.iter().rev().find_map(|(ordinal, pod)| unhealthy(*ordinal, Some(pod)));
        replicas.or_else(condemned)
    }

    /// Removes a pod that is too many.
    fn condemned(&self, ordinal: i32, pod: &ObservedPod, first_unhealthy: Option<i32>) -> Step {
        if pods::is_deleting(&pod.1) {
            return (Vec::new(), false);
        }
        let claims = claims::own(self.observed, ordinal, Some(pod));
        if !claims.is_empty() {
            return (claims, false);
        }
        let waits = !self.is_available(&pod.1) && first_unhealthy != Some(ordinal);
        if self.observed.is_ordered() && waits {
            return (Vec::new(), false);
        }
        (vec![self.delete(pod)], false)
    }

    fn max_unavailable(&self) -> i32 {
        let strategy = self.observed.spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let value = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        value.map_or(1, |value| intstr::resolve(value, self.observed.replicas(), true)).max(1)
    }

    /// Replaces pods of past revisions, from the highest ordinal down to the partition. What does not serve anyway goes
    /// first; of what serves, only as many as may be missing.
    fn update(&self, slots: &Slots) -> Vec<Action> {
        let max = usize::try_from(self.max_unavailable()).unwrap_or(1);
        let serves = |pod: &Option<ObservedPod>| pod.as_ref().is_some_and(|pod| self.is_available(&pod.1));
        let first = self.observed.first_updated();
        let is_past =
            |pod: &&ObservedPod| !pods::is_deleting(&pod.1) && !is_at(pod, self.history.update.name());
        let missing = slots.replicas.iter().filter(|(_, pod)| !serves(pod)).count();
        let past = slots.replicas.iter().rev().filter(|(ordinal, _)| *ordinal >= first);
        let past: Vec<_> = past.filter_map(|(_, pod)| pod.as_ref()).filter(is_past).collect();
        let (serving, idle): (Vec<_>, Vec<_>) = past.into_iter().partition(|pod| self.is_available(&pod.1));
        let coming = missing - idle.len();
        if !idle.is_empty() {
            return idle.into_iter().take(max.saturating_sub(coming)).map(|pod| self.delete(pod)).collect();
        }
        serving.into_iter().take(max.saturating_sub(missing)).map(|pod| self.delete(pod)).collect()
    }
}
