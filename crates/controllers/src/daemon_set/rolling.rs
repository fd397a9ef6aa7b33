//! A rolling update: past pods leave within `maxUnavailable`, or new ones come beside them within `maxSurge`.

use super::Observed;
use super::plan::{Changes, Context, Place};
use crate::shared::claim::ObservedPod;
use crate::shared::{intstr, pods};

/// How many nodes may be without a pod, and how many may have two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub unavailable: usize,
    pub surge: usize,
}

pub fn is_rolling(observed: &Observed) -> bool {
    let strategy = observed.spec.update_strategy.as_ref();
    strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete")
}

/// The limits for `desired` nodes; never both zero.
pub fn limits(observed: &Observed, desired: i32) -> Limits {
    let rolling =
        observed.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    if !is_rolling(observed) {
        return Limits { unavailable: 0, surge: 0 };
    }
    let resolve = |value: Option<&_>, default: i32| {
        let number = value.map_or(default, |value| intstr::resolve(value, desired, true));
        usize::try_from(number).unwrap_or(0)
    };
    let surge = resolve(rolling.and_then(|rolling| rolling.max_surge.as_ref()), 0);
    let unavailable = resolve(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), 1);
    if surge == 0 && unavailable == 0 {
        return Limits { unavailable: 1, surge };
    }
    Limits { unavailable, surge }
}

/// The pod of the present template and the one of a past template on a node; `None` if there are more.
fn pair<'a>(
    context: &Context<'_>,
    place: &'a Place,
) -> Option<(Option<&'a ObservedPod>, Option<&'a ObservedPod>)> {
    let active = place.pods.iter().filter(|(_, pod)| !pods::is_deleting(pod));
    let (updated, past): (Vec<_>, Vec<_>) = active.partition(|pod| context.is_updated(pod));
    (updated.len() < 2 && past.len() < 2).then(|| (updated.first().copied(), past.first().copied()))
}

/// Adds what the update does next.
pub fn roll(context: &Context<'_>, changes: &mut Changes) {
    let limits = limits(context.observed, context.desired());
    match limits.surge {
        0 => replace(context, limits.unavailable, changes),
        surge => surge_over(context, surge, changes),
    }
}

fn is_available(context: &Context<'_>, pod: &ObservedPod) -> bool {
    context.observed.is_available(&pod.1, context.now)
}

fn replace(context: &Context<'_>, max_unavailable: usize, changes: &mut Changes) {
    let (mut unavailable, mut candidates) = (0, Vec::new());
    for place in context.places.values().filter(|place| place.fit.should_run || !place.pods.is_empty()) {
        match pair(context, place) {
            Some((None, Some(past))) if is_available(context, past) => candidates.push(past.clone()),
            Some((None, Some(past))) => {
                // It does not serve, so nothing is lost.
                changes.remove.push(past.clone());
                unavailable += 1;
            }
            Some((Some(updated), _)) if is_available(context, updated) => {}
            Some(_) => unavailable += 1,
            None => {}
        }
    }
    let room = max_unavailable.saturating_sub(unavailable);
    changes.remove.extend(candidates.into_iter().take(room));
}

fn surge_over(context: &Context<'_>, max_surge: usize, changes: &mut Changes) {
    let (mut surging, mut candidates) = (0, Vec::new());
    for (node, place) in context.places.iter().filter(|(_, place)| place.fit.should_run) {
        match pair(context, place) {
            Some((None, Some(past))) if is_available(context, past) => candidates.push(node.clone()),
            Some((None, Some(_))) => changes.create.push(node.clone()),
            Some((Some(updated), Some(past))) if is_available(context, updated) => {
                changes.remove.push(past.clone())
            }
            Some((Some(_), Some(_))) => surging += 1,
            _ => {}
        }
    }
    changes.create.extend(candidates.into_iter().take(max_surge.saturating_sub(surging)));
}
