//! A queue of keys that holds each key once, runs no key twice at a time, and can delay keys.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

const BACK_OFF_FIRST: Duration = Duration::from_millis(20);
const BACK_OFF_MAX: Duration = Duration::from_secs(60);

/// A work queue in the sense of `k8s.io/client-go/util/workqueue`.
pub struct Queue<K> {
    state: Mutex<State<K>>,
    changed: Notify,
}

struct State<K> {
    ready: VecDeque<K>,
    waiting: BTreeSet<K>,
    running: BTreeSet<K>,
    delayed: BTreeMap<K, Instant>,
    /// The same in the order of time: there may be a delayed key for each of thousands of nodes.
    due: BTreeSet<(Instant, K)>,
    failures: BTreeMap<K, u32>,
}

impl<K: Ord + Clone> Default for Queue<K> {
    fn default() -> Self {
        let state = State {
            ready: VecDeque::new(),
            waiting: BTreeSet::new(),
            running: BTreeSet::new(),
            delayed: BTreeMap::new(),
            due: BTreeSet::new(),
            failures: BTreeMap::new(),
        };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }
}

impl<K: Ord + Clone> Queue<K> {
    /// Adds a key now. A key that is being worked on comes again when that is done.
    pub fn add(&self, key: K) {
        let mut state = self.state.lock();
        state.undelay(&key);
        state.enqueue(key);
        drop(state);
        self.changed.notify_one();
    }

    /// Adds a key after a while; the earliest of several such times counts.
    pub fn add_after(&self, key: K, delay: Duration) {
        let due = Instant::now() + delay;
        let mut state = self.state.lock();
        if state.delayed.get(&key).is_none_or(|present| due < *present) {
            state.undelay(&key);
            state.delayed.insert(key.clone(), due);
            state.due.insert((due, key));
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Takes the next key, waiting for one. Give it back with [`Queue::done`].
    pub async fn next(&self) -> K {
        loop {
            let changed = self.changed.notified();
            let due = {
                let mut state = self.state.lock();
                state.promote(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.waiting.remove(&key);
                    state.running.insert(key.clone());
                    return key;
                }
                state.due.first().map(|(due, _)| *due)
            };
            match due {
                None => changed.await,
                Some(due) => tokio::select! {
                    biased;
                    () = changed => {}
                    () = tokio::time::sleep_until(due) => {}
                },
            }
        }
    }

    /// The key was worked on; `again` asks for it once more after a delay.
    pub fn done(&self, key: &K, again: Option<Duration>) {
        let mut state = self.state.lock();
        state.failures.remove(key);
        state.finish(key);
        drop(state);
        match again {
            Some(delay) => self.add_after(key.clone(), delay),
            None => self.changed.notify_one(),
        }
    }

    /// Work on the key failed; it comes again after a delay that doubles with each failure in a row.
    pub fn failed(&self, key: &K) {
        let mut state = self.state.lock();
        let failures = state.failures.entry(key.clone()).or_insert(0);
        let delay = BACK_OFF_FIRST.saturating_mul(1 << (*failures).min(16)).min(BACK_OFF_MAX);
        *failures += 1;
        state.finish(key);
        drop(state);
        self.add_after(key.clone(), delay);
    }
}

impl<K: Ord + Clone> State<K> {
    fn enqueue(&mut self, key: K) {
        // A running key only waits; `finish` makes it ready.
        if self.waiting.insert(key.clone()) && !self.running.contains(&key) {
            self.ready.push_back(key);
        }
    }

    fn finish(&mut self, key: &K) {
        self.running.remove(key);
        if self.waiting.contains(key) {
            self.ready.push_back(key.clone());
        }
    }

    fn undelay(&mut self, key: &K) {
        if let Some((key, due)) = self.delayed.remove_entry(key) {
            self.due.remove(&(due, key));
        }
    }

    fn promote(&mut self, now: Instant) {
        while self.due.first().is_some_and(|(due, _)| *due <= now) {
            let Some((_, key)) = self.due.pop_first() else { return };
            self.delayed.remove(&key);
            self.enqueue(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_is_held_once_and_never_runs_twice_at_a_time() {
        let queue = Queue::default();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        assert_eq!(queue.next().await, "b");
        let nothing = tokio::time::timeout(Duration::from_secs(1), queue.next()).await;
        assert!(nothing.is_err(), "a is still being worked on");
        queue.done(&"a", None);
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn delayed_keys_come_when_the_earliest_of_their_times_is_there() {
        let (queue, start) = (Queue::default(), Instant::now());
        let seconds = Duration::from_secs;
        for (key, delay) in [("a", 5), ("b", 3), ("a", 1), ("a", 4), ("c", 2), ("d", 1)] {
            queue.add_after(key, seconds(delay));
        }
        queue.add("c");
        let mut come = Vec::new();
        for _ in 0..4 {
            let key = queue.next().await;
            queue.done(&key, None);
            come.push((key, start.elapsed().as_secs()));
        }
        assert_eq!(come, [("c", 0), ("a", 1), ("d", 1), ("b", 3)]);
        assert!(tokio::time::timeout(seconds(60), queue.next()).await.is_err(), "each came once");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_and_success_forgets_them() {
        let queue = Queue::default();
        queue.add(1);
        let start = Instant::now();
        for _ in 0..4 {
            queue.next().await;
            queue.failed(&1);
        }
        queue.next().await;
        let waited = start.elapsed();
        assert!(waited >= BACK_OFF_FIRST * 15 && waited < BACK_OFF_FIRST * 17, "{waited:?}");
        queue.done(&1, None);
        queue.add(1);
        queue.next().await;
        assert!(start.elapsed() - waited < BACK_OFF_FIRST);
    }
}
