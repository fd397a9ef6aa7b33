//! The state in memory: live keys in order, the history since the last compaction, and leases.
//!
//! Nothing here waits, reads a clock or touches a disk. A change is first staged as [`Changes`] and becomes part
//! of the state only after an engine made it durable.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::{Event, KeyValue, LeaseId, Range, Revision, StoreError};

/// The revision of a store to which nothing was ever written.
pub const EMPTY_REVISION: Revision = 1;

/// A live key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub pair: KeyValue,
    pub lease: Option<LeaseId>,
}

/// A lease as it is kept on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRecord {
    pub id: LeaseId,
    pub ttl: Duration,
}

/// What an engine has to make durable, as one unit.
#[derive(Debug, Default)]
pub struct Changes {
    /// The revision afterwards.
    pub revision: Revision,
    /// The last state of every key that was written; `None` for deleted ones.
    pub keys: BTreeMap<Arc<str>, Option<Entry>>,
    /// The events, one batch per revision, in order.
    pub batches: Vec<Arc<[Event]>>,
    pub granted: Option<LeaseRecord>,
    pub revoked: Vec<LeaseId>,
}

impl Changes {
    /// Whether there is nothing to make durable.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.granted.is_none() && self.revoked.is_empty()
    }
}

/// Everything that was durable when a store was opened, or that a snapshot holds.
#[derive(Debug, Default)]
pub struct Loaded {
    pub revision: Revision,
    pub entries: Vec<Entry>,
    pub leases: Vec<LeaseRecord>,
    /// Greater than every lease that was ever granted.
    pub next_lease: LeaseId,
}

impl Loaded {
    pub fn empty() -> Self {
        Self { revision: EMPTY_REVISION, next_lease: 1, ..Self::default() }
    }
}

/// How much history is kept without an explicit compaction.
#[derive(Clone, Copy, Debug)]
pub struct HistoryLimit {
    pub events: usize,
    /// Bytes of replaced and deleted values.
    pub bytes: usize,
}

#[derive(Debug)]
struct Lease {
    ttl: Duration,
    deadline: Instant,
    keys: BTreeSet<Arc<str>>,
}

/// The whole state.
#[derive(Debug)]
pub struct State {
    entries: BTreeMap<Arc<str>, Entry>,
    revision: Revision,
    /// History up to and including this revision is forgotten.
    compacted: Revision,
    history: VecDeque<Arc<[Event]>>,
    history_events: usize,
    history_bytes: usize,
    limit: HistoryLimit,
    leases: BTreeMap<LeaseId, Lease>,
    deadlines: BTreeSet<(Instant, LeaseId)>,
    next_lease: LeaseId,
}

