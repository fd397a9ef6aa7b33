//! The objects below one storage prefix, their history and their watchers.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use machinery::Object;
use parking_lot::RwLock;
use resources::Strategy;
use store::{Event, KeyValue, Range};
use tokio::sync::mpsc;

use super::{Change, Delivery, Entry, EventKind};
use crate::selection::Selection;

/// How many changes are kept for watches that resume.
const HISTORY_MAX: usize = 1024;
/// How many events may wait for a watcher before it is dropped.
const WATCHER_BUFFER: usize = 4096;

/// What the dispatcher sends to a watcher.
pub type Message = (EventKind, Arc<Delivery>);

/// Objects of one kind in the order of their keys.
pub struct Collection {
    pub prefix: String,
    strategy: Arc<dyn Strategy>,
    state: RwLock<State>,
}

struct State {
    entries: BTreeMap<Arc<str>, Arc<Entry>>,
    history: VecDeque<Arc<Change>>,
    /// Every change after this revision is in `history`.
    complete_after: u64,
    /// The newest change (or the revision of loading).
    changed: u64,
    /// The stream's events up to this revision were part of what was loaded.
    loaded_at: u64,
    watchers: Vec<Watcher>,
}

struct Watcher {
    selection: Arc<Selection>,
    sender: mpsc::Sender<Message>,
}

/// A page of a collection at its present state.
pub struct Snapshot {
    pub objects: Vec<Arc<Object>>,
    /// The key with which the next page starts.
    pub next: Option<Arc<str>>,
    /// How many keys of the range follow this page, selectors not considered.
    pub remaining: u64,
    /// The newest change of the collection: the page is its state from this revision on.
    pub changed: u64,
}

/// The history does not reach back far enough; it is complete after this revision.
pub struct TooOld(pub u64);

impl Collection {
    pub(super) fn new(prefix: String, strategy: Arc<dyn Strategy>, range: Range) -> Self {
        let entries =
            range.items.into_iter().filter_map(|item| Some((item.key.clone(), entry(item)?))).collect();
        let state = State {
            entries,
            history: VecDeque::new(),
            complete_after: range.revision,
            changed: range.revision,
            loaded_at: range.revision,
            watchers: Vec::new(),
        };
        Self { prefix, strategy, state: RwLock::new(state) }
    }

    pub fn len(&self) -> usize {
        self.state.read().entries.len()
    }

    /// The revision of the newest change.
    pub fn changed(&self) -> u64 {
        self.state.read().changed
    }

    /// All objects, and the revision of the newest change in them.
    pub fn objects(&self) -> (Vec<Arc<Object>>, u64) {
        let state = self.state.read();
        (state.entries.values().map(|entry| entry.object.clone()).collect(), state.changed)
    }

    pub fn strategy(&self) -> &dyn Strategy {
        &*self.strategy
    }

    /// The object under a key.
    pub fn get(&self, key: &str) -> Option<Arc<Object>> {
        self.state.read().entries.get(key).map(|entry| entry.object.clone())
    }

