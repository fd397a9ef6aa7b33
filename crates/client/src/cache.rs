//! A live copy of a collection, shared by everybody in the process who reads it.
//!
//! One task lists and watches; readers take `Arc`s out of an ordered map. The cache never polls and never
//! re-lists unless the server says that its history is too old.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use env::{Shutdown, Watermark};
use futures::StreamExt;
use machinery::{Key, Object, Status};
use parking_lot::{Mutex, RwLock};
use tokio::sync::broadcast;

use crate::ordered::Ordered;
use crate::{ListOptions, Resources, WatchEvent, WatchOptions};

/// How many changes a slow subscriber may lag behind before it is told to read the whole cache again. The room for
/// them is taken in advance.
const SUBSCRIBER_BUFFER: usize = 128;
/// The same where much happens at once and reading everything again is long.
const BUSY_SUBSCRIBER_BUFFER: usize = 4096;
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// A change of a cached object.
#[derive(Clone, Debug)]
pub enum CacheEvent {
    Added(Arc<Object>),
    Modified { old: Arc<Object>, new: Arc<Object> },
    Deleted(Arc<Object>),
}

impl CacheEvent {
    /// The newest state that the event knows.
    pub fn object(&self) -> &Arc<Object> {
        match self {
            Self::Added(object) | Self::Deleted(object) | Self::Modified { new: object, .. } => object,
        }
    }
}

/// Derives index keys from an object, e.g. the node of a pod.
pub type IndexFunction = fn(&Object) -> Vec<String>;

/// A live, ordered, indexed copy of a collection. Cheap to clone.
#[derive(Clone)]
pub struct Cache {
    shared: Arc<Shared>,
}

