//! A deployment that is scaled (also in the middle of a rollout, or paused): each set grows or shrinks in proportion.

use super::revision::{DESIRED, MAX};
use super::rolling::Resize;
use super::{Observed, Set};

/// Whether the deployment's size changed since its sets were last sized.
pub fn is_scaling(observed: &Observed, sets: &[Set]) -> bool {
    let desired = |set: &Set| set.annotation(DESIRED).and_then(|text| text.parse::<i32>().ok());
    sets.iter()
        .filter(|set| set.replicas() > 0)
        .any(|set| desired(set).is_some_and(|d| d != observed.replicas()))
}

/// The new sizes of all sets.
pub fn scale(observed: &Observed, present: Option<&Set>, past: &[Set]) -> Vec<Resize> {
    let active: Vec<&Set> = past.iter().chain(present).filter(|set| set.replicas() > 0).collect();
    match active.as_slice() {
        [] => present
            .or(past.last())
            .and_then(|set| Resize::new(set, observed.replicas()))
            .into_iter()
            .collect(),
        [only] => Resize::new(only, observed.replicas()).into_iter().collect(),
        _ if present.is_some_and(|set| is_saturated(observed, set)) => {
            past.iter().filter_map(|set| Resize::new(set, 0)).collect()
        }
        _ if observed.is_recreate() => Vec::new(),
        active => proportional(observed, active),
    }
}

fn is_saturated(observed: &Observed, set: &Set) -> bool {
    let desired = set.annotation(DESIRED).and_then(|text| text.parse::<i32>().ok());
    set.replicas() == observed.replicas()
        && desired == Some(observed.replicas())
        && set.available() == observed.replicas()
}

fn proportional(observed: &Observed, active: &[&Set]) -> Vec<Resize> {
    let total: i32 = active.iter().map(|set| set.replicas()).sum();
    let allowed = if observed.replicas() > 0 { observed.replicas() + observed.max_surge() } else { 0 };
    let change = allowed - total;
    // The largest set first; of equal ones the newest when growing, the oldest when shrinking.
    let mut order: Vec<&Set> = active.to_vec();
    if change > 0 {
        order.reverse();
    }
    order.sort_by_key(|set| std::cmp::Reverse(set.replicas()));
    let mut left = change;
    let mut sizes: Vec<i32> = Vec::new();
    for set in &order {
        let share = share(observed, set, allowed).clamp(left.min(0), left.max(0));
        left -= share;
        sizes.push((set.replicas() + share).max(0));
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + left).max(0);
    }
    order.iter().zip(sizes).filter_map(|(set, size)| Resize::new(set, size)).collect()
}

/// By how much a set changes when the whole goes from its old maximum to `allowed`.
fn share(observed: &Observed, set: &Set, allowed: i32) -> i32 {
    if observed.replicas() == 0 {
        return -set.replicas();
    }
    let old_max = set.annotation(MAX).and_then(|text| text.parse::<i32>().ok()).filter(|max| *max > 0);
    let old_max = f64::from(old_max.unwrap_or(allowed));
    (f64::from(set.replicas()) * f64::from(allowed) / old_max).round() as i32 - set.replicas()
}