    /// At most `limit` (0: all) selected objects, not before the key `from`.
    pub fn page(&self, selection: &Selection, from: &str, limit: usize) -> Snapshot {
        let state = self.state.read();
        let start = if from.is_empty() { selection.key_prefix() } else { from };
        let mut range = state
            .entries
            .range::<str, _>((Bound::Included(start), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(selection.key_prefix()));
        let mut objects = Vec::new();
        let mut next = None;
        for (key, entry) in range.by_ref() {
            if !selection.matches(key, entry, &*self.strategy) {
                continue;
            }
            if limit > 0 && objects.len() == limit {
                next = Some(key.clone());
                break;
            }
            objects.push(entry.object.clone());
        }
        let remaining = match next {
            Some(_) => range.count() as u64 + 1,
            None => 0,
        };
        Snapshot { objects, next, remaining, changed: state.changed }
    }

    /// Registers a watcher for everything that comes, together with what it must be sent first: the present objects.
    pub(super) fn subscribe(
        &self,
        selection: &Arc<Selection>,
    ) -> (Vec<Arc<Object>>, mpsc::Receiver<Message>) {
        let objects = |state: &State| {
            let start = selection.key_prefix();
            let range = state.entries.range::<str, _>((Bound::Included(start), Bound::Unbounded));
            range
                .take_while(|(key, _)| key.starts_with(start))
                .filter(|(key, entry)| selection.matches(key, entry, &*self.strategy))
                .map(|(_, entry)| entry.object.clone())
                .collect()
        };
        let mut state = self.state.write();
        (objects(&state), state.register(selection))
    }

    /// Registers a watcher that has seen everything up to `after`, together with what it missed.
    pub(super) fn resume(
        &self,
        selection: &Arc<Selection>,
        after: u64,
    ) -> Result<(Vec<Message>, mpsc::Receiver<Message>), TooOld> {
        let mut state = self.state.write();
        if after < state.complete_after {
            return Err(TooOld(state.complete_after));
        }
        let first = state.history.partition_point(|change| change.revision <= after);
        let missed = state.history.range(first..).filter_map(|change| {
            let kind = selection.judge(change, &*self.strategy)?;
            Some((kind, Arc::new(Delivery::new(change.clone()))))
        });
        let missed = missed.collect();
        Ok((missed, state.register(selection)))
    }

    /// Takes in one event of the store and tells the watchers.
    pub(super) fn apply(&self, event: &Event) {
        let mut state = self.state.write();
        if event.revision <= state.loaded_at {
            return;
        }
        let new = event.new.clone().and_then(entry);
        let old = match &new {
            Some(new) => state.entries.insert(event.key.clone(), new.clone()),
            None => state.entries.remove(&event.key),
        };
        let change = Arc::new(Change::new(event.key.clone(), event.revision, old, new));
        state.changed = event.revision;
        state.remember(change.clone());
        state.dispatch(&change, &*self.strategy);
    }

    /// Forgets history up to `revision`.
    pub(super) fn forget(&self, revision: u64) {
        let mut state = self.state.write();
        while state.history.front().is_some_and(|change| change.revision <= revision) {
            state.history.pop_front();
        }
        state.complete_after = state.complete_after.max(revision);
        state.watchers.retain(|watcher| !watcher.sender.is_closed());
    }

    /// Starts again from a range, after the stream was lost beyond repair. Ends every watch.
    pub(super) fn reload(&self, range: Range) {
        let fresh = Self::new(self.prefix.clone(), self.strategy.clone(), range);
        *self.state.write() = fresh.state.into_inner();
    }
}

impl State {
    fn register(&mut self, selection: &Arc<Selection>) -> mpsc::Receiver<Message> {
        let (sender, receiver) = mpsc::channel(WATCHER_BUFFER);
        self.watchers.push(Watcher { selection: selection.clone(), sender });
        receiver
    }

    fn remember(&mut self, change: Arc<Change>) {
        self.history.push_back(change);
        // Changes of one transaction share a revision and are forgotten together.
        while self.history.len() > HISTORY_MAX {
            if let Some(oldest) = self.history.pop_front() {
                self.complete_after = oldest.revision;
            }
            while self.history.front().is_some_and(|next| next.revision <= self.complete_after) {
                self.history.pop_front();
            }
        }
    }

    fn dispatch(&mut self, change: &Arc<Change>, strategy: &dyn Strategy) {
        let mut delivery = None;
        self.watchers.retain(|watcher| {
            let Some(kind) = watcher.selection.judge(change, strategy) else { return true };
            let delivery = delivery.get_or_insert_with(|| Arc::new(Delivery::new(change.clone())));
            // A full channel is a watcher that does not keep up, a closed one has gone: neither is kept.
            watcher.sender.try_send((kind, delivery.clone())).is_ok()
        });
    }
}

fn entry(item: KeyValue) -> Option<Arc<Entry>> {
    match Object::from_stored(item.value, item.mod_revision) {
        Ok(object) => Some(Arc::new(Entry::new(Arc::new(object)))),
        Err(error) => {
            tracing::error!(key = %item.key, %error, "a stored object cannot be read and is not served");
            None
        }
    }
}
