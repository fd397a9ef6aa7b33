//! What a store promises, whatever engine stands behind it.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

/// A position in the total order of writes. The first write of a new store is revision 2, as in etcd: an empty
/// store is at 1, so that 0 can mean "absent" and "unset".
pub type Revision = u64;

/// A lease; what is attached to it is deleted when it expires.
pub type LeaseId = u64;

/// A key with its value at some revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Arc<str>,
    pub value: Bytes,
    pub create_revision: Revision,
    pub mod_revision: Revision,
}

/// A condition of a transaction: the key was last written at `mod_revision`; 0: it does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    pub key: Arc<str>,
    pub mod_revision: Revision,
}

/// A write. All writes of one transaction share one revision; a key may occur once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Put { key: Arc<str>, value: Bytes, lease: Option<LeaseId> },
    Delete { key: Arc<str> },
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Durable at this revision.
    Committed(Revision),
    /// A comparison failed; nothing was written. The present state of the first key that did not match.
    Mismatch(Option<KeyValue>),
}

/// The answer to a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub items: Vec<KeyValue>,
    /// The revision at which the range was read.
    pub revision: Revision,
    /// How many keys of the range follow the last item.
    pub remaining: u64,
}

/// One change, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub key: Arc<str>,
    /// `None` for a delete.
    pub new: Option<KeyValue>,
    /// The state before; `None` for a create.
    pub old: Option<KeyValue>,
    /// The revision of this change, also for deletes.
    pub revision: Revision,
}

/// Events after a revision, in order, each once. Events of one revision come in one batch, never split.
pub type Watch = mpsc::Receiver<Result<Arc<[Event]>, StoreError>>;

/// Why the store did not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The history up to this revision is gone.
    #[error("the revision has been compacted; the oldest that is kept is {oldest}")]
    Compacted { oldest: Revision },
    /// The revision has not been reached.
    #[error("revision {asked} is in the future; the store is at {current}")]
    Future { asked: Revision, current: Revision },
    #[error(
        "the data directory was written by a newer version (format {found}, this version knows {known}); use that version"
    )]
    NewerFormat { found: u32, known: u32 },
    #[error("the store is damaged: {0}")]
    Damaged(String),
    #[error("no space left for the store: {0}")]
    Full(String),
    #[error("no such lease: {0}")]
    NoLease(LeaseId),
    /// A watcher did not keep up.
    #[error("the watcher fell behind and was dropped")]
    Lagged,
    /// Another process holds the data directory.
    #[error("the data directory {0} is in use by another process")]
    InUse(String),
    #[error("the transaction writes the key {0} twice")]
    DuplicateKey(String),
    #[error("the store is closed")]
    Closed,
    #[error("{what}: {cause}")]
    Io { what: String, cause: String },
}

/// The store.
#[async_trait]
pub trait Store: Send + Sync {
    /// Applies all of `ops` if all of `compare` hold. When it returns `Committed`, the write is durable and
    /// visible to every later read; watchers see it in the order of revisions.
    async fn txn(&self, compare: Vec<Compare>, ops: Vec<Op>) -> Result<Outcome, StoreError>;
    async fn get(&self, key: &str) -> Result<Option<KeyValue>, StoreError>;
    /// Keys that start with `prefix`, not before `from` (a full key; empty for the first), at revision `at`
    /// (`None`: now), at most `limit` (0: all).
    async fn range(
        &self,
        prefix: &str,
        from: &str,
        at: Option<Revision>,
        limit: usize,
    ) -> Result<Range, StoreError>;
    /// Every event of keys under `prefix` with a revision greater than `after`.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError>;
    /// The newest durable revision.
    async fn revision(&self) -> Result<Revision, StoreError>;
    /// Forgets history up to and including `revision`; live keys stay.
    async fn compact(&self, revision: Revision) -> Result<(), StoreError>;
    /// A lease that expires `ttl` after the last keep-alive; expiry deletes its keys as one revision. When a
    /// store is opened again, its leases start over with their whole `ttl`.
    async fn grant_lease(&self, ttl: std::time::Duration) -> Result<LeaseId, StoreError>;
    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError>;
    /// Deletes the lease and its keys at once.
    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError>;
    /// Writes the present state to a new file at `path`, which appears complete or not at all, and tells the
    /// revision it holds. [`crate::restore`] makes a data directory of it.
    async fn snapshot(&self, path: &Path) -> Result<Revision, StoreError>;
    /// Writes the same to a stream, which whoever reads it checks by its checksum; see [`crate::Draft`].
    async fn snapshot_to(&self, out: Box<dyn std::io::Write + Send>) -> Result<Revision, StoreError>;
    /// Leaves everything on disk as the next start reads it fastest, and writes no more: writes that come later are
    /// answered [`StoreError::Closed`]. Who does not call it loses nothing.
    async fn close(&self) -> Result<(), StoreError>;
}
