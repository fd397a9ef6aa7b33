//! Pods that wait for a node, the most important first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use machinery::Key;
use tokio::time::Instant;

use crate::PodInfo;

const BACK_OFF_FIRST: Duration = Duration::from_secs(1);
const BACK_OFF_MAX: Duration = Duration::from_secs(10);

type Rank = (Reverse<i32>, Option<Timestamp>, Key);

/// Ready pods in order; pods that did not fit wait for the cluster to change, and then for their back-off.
#[derive(Default)]
pub struct Pending {
    pods: BTreeMap<Key, Waiting>,
    ready: BTreeSet<Rank>,
}

struct Waiting {
    info: Arc<PodInfo>,
    attempts: u32,
    /// `None` while ready.
    not_before: Option<Instant>,
}

fn rank(info: &PodInfo) -> Rank {
    (Reverse(info.priority), info.created, info.key.clone())
}

impl Pending {
    /// A pod that has no node came or changed; a change is a reason to try again at once.
    pub fn add(&mut self, info: Arc<PodInfo>) {
        let attempts = self.remove(&info.key).unwrap_or(0);
        self.ready.insert(rank(&info));
        self.pods.insert(info.key.clone(), Waiting { info, attempts, not_before: None });
    }

    /// Forgets a pod; returns how often it was tried.
    pub fn remove(&mut self, key: &Key) -> Option<u32> {
        let waiting = self.pods.remove(key)?;
        self.ready.remove(&rank(&waiting.info));
        Some(waiting.attempts)
    }

    /// Takes the most important ready pod; it stays known until removed.
    pub fn pop(&mut self) -> Option<Arc<PodInfo>> {
        let (_, _, key) = self.ready.pop_first()?;
        self.pods.get(&key).map(|waiting| waiting.info.clone())
    }

    /// The pod did not fit: it waits for [`Pending::wake`].
    pub fn defer(&mut self, key: &Key) {
        if let Some(waiting) = self.pods.get_mut(key) {
            self.ready.remove(&rank(&waiting.info));
            let delay = BACK_OFF_FIRST.saturating_mul(1 << waiting.attempts.min(8)).min(BACK_OFF_MAX);
            waiting.attempts += 1;
            waiting.not_before = Some(Instant::now() + delay);
        }
    }

    /// The pod as it was when it was added.
    pub fn spec(&self, key: &Key) -> Option<&Arc<Pod>> {
        self.pods.get(key).map(|waiting| &waiting.info.spec)
    }

    /// The cluster changed: pods whose back-off is over are ready again. Returns when the next one's ends.
    pub fn wake(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let mut next = None;
        for waiting in self.pods.values_mut() {
            match waiting.not_before {
                Some(at) if at <= now => {
                    waiting.not_before = None;
                    self.ready.insert(rank(&waiting.info));
                }
                Some(at) => next = Some(next.map_or(at, |next: Instant| next.min(at))),
                None => {}
            }
        }
        next
    }
}
