//! watch, with upstream's meaning of its start.

use std::sync::Arc;
use std::time::Duration;

use client::WatchOptions;
use machinery::Status;

use super::Call;
use super::read::parse_revision;
use crate::cache::{Manner, Start, WatchSource};
use crate::core::Core;

/// Watches that name no timeout end after 30 to 60 minutes, spread out.
const TIMEOUT_MIN_S: u64 = 1800;

impl Core {
    /// Begins a watch of a collection (or, with a name, of one object).
    pub async fn watch(&self, call: &Call, options: &WatchOptions) -> Result<WatchSource, Status> {
        let selection = Arc::new(self.selection(call, &options.label_selector, &options.field_selector)?);
        let start = self.start_of(options).await?;
        let collection = self.cache.collection(&call.row.storage_prefix)?;
        let manner = Manner {
            bookmarks: options.bookmarks,
            mark_initial_end: options.send_initial_events && options.bookmarks,
            timeout: self.watch_timeout(options.timeout_seconds),
            shutdown: self.shutdown.clone(),
        };
        WatchSource::open(&self.cache, &collection, &selection, start, manner)
    }

    async fn start_of(&self, options: &WatchOptions) -> Result<Start, Status> {
        let revision = match options.resource_version.as_str() {
            "" => {
                // The most recent state: whoever wrote before must find it in the watch.
                self.cache.settle().await?;
                0
            }
            text => parse_revision(text)?,
        };
        if revision == 0 {
            return Ok(Start::Present);
        }
        self.cache.wait(revision).await?;
        Ok(if options.send_initial_events { Start::Present } else { Start::After(revision) })
    }

    fn watch_timeout(&self, asked_s: u64) -> Duration {
        match asked_s {
            0 => Duration::from_secs(TIMEOUT_MIN_S + self.env.random_u64() % TIMEOUT_MIN_S),
            seconds => Duration::from_secs(seconds),
        }
    }
}
