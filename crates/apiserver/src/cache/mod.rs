//! The watch cache: the present objects of every row and a bounded history, fed by one ordered stream of the store.
//!
//! Reads never touch the store except for old revisions. A read that must be recent waits until the stream has
//! reached the store's revision. Watchers are fed under the collection's lock, so they miss nothing and see nothing
//! twice; one that does not keep up is dropped, never waited for.

mod change;
mod collection;
mod feed;
mod watcher;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use env::Watermark;
use machinery::object::ObjectError;
use machinery::status::{Cause, Details};
use machinery::{Object, Status};
use parking_lot::Mutex;
use resources::Table;
use store::{Store, StoreError};

pub use change::{Change, Delivery, Encoding, Entry, EventKind};
pub use collection::Collection;
pub use watcher::{Item, Manner, Start, WatchSource};

/// How long a read waits for the cache to reach a revision, as upstream.
const WAIT_MAX: Duration = Duration::from_secs(3);
/// Everything the API server stores is below this prefix.
pub const REGISTRY: &str = "/registry/";

/// All collections.
pub struct Cache {
    store: Arc<dyn Store>,
    /// By storage prefix. No prefix is the beginning of another.
    collections: ArcSwap<BTreeMap<String, Arc<Collection>>>,
    /// Every change up to this revision is in the collections and on its way to the watchers.
    applied: Watermark,
    /// Lists of revisions before this one are over, whether or not anything changed since.
    compacted: AtomicU64,
    feed: Mutex<feed::Feed>,
    /// Serialises changes of the set of collections.
    loading: tokio::sync::Mutex<()>,
}

impl Cache {
    /// Reads the present state of the rows. [`Cache::run`] must be polled for anything to change afterwards.
    pub async fn load(store: Arc<dyn Store>, table: &Table) -> Result<Arc<Self>, StoreError> {
        let revision = store.revision().await?;
        let cache = Self {
            store,
            collections: ArcSwap::default(),
            applied: Watermark::new(revision),
            compacted: AtomicU64::new(0),
            feed: Mutex::default(),
            loading: tokio::sync::Mutex::new(()),
        };
        cache.add_rows(table).await?;
        Ok(Arc::new(cache))
    }

    /// Loads collections of rows that are new. Rows that went away keep their collection until the next start.
    pub async fn add_rows(&self, table: &Table) -> Result<(), StoreError> {
        let _only_one = self.loading.lock().await;
        let mut collections = BTreeMap::clone(&self.collections.load());
        for row in table.rows() {
            if row.storage_prefix.is_empty() || collections.contains_key(&row.storage_prefix) {
                continue;
            }
            let range = self.store.range(&row.storage_prefix, "", None, 0).await?;
            let collection = Collection::new(row.storage_prefix.clone(), row.strategy.clone(), range);
            collections.insert(row.storage_prefix.clone(), Arc::new(collection));
        }
        self.collections.store(Arc::new(collections));
        Ok(())
    }

    /// The collection of a storage prefix.
    pub fn collection(&self, prefix: &str) -> Result<Arc<Collection>, Status> {
        let found = self.collections.load().get(prefix).cloned();
        found.ok_or_else(|| Status::internal(format!("no collection is stored under {prefix}")))
    }

    /// The store below, for reads of old revisions and for writes.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The revision up to which changes have been taken in.
    pub fn applied(&self) -> u64 {
        self.applied.level()
    }

    /// Fails for a revision whose history was forgotten.
    pub fn check_kept(&self, revision: u64) -> Result<(), StoreError> {
        let oldest = self.compacted.load(Ordering::Relaxed);
        if revision < oldest { Err(StoreError::Compacted { oldest }) } else { Ok(()) }
    }

    /// Waits until every write that was acknowledged before the call is visible; returns the revision.
    pub async fn settle(&self) -> Result<u64, Status> {
        let revision = self.store.revision().await.map_err(|error| store_status(&error))?;
        if self.applied() < revision {
            self.catch_up();
        }
        self.wait(revision).await?;
        Ok(self.applied().max(revision))
    }

    /// Waits until the cache has reached `revision`, but not for ever: a revision of the future is a timeout.
    pub async fn wait(&self, revision: u64) -> Result<(), Status> {
        if self.applied() >= revision {
            return Ok(());
        }
        let reached = tokio::time::timeout(WAIT_MAX, self.applied.reached(revision)).await;
        reached.map_err(|_elapsed| too_large(revision, self.applied()))
    }

    /// The object as which the bytes that a write stored at `revision` are kept, so that they are read once for the
    /// writer and the readers.
    pub fn written(&self, key: &str, body: Bytes, revision: u64) -> Result<Arc<Object>, ObjectError> {
        if self.applied() < revision {
            self.catch_up();
        }
        let kept = self.collection_of_key(key).and_then(|collection| collection.get(key));
        match kept.filter(|object| object.revision() == revision) {
            Some(object) => Ok(object),
            // Another write came since.
            None => Object::from_stored(body, revision).map(Arc::new),
        }
    }

    /// How many objects each collection holds, by prefix.
    pub fn sizes(&self) -> Vec<(String, usize)> {
        self.collections
            .load()
            .iter()
            .map(|(prefix, collection)| (prefix.clone(), collection.len()))
            .collect()
    }

    fn collection_of_key(&self, key: &str) -> Option<Arc<Collection>> {
        let collections = self.collections.load();
        // Prefixes end in a slash and none begins another, so the greatest one not behind the key is the only one.
        let (prefix, collection) =
            collections.range::<str, _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
        key.starts_with(prefix.as_str()).then(|| collection.clone())
    }
}

/// 504 for a revision that the store has not reached.
fn too_large(asked: u64, current: u64) -> Status {
    let mut status = Status::timeout(format!("Too large resource version: {asked}, current: {current}"), 1);
    status.details = Some(Box::new(Details {
        causes: vec![Cause {
            reason: "ResourceVersionTooLarge".to_owned(),
            message: "Too large resource version".to_owned(),
            field: String::new(),
        }],
        retry_after_seconds: 1,
        ..Details::default()
    }));
    status
}

/// What a client is told when the store does not answer.
pub fn store_status(error: &StoreError) -> Status {
    match error {
        StoreError::Compacted { oldest } => Status::expired(format!(
            "The resourceVersion for the provided list is too old. (oldest kept: {oldest})"
        )),
        StoreError::Future { asked, current } => too_large(*asked, *current),
        StoreError::Full(_) => {
            let message = format!("{error}; free some space in the data directory, then try again");
            let mut status = Status::internal(message);
            status.code = 507;
            status
        }
        StoreError::Closed => Status::service_unavailable("the server is shutting down"),
        StoreError::Lagged => Status::too_many_requests("the store is overloaded", 1),
        StoreError::NewerFormat { .. }
        | StoreError::Damaged(_)
        | StoreError::InUse(_)
        | StoreError::DuplicateKey(_)
        | StoreError::NoLease(_)
        | StoreError::Io { .. } => Status::internal(error),
    }
}