impl State {
    /// The state at the end of `loaded`'s history, which itself is not kept; leases start at `now`.
    pub fn new(loaded: Loaded, limit: HistoryLimit, now: Instant) -> Self {
        let mut state = Self {
            entries: BTreeMap::new(),
            revision: loaded.revision,
            compacted: loaded.revision,
            history: VecDeque::new(),
            history_events: 0,
            history_bytes: 0,
            limit,
            leases: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            next_lease: loaded.next_lease,
        };
        for lease in loaded.leases {
            state.add_lease(lease, now);
        }
        for entry in loaded.entries {
            state.attach(&entry);
            state.entries.insert(entry.pair.key.clone(), entry);
        }
        state
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// A copy of everything live; values are shared.
    pub fn dump(&self) -> Loaded {
        let record = |(id, lease): (&LeaseId, &Lease)| LeaseRecord { id: *id, ttl: lease.ttl };
        Loaded {
            revision: self.revision,
            entries: self.entries.values().cloned().collect(),
            leases: self.leases.iter().map(record).collect(),
            next_lease: self.next_lease,
        }
    }

    /// Whether history after `revision` is complete.
    pub fn check_history(&self, revision: Revision) -> Result<(), StoreError> {
        if revision > self.revision {
            return Err(StoreError::Future { asked: revision, current: self.revision });
        }
        if revision < self.compacted {
            return Err(StoreError::Compacted { oldest: self.compacted });
        }
        Ok(())
    }

    /// See [`crate::Store::range`].
    pub fn range(
        &self,
        prefix: &str,
        from: &str,
        at: Option<Revision>,
        limit: usize,
    ) -> Result<Range, StoreError> {
        let at = at.unwrap_or(self.revision);
        self.check_history(at)?;
        let limit = if limit == 0 { usize::MAX } else { limit };
        let start = from.max(prefix);
        let live = self.live_from(start, prefix).map(|entry| &entry.pair);
        let (items, remaining) = if at == self.revision {
            page(live, limit)
        } else {
            let past = self.differences(start, prefix, at);
            page(merge(live, past), limit)
        };
        Ok(Range { items, revision: at, remaining })
    }

    fn live_from<'a>(&'a self, start: &str, prefix: &'a str) -> impl Iterator<Item = &'a Entry> {
        let bounds = (Bound::Included(start), Bound::Unbounded);
        self.entries
            .range::<str, _>(bounds)
            .map(|(_, entry)| entry)
            .take_while(move |e| e.pair.key.starts_with(prefix))
    }

    /// The keys that changed after `at`, as they were at `at`.
    fn differences(&self, start: &str, prefix: &str, at: Revision) -> BTreeMap<&str, Option<&KeyValue>> {
        let mut past = BTreeMap::new();
        for event in self.batches_after(at).flat_map(|batch| batch.iter()) {
            if event.key.starts_with(prefix) && &*event.key >= start {
                past.entry(&*event.key).or_insert(event.old.as_ref());
            }
        }
        past
    }

    fn batches_after(&self, revision: Revision) -> impl Iterator<Item = &Arc<[Event]>> {
        let first = self.history.partition_point(|batch| batch_revision(batch) <= revision);
        self.history.range(first..)
    }

    /// The events under `prefix` after `revision`, one batch per revision.
    pub fn events_after(&self, prefix: &str, revision: Revision) -> Result<Vec<Arc<[Event]>>, StoreError> {
        self.check_history(revision)?;
        Ok(self.batches_after(revision).filter_map(|batch| filter_batch(batch, prefix)).collect())
    }

    /// Takes over what has become durable.
    pub fn apply(&mut self, changes: Changes, now: Instant) {
        for (key, entry) in changes.keys {
            self.detach(&key);
            match entry {
                None => drop(self.entries.remove(&key)),
                Some(entry) => {
                    self.attach(&entry);
                    self.entries.insert(key, entry);
                }
            }
        }
        for lease in changes.revoked {
            if let Some(gone) = self.leases.remove(&lease) {
                self.deadlines.remove(&(gone.deadline, lease));
            }
        }
        if let Some(lease) = changes.granted {
            self.next_lease = self.next_lease.max(lease.id + 1);
            self.add_lease(lease, now);
        }
        for batch in changes.batches {
            self.history_events += batch.len();
            self.history_bytes += old_bytes(&batch);
            self.history.push_back(batch);
        }
        self.revision = changes.revision;
        while self.history_events > self.limit.events || self.history_bytes > self.limit.bytes {
            self.forget_oldest();
        }
    }

    /// Forgets history up to and including `revision`.
    pub fn compact(&mut self, revision: Revision) -> Result<(), StoreError> {
        if revision > self.revision {
            return Err(StoreError::Future { asked: revision, current: self.revision });
        }
        while self.history.front().is_some_and(|batch| batch_revision(batch) <= revision) {
            self.forget_oldest();
        }
        self.compacted = self.compacted.max(revision);
        Ok(())
    }

    fn forget_oldest(&mut self) {
        if let Some(batch) = self.history.pop_front() {
            self.history_events -= batch.len();
            self.history_bytes -= old_bytes(&batch);
            self.compacted = batch_revision(&batch);
        }
    }

    pub fn next_lease(&self) -> LeaseId {
        self.next_lease
    }

    pub fn has_lease(&self, lease: LeaseId) -> bool {
        self.leases.contains_key(&lease)
    }

    /// The keys that a lease holds.
    pub fn lease_keys(&self, lease: LeaseId) -> Option<&BTreeSet<Arc<str>>> {
        self.leases.get(&lease).map(|lease| &lease.keys)
    }

    /// When the first lease expires.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// The leases whose deadline has come.
    pub fn expired(&self, now: Instant) -> Vec<LeaseId> {
        self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now).map(|(_, lease)| *lease).collect()
    }

