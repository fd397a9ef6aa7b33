//! What the cache holds and hands out: objects with their selectable fields, changes, and encodings made once.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use machinery::Object;
use resources::Strategy;

/// An object with what selectors read of it, computed at most once.
pub struct Entry {
    pub object: Arc<Object>,
    fields: OnceLock<Box<[(&'static str, String)]>>,
}

impl Entry {
    pub fn new(object: Arc<Object>) -> Self {
        Self { object, fields: OnceLock::new() }
    }

    /// The kind's own selectable fields.
    pub fn fields(&self, strategy: &dyn Strategy) -> &[(&'static str, String)] {
        self.fields.get_or_init(|| strategy.fields(&self.object).into_boxed_slice())
    }
}

/// One change of one object.
pub struct Change {
    pub key: Arc<str>,
    pub revision: u64,
    pub old: Option<Arc<Entry>>,
    pub new: Option<Arc<Entry>>,
    /// The old state with the revision of the change.
    gone: OnceLock<Arc<Object>>,
}

impl Change {
    pub fn new(key: Arc<str>, revision: u64, old: Option<Arc<Entry>>, new: Option<Arc<Entry>>) -> Self {
        Self { key, revision, old, new, gone: OnceLock::new() }
    }

    /// The object that a watcher is sent. Deletions carry the last state at the revision of the deletion.
    pub fn object(&self, kind: EventKind) -> Option<Arc<Object>> {
        match kind {
            EventKind::Added | EventKind::Modified => self.new.as_ref().map(|entry| entry.object.clone()),
            EventKind::Deleted => {
                let old = &self.old.as_ref()?.object;
                let gone = self.gone.get_or_init(|| {
                    // The body was read once before, so it can be read again.
                    Object::from_stored(old.stored().clone(), self.revision)
                        .map_or_else(|_| old.clone(), Arc::new)
                });
                Some(gone.clone())
            }
        }
    }
}

/// The type of a watch event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Added,
    Modified,
    Deleted,
}

impl EventKind {
    /// As on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// How an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Protobuf,
}

const KINDS: usize = 3;
const ENCODINGS: usize = 2;

/// A change on its way to watchers; its encodings are shared by all of them and go when the last has written it.
pub struct Delivery {
    pub change: Arc<Change>,
    encoded: [[OnceLock<Bytes>; ENCODINGS]; KINDS],
}

impl Delivery {
    pub fn new(change: Arc<Change>) -> Self {
        Self { change, encoded: Default::default() }
    }

    /// The event in an encoding, made by `encode` when nobody asked before.
    pub fn encoded(&self, kind: EventKind, encoding: Encoding, encode: impl FnOnce() -> Bytes) -> Bytes {
        self.encoded[kind as usize][encoding as usize].get_or_init(encode).clone()
    }
}
