//! The one task that takes in the store's stream.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use env::Shutdown;
use store::{Event, StoreError, Watch};

use super::{Cache, REGISTRY};

impl Cache {
    /// Takes in changes until `shutdown`. An error means that the store can no longer be followed.
    pub async fn run(&self, shutdown: Shutdown) -> Result<(), StoreError> {
        match shutdown.run_until_cancelled(self.follow()).await {
            None => Ok(()),
            Some(Ok(never)) => match never {},
            Some(Err(error)) => Err(error),
        }
    }

    async fn follow(&self) -> Result<std::convert::Infallible, StoreError> {
        loop {
            let watch = match self.store.watch(REGISTRY, self.applied()).await {
                Ok(watch) => watch,
                Err(StoreError::Compacted { .. }) => {
                    self.reload().await?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            match self.drain(watch).await {
                StoreError::Lagged => tracing::warn!("the watch cache fell behind the store and resumes"),
                StoreError::Compacted { .. } => self.reload().await?,
                error => return Err(error),
            }
        }
    }

    async fn drain(&self, mut watch: Watch) -> StoreError {
        while let Some(batch) = watch.recv().await {
            match batch {
                Ok(events) => self.apply(&events),
                Err(error) => return error,
            }
        }
        StoreError::Closed
    }

    fn apply(&self, events: &Arc<[Event]>) {
        for event in events.iter() {
            if let Some(collection) = self.collection_of_key(&event.key) {
                collection.apply(event);
            }
        }
        if let Some(last) = events.last() {
            self.applied.send_modify(|applied| *applied = last.revision.max(*applied));
        }
    }

    async fn reload(&self) -> Result<(), StoreError> {
        tracing::warn!("the watch cache lost the store's history and reads everything again");
        let revision = self.store.revision().await?;
        for collection in self.collections.load().values() {
            collection.reload(self.store.range(&collection.prefix, "", None, 0).await?);
        }
        self.applied.send_modify(|applied| *applied = revision.max(*applied));
        Ok(())
    }

    /// Forgets history up to `revision` here and in the store.
    pub async fn compact(&self, revision: u64) -> Result<(), StoreError> {
        self.store.compact(revision).await?;
        self.compacted.fetch_max(revision, Ordering::Relaxed);
        for collection in self.collections.load().values() {
            collection.forget(revision);
        }
        Ok(())
    }
}
