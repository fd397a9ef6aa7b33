//! A rolling update: grow the present set and shrink the past ones, within surge and unavailability.

use super::{Observed, Set};

/// A set that gets another size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resize {
    pub name: String,
    pub from: i32,
    pub to: i32,
}

impl Resize {
    pub fn new(set: &Set, to: i32) -> Option<Self> {
        (set.replicas() != to).then(|| Self { name: set.name().to_owned(), from: set.replicas(), to })
    }
}

/// The size of the present set now (`NewRSNewReplicas` upstream). `size` is what it has; 0 when it does not exist.
pub fn present_size(observed: &Observed, size: i32, past: &[Set]) -> i32 {
    let wanted = observed.replicas();
    if observed.is_recreate() {
        return wanted;
    }
    if size >= wanted {
        return wanted;
    }
    let total = size + past.iter().map(Set::replicas).sum::<i32>();
    let room = wanted + observed.max_surge() - total;
    if room <= 0 { size } else { size + room.min(wanted - size) }
}

/// Which past sets shrink now: first what is not available anyway, then what the rest may spare.
pub fn shrink(observed: &Observed, present: Option<&Set>, past: &[Set]) -> Vec<Resize> {
    let total: i32 = past.iter().chain(present).map(Set::replicas).sum();
    let (_, max_unavailable) = observed.fenceposts();
    let min_available = observed.replicas() - max_unavailable;
    let present_unavailable = present.map_or(0, |set| set.replicas() - set.available());
    let may_go = total - min_available - present_unavailable;
    if may_go <= 0 {
        return Vec::new();
    }
    let mut sizes: Vec<i32> = past.iter().map(Set::replicas).collect();
    drop_unavailable(past, &mut sizes, may_go);
    let available: i32 = past.iter().chain(present).map(Set::available).sum();
    drop_available(past, &mut sizes, available - min_available);
    past.iter().zip(sizes).filter_map(|(set, size)| Resize::new(set, size)).collect()
}

fn drop_unavailable(past: &[Set], sizes: &mut [i32], mut may_go: i32) {
    for (set, size) in past.iter().zip(sizes) {
        let drop = (set.replicas() - set.available()).clamp(0, may_go.max(0));
        (*size, may_go) = (*size - drop, may_go - drop);
    }
}

fn drop_available(past: &[Set], sizes: &mut [i32], mut spare: i32) {
    for (_, size) in past.iter().zip(sizes) {
        let drop = (*size).min(spare).max(0);
        (*size, spare) = (*size - drop, spare - drop);
    }
}
