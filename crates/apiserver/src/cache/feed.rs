//! Takes in the store's stream: one task, helped by those who cannot wait for it.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use env::Shutdown;
use store::{Event, StoreError, Watch};

use super::{Cache, REGISTRY};

/// The store's stream. Its batches are taken and applied under one lock, so in order, whoever does it.
#[derive(Default)]
pub(super) struct Feed {
    watch: Option<Watch>,
    /// What the stream ended with.
    failed: Option<StoreError>,
}

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
            match self.store.watch(REGISTRY, self.applied()).await {
                Ok(watch) => *self.feed.lock() = Feed { watch: Some(watch), failed: None },
                Err(StoreError::Compacted { .. }) => {
                    self.reload().await?;
                    continue;
                }
                Err(error) => return Err(error),
            }
            match poll_fn(|context| self.drain(context)).await {
                StoreError::Lagged => tracing::warn!("the watch cache fell behind the store and resumes"),
                StoreError::Compacted { .. } => self.reload().await?,
                error => return Err(error),
            }
        }
    }

    /// Takes in what comes until the stream fails.
    fn drain(&self, context: &mut Context<'_>) -> Poll<StoreError> {
        let mut feed = self.feed.lock();
        loop {
            if let Some(error) = feed.failed.take() {
                feed.watch = None;
                return Poll::Ready(error);
            }
            let Some(watch) = &mut feed.watch else { return Poll::Ready(StoreError::Closed) };
            match ready!(watch.poll_recv(context)) {
                Some(Ok(events)) => self.apply(&events),
                Some(Err(error)) => feed.failed = Some(error),
                None => feed.failed = Some(StoreError::Closed),
            }
        }
    }

    /// Takes in everything that the store has published by now. A store publishes a revision before it tells of it, so
    /// whoever needs a revision can have it without waiting for the task.
    pub(super) fn catch_up(&self) {
        let mut feed = self.feed.lock();
        while feed.failed.is_none()
            && let Some(watch) = &mut feed.watch
            && let Ok(batch) = watch.try_recv()
        {
            match batch {
                Ok(events) => self.apply(&events),
                // The task is woken by the same message and deals with it.
                Err(error) => feed.failed = Some(error),
            }
        }
    }

    fn apply(&self, events: &Arc<[Event]>) {
        for event in events.iter() {
            if let Some(collection) = self.collection_of_key(&event.key) {
                collection.apply(event);
            }
        }
        if let Some(last) = events.last() {
            self.applied.raise(last.revision);
        }
    }

    async fn reload(&self) -> Result<(), StoreError> {
        tracing::warn!("the watch cache lost the store's history and reads everything again");
        let revision = self.store.revision().await?;
        for collection in self.collections.load().values() {
            collection.reload(self.store.range(&collection.prefix, "", None, 0).await?);
        }
        self.applied.raise(revision);
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