struct Shared {
    resources: Resources,
    options: ListOptions,
    state: RwLock<State>,
    indexes: Vec<(&'static str, IndexFunction)>,
    events: broadcast::Sender<CacheEvent>,
    /// One more than the newest revision seen; 0 before the first list.
    seen: Watermark,
    stale: Mutex<Option<Status>>,
}

#[derive(Default)]
struct State {
    objects: Ordered,
    indexed: BTreeMap<(&'static str, String), Ordered>,
}

impl Cache {
    /// A cache of a collection (restricted by the selectors in `options`); empty until [`Cache::run`] is polled.
    pub fn new(
        resources: Resources,
        options: ListOptions,
        indexes: Vec<(&'static str, IndexFunction)>,
    ) -> Self {
        Self::with_buffer(SUBSCRIBER_BUFFER, resources, options, indexes)
    }

    /// The same for a collection of which thousands of objects may change at once.
    pub fn busy(
        resources: Resources,
        options: ListOptions,
        indexes: Vec<(&'static str, IndexFunction)>,
    ) -> Self {
        Self::with_buffer(BUSY_SUBSCRIBER_BUFFER, resources, options, indexes)
    }

    fn with_buffer(
        buffer: usize,
        resources: Resources,
        options: ListOptions,
        indexes: Vec<(&'static str, IndexFunction)>,
    ) -> Self {
        let shared = Shared {
            resources,
            options,
            state: RwLock::default(),
            indexes,
            events: broadcast::Sender::new(buffer),
            seen: Watermark::new(0),
            stale: Mutex::new(None),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Keeps the cache live until `shutdown`.
    pub async fn run(&self, shutdown: Shutdown) {
        shutdown.run_until_cancelled(self.list_and_watch_forever()).await;
    }

    async fn list_and_watch_forever(&self) {
        let mut wait = RETRY_FIRST;
        loop {
            let status = match self.list_and_watch(&mut wait).await {
                Ok(never) => match never {},
                Err(status) => status,
            };
            if !status.is_expired() {
                tracing::debug!(resource = self.shared.resources.target().resource, %status, "cache lost its watch");
                *self.shared.stale.lock() = Some(status);
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY_MAX);
            }
        }
    }

    async fn list_and_watch(&self, wait: &mut Duration) -> Result<std::convert::Infallible, Status> {
        let list = self.shared.resources.list(&self.shared.options).await?;
        let mut revision = list.revision;
        self.replace(list.items, revision);
        loop {
            let options = WatchOptions {
                label_selector: self.shared.options.label_selector.clone(),
                field_selector: self.shared.options.field_selector.clone(),
                resource_version: revision.to_string(),
                bookmarks: true,
                ..WatchOptions::default()
            };
            let mut stream = self.shared.resources.watch(&options).await?;
            *wait = RETRY_FIRST;
            *self.shared.stale.lock() = None;
            let mut progressed = false;
            while let Some(event) = stream.next().await {
                revision = self.absorb(event?);
                progressed = true;
            }
            if !progressed {
                tokio::time::sleep(*wait).await;
            }
        }
    }

    fn replace(&self, items: Vec<Arc<Object>>, revision: u64) {
        let fresh: BTreeSet<Key> = items.iter().map(|object| object.key()).collect();
        let gone: Vec<_> = {
            let state = self.shared.state.read();
            state.objects.iter().filter(|object| !fresh.contains(&object.key())).cloned().collect()
        };
        for object in gone {
            self.remove(object);
        }
        for object in items {
            self.insert(object);
        }
        self.shared.seen.raise(revision + 1);
    }

    fn absorb(&self, event: WatchEvent) -> u64 {
        let revision = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let revision = object.revision();
                self.insert(object);
                revision
            }
            WatchEvent::Deleted(object) => {
                let revision = object.revision();
                self.remove(object);
                revision
            }
            WatchEvent::Bookmark { revision, .. } => revision,
        };
        self.shared.seen.raise(revision + 1);
        revision
    }

    fn insert(&self, object: Arc<Object>) {
        let old = {
            let mut state = self.shared.state.write();
            let old = state.objects.insert(object.clone());
            if let Some(old) = &old {
                state.unindex(&self.shared.indexes, old);
            }
            state.index(&self.shared.indexes, &object);
            old
        };
        let event = match old {
            None => CacheEvent::Added(object),
            Some(old) if old.revision() == object.revision() => return,
            Some(old) => CacheEvent::Modified { old, new: object },
        };
        // Nobody listening is no error.
        let _receivers = self.shared.events.send(event);
    }

    fn remove(&self, object: Arc<Object>) {
        let mut state = self.shared.state.write();
        if let Some(old) = state.objects.remove(&object) {
            state.unindex(&self.shared.indexes, &old);
            drop(state);
            let _receivers = self.shared.events.send(CacheEvent::Deleted(object));
        }
    }

    /// Waits until the first list is complete.
    pub async fn synced(&self) {
        self.reached(0).await;
    }

    /// Waits until the cache has seen everything up to `revision`: the read-your-writes barrier. Returns only
    /// when an event or bookmark of at least that revision came, so ask only for writes to this collection.
    pub async fn reached(&self, revision: u64) {
        self.shared.seen.reached(revision + 1).await;
    }

    /// The newest revision seen; `None` before the first list.
    pub fn revision(&self) -> Option<u64> {
        self.shared.seen.level().checked_sub(1)
    }

    /// Why the cache has no live watch at present, if so.
    pub fn stale(&self) -> Option<Status> {
        self.shared.stale.lock().clone()
    }

    pub fn get(&self, key: &Key) -> Option<Arc<Object>> {
        self.shared.state.read().objects.get(key).cloned()
    }

    /// All objects in order of their keys.
    pub fn all(&self) -> Vec<Arc<Object>> {
        self.shared.state.read().objects.iter().cloned().collect()
    }

    /// The objects of one namespace.
    pub fn namespace(&self, namespace: &str) -> Vec<Arc<Object>> {
        let state = self.shared.state.read();
        state.objects.namespace(namespace).cloned().collect()
    }

    /// The objects whose index function yields `value`.
    pub fn indexed(&self, index: &'static str, value: &str) -> Vec<Arc<Object>> {
        let state = self.shared.state.read();
        let found = state.indexed.get(&(index, value.to_owned()));
        found.map(|objects| objects.iter().cloned().collect()).unwrap_or_default()
    }

    /// The objects of one namespace whose index function yields `value`.
    pub fn indexed_in(&self, index: &'static str, value: &str, namespace: &str) -> Vec<Arc<Object>> {
        let state = self.shared.state.read();
        let Some(found) = state.indexed.get(&(index, value.to_owned())) else { return Vec::new() };
        found.namespace(namespace).cloned().collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.shared.state.read().objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Changes from now on. A receiver that lags gets `Lagged` and must read [`Cache::all`] again.
    pub fn subscribe(&self) -> broadcast::Receiver<CacheEvent> {
        self.shared.events.subscribe()
    }
}

impl State {
    fn index(&mut self, indexes: &[(&'static str, IndexFunction)], object: &Arc<Object>) {
        for (index, function) in indexes {
            for value in function(object) {
                self.indexed.entry((*index, value)).or_default().insert(object.clone());
            }
        }
    }

    fn unindex(&mut self, indexes: &[(&'static str, IndexFunction)], object: &Object) {
        for (index, function) in indexes {
            for value in function(object) {
                let slot = (*index, value);
                if let Some(objects) = self.indexed.get_mut(&slot) {
                    objects.remove(object);
                    if objects.is_empty() {
                        self.indexed.remove(&slot);
                    }
                }
            }
        }
    }
}