    /// Moves a lease's deadline to `now` plus its time to live.
    pub fn keep_alive(&mut self, lease: LeaseId, now: Instant) -> Result<(), StoreError> {
        let found = self.leases.get_mut(&lease).ok_or(StoreError::NoLease(lease))?;
        self.deadlines.remove(&(found.deadline, lease));
        found.deadline = now + found.ttl;
        self.deadlines.insert((found.deadline, lease));
        Ok(())
    }

    fn add_lease(&mut self, lease: LeaseRecord, now: Instant) {
        let deadline = now + lease.ttl;
        self.deadlines.insert((deadline, lease.id));
        self.leases.insert(lease.id, Lease { ttl: lease.ttl, deadline, keys: BTreeSet::new() });
    }

    fn attach(&mut self, entry: &Entry) {
        if let Some(lease) = entry.lease.and_then(|lease| self.leases.get_mut(&lease)) {
            lease.keys.insert(entry.pair.key.clone());
        }
    }

    fn detach(&mut self, key: &str) {
        let lease = self.entries.get(key).and_then(|entry| entry.lease);
        if let Some(lease) = lease.and_then(|lease| self.leases.get_mut(&lease)) {
            lease.keys.remove(key);
        }
    }
}

/// Batches are never empty: they are made of the events of a revision.
pub fn batch_revision(batch: &[Event]) -> Revision {
    batch.first().map_or(0, |event| event.revision)
}

/// The part of a batch under `prefix`, shared when that is all of it.
pub fn filter_batch(batch: &Arc<[Event]>, prefix: &str) -> Option<Arc<[Event]>> {
    let matches = batch.iter().filter(|event| event.key.starts_with(prefix)).count();
    match matches {
        0 => None,
        all if all == batch.len() => Some(batch.clone()),
        _ => Some(batch.iter().filter(|event| event.key.starts_with(prefix)).cloned().collect()),
    }
}

fn old_bytes(batch: &[Event]) -> usize {
    batch.iter().filter_map(|event| event.old.as_ref()).map(|old| old.value.len()).sum()
}

fn page<'a>(mut pairs: impl Iterator<Item = &'a KeyValue>, limit: usize) -> (Vec<KeyValue>, u64) {
    let items = pairs.by_ref().take(limit).cloned().collect();
    (items, pairs.count() as u64)
}

/// The live pairs with those of `past` in place of, or instead of, their present state; both are in order.
fn merge<'a>(
    live: impl Iterator<Item = &'a KeyValue>,
    past: BTreeMap<&'a str, Option<&'a KeyValue>>,
) -> impl Iterator<Item = &'a KeyValue> {
    let mut live = live.peekable();
    let mut past = past.into_iter().peekable();
    std::iter::from_fn(move || {
        loop {
            let take_past = match (live.peek(), past.peek()) {
                (None, None) => return None,
                (Some(_), None) => false,
                (None, Some(_)) => true,
                (Some(live), Some((key, _))) => **key <= *live.key,
            };
            if !take_past {
                return live.next();
            }
            let (key, old) = past.next()?;
            live.next_if(|pair| *pair.key == *key);
            if old.is_some() {
                return old;
            }
        }
    })
}
