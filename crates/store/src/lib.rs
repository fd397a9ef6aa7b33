//! The revisioned store: one total order of revisions over keys and values.
//!
//! The current state and a bounded history live in memory; durability is an engine behind it. The store knows
//! nothing of Kubernetes: values are bytes.

mod codec;
pub mod contract;
mod directory;
mod disk;
mod embedded;
mod log;
mod record;
mod snapshot;
mod sqlite;
mod stage;
mod state;
mod watchers;
mod writer;

use std::path::Path;
use std::sync::Arc;

pub use contract::*;
pub use directory::Directory;
pub use embedded::Options;
pub use snapshot::{Draft, restore};

/// A store that is gone when it is dropped. Must be called inside a tokio runtime.
pub fn memory(options: Options) -> Arc<dyn Store> {
    Arc::new(embedded::Embedded::in_memory(options))
}

/// Opens the store in the directory `dir`, which is created if need be and is held exclusively until the store is
/// dropped. Reads the whole state, so it blocks for a moment. Must be called inside a tokio runtime.
pub fn open(dir: &Path, options: Options) -> Result<Arc<dyn Store>, StoreError> {
    let (loaded, engine) = disk::Disk::open(directory::Directory::lock(dir)?, options.quota)?;
    Ok(Arc::new(embedded::Embedded::on_thread(loaded, Box::new(engine), options)?))
}
