//! Pods that wait for a node, the most important first.
//!
//! A pod that did not fit is stuck until an event that may help; then it backs off, unless nobody else is ready. After
//! an error it backs off in any case.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use machinery::Key;
use tokio::time::Instant;

use crate::PodInfo;
use crate::hint::{self, Event};
use crate::plugin::{Plugin, Plugins};

const BACK_OFF_FIRST: Duration = Duration::from_secs(1);
const BACK_OFF_MAX: Duration = Duration::from_secs(10);

type Rank = (Reverse<i32>, Option<Timestamp>, Key);

/// The pods that wait.
#[derive(Default)]
pub struct Pending {
    pods: HashMap<Key, Waiting>,
    ready: BTreeSet<Rank>,
    /// Woken pods whose back-off is not over; they are ready when nobody else is.
    woken: BTreeSet<(Instant, Rank)>,
    /// Pods that back off after an error.
    failed: BTreeSet<(Instant, Rank)>,
    /// How many stuck pods each plugin turned down.
    stuck: HashMap<Plugin, usize>,
}

struct Waiting {
    info: Arc<PodInfo>,
    attempts: u32,
    plugins: Plugins,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    /// It is being tried.
    Taken,
    Stuck(Instant),
    Woken(Instant),
    Failed(Instant),
}

fn rank(info: &PodInfo) -> Rank {
    (Reverse(info.priority), info.created, info.key.clone())
}

impl Pending {
    /// A pod that has no node came or changed; a change is a reason to try again at once.
    pub fn add(&mut self, info: Arc<PodInfo>) {
        let attempts = self.remove(&info.key).unwrap_or(0);
        self.ready.insert(rank(&info));
        let plugins = Plugins::default();
        self.pods.insert(info.key.clone(), Waiting { info, attempts, plugins, state: State::Ready });
    }

    /// Replaces what is known of a pod, which waits on.
    pub fn refresh(&mut self, info: Arc<PodInfo>) {
        match self.pods.get_mut(&info.key) {
            Some(waiting) if rank(&waiting.info) == rank(&info) => waiting.info = info,
            _ => self.add(info),
        }
    }

    pub fn get(&self, key: &Key) -> Option<&Arc<PodInfo>> {
        self.pods.get(key).map(|waiting| &waiting.info)
    }

    pub fn len(&self) -> usize {
        self.pods.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// Forgets a pod; returns how often it was tried.
    pub fn remove(&mut self, key: &Key) -> Option<u32> {
        let waiting = self.pods.remove(key)?;
        self.leave(&waiting);
        Some(waiting.attempts)
    }

    fn leave(&mut self, waiting: &Waiting) {
        match waiting.state {
            State::Taken => {}
            State::Ready => {
                self.ready.remove(&rank(&waiting.info));
            }
            State::Woken(until) => {
                self.woken.remove(&(until, rank(&waiting.info)));
            }
            State::Failed(until) => {
                self.failed.remove(&(until, rank(&waiting.info)));
            }
            State::Stuck(_) => self.count(waiting.plugins, |count| count.saturating_sub(1)),
        }
    }

    fn count(&mut self, plugins: Plugins, change: impl Fn(usize) -> usize) {
        for plugin in Plugin::ALL.into_iter().filter(|plugin| plugins.contains(*plugin)) {
            let slot = self.stuck.entry(plugin).or_insert(0);
            *slot = change(*slot);
        }
    }

    /// Takes the most important pod that is to be tried; it stays known until removed.
    pub fn pop(&mut self, now: Instant) -> Option<Arc<PodInfo>> {
        for set in [&mut self.woken, &mut self.failed] {
            while set.first().is_some_and(|(until, _)| *until <= now) {
                let Some((_, rank)) = set.pop_first() else { break };
                if let Some(waiting) = self.pods.get_mut(&rank.2) {
                    waiting.state = State::Ready;
                }
                self.ready.insert(rank);
            }
        }
        let rank = self.ready.pop_first().or_else(|| self.woken.pop_first().map(|(_, rank)| rank))?;
        let waiting = self.pods.get_mut(&rank.2)?;
        waiting.state = State::Taken;
        Some(waiting.info.clone())
    }

    /// When a pod that failed is to be tried again.
    pub fn next(&self) -> Option<Instant> {
        self.failed.first().map(|(at, _)| *at)
    }

    /// The pod did not fit because of these plugins.
    pub fn stick(&mut self, key: &Key, plugins: Plugins, now: Instant) {
        let Some(waiting) = self.pods.get_mut(key) else { return };
        waiting.state = State::Stuck(now + back_off(waiting.attempts));
        waiting.attempts += 1;
        waiting.plugins = plugins;
        self.count(plugins, |count| count + 1);
    }

    /// The pod has to be tried again for reasons that are not in the cluster.
    pub fn fail(&mut self, key: &Key, now: Instant) {
        let Some(waiting) = self.pods.get_mut(key) else { return };
        let until = now + back_off(waiting.attempts);
        let entry = (until, rank(&waiting.info));
        waiting.attempts += 1;
        let before = std::mem::replace(&mut waiting.state, State::Failed(until));
        debug_assert!(before == State::Taken || before == State::Ready);
        self.ready.remove(&entry.1);
        self.failed.insert(entry);
    }

    /// Something happened: pods that it may help are tried again.
    pub fn wake(&mut self, event: Event<'_>) {
        let nobody = |plugin: &Plugin| self.stuck.get(plugin).is_none_or(|count| *count == 0);
        if event.concerns().iter().all(nobody) {
            return;
        }
        let mut left: Vec<Plugins> = Vec::new();
        for waiting in self.pods.values_mut() {
            let State::Stuck(until) = waiting.state else { continue };
            if hint::may_help(event, &waiting.info, waiting.plugins) {
                waiting.state = State::Woken(until);
                self.woken.insert((until, rank(&waiting.info)));
                left.push(waiting.plugins);
            }
        }
        left.into_iter().for_each(|plugins| self.count(plugins, |count| count.saturating_sub(1)));
    }
}

fn back_off(attempts: u32) -> Duration {
    BACK_OFF_FIRST.saturating_mul(1 << attempts.min(8)).min(BACK_OFF_MAX)
}

#[cfg(test)]
mod tests;
