//! One watch: what it is sent first, then what happens, bookmarks between, an end after a while.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use env::Shutdown;
use machinery::{Object, Status};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

use super::collection::{Message, TooOld};
use super::{Cache, Collection, Delivery, EventKind};
use crate::selection::Selection;

/// How often a quiet watch is told how far it has come, as upstream.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// Where a watch starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the present objects.
    Present,
    /// With what happened after this revision.
    After(u64),
}

/// What a watcher is sent.
pub enum Item {
    /// An object that was there at the start.
    Initial(Arc<Object>),
    Change(EventKind, Arc<Delivery>),
    Bookmark {
        revision: u64,
        initial_events_end: bool,
    },
}

/// A running watch.
pub struct WatchSource {
    cache: Arc<Cache>,
    initial: std::vec::IntoIter<Item>,
    receiver: mpsc::Receiver<Message>,
    sent: u64,
    /// A bookmark that is sent when everything that waits in the channel has been.
    due: Option<u64>,
    deadline: Instant,
    /// For the next bookmark or the deadline. It and what tells of the end live as long as the watch: to make them anew
    /// for every event would cost more than the event.
    timer: Pin<Box<Sleep>>,
    shutdown: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// How a watch behaves besides its start and selection.
pub struct Manner {
    pub bookmarks: bool,
    /// End the initial objects with a marked bookmark.
    pub mark_initial_end: bool,
    pub timeout: Duration,
    pub shutdown: Shutdown,
}

impl WatchSource {
    /// Begins a watch. The cache must have reached the revision that the caller asked for.
    pub fn open(
        cache: &Arc<Cache>,
        collection: &Collection,
        selection: &Arc<Selection>,
        start: Start,
        manner: Manner,
    ) -> Result<Self, Status> {
        // Read before the snapshot: the snapshot holds at least everything up to this revision.
        let revision = cache.applied();
        let (mut initial, receiver) = match start {
            Start::Present => {
                let (objects, receiver) = collection.subscribe(selection);
                (objects.into_iter().map(Item::Initial).collect::<Vec<_>>(), receiver)
            }
            Start::After(after) => {
                let (missed, receiver) =
                    collection.resume(selection, after).map_err(|TooOld(oldest)| too_old(after, oldest))?;
                (missed.into_iter().map(|(kind, delivery)| Item::Change(kind, delivery)).collect(), receiver)
            }
        };
        if manner.mark_initial_end {
            initial.push(Item::Bookmark { revision, initial_events_end: true });
        }
        let now = Instant::now();
        let deadline = now + manner.timeout;
        let first = if manner.bookmarks { deadline.min(now + BOOKMARK_EVERY) } else { deadline };
        Ok(Self {
            cache: cache.clone(),
            initial: initial.into_iter(),
            receiver,
            sent: 0,
            due: None,
            deadline,
            timer: Box::pin(tokio::time::sleep_until(first)),
            shutdown: Box::pin(manner.shutdown.cancelled_owned()),
        })
    }

    /// The next thing to send; `None`: the watch is over.
    pub async fn next(&mut self) -> Option<Item> {
        if let Some(item) = self.initial.next() {
            return Some(self.note(item));
        }
        loop {
            match self.receiver.try_recv() {
                Ok((kind, delivery)) => return Some(self.note(Item::Change(kind, delivery))),
                Err(mpsc::error::TryRecvError::Disconnected) => return None,
                Err(mpsc::error::TryRecvError::Empty) => {}
            }
            if let Some(revision) = self.due.take().filter(|revision| *revision >= self.sent) {
                return Some(Item::Bookmark { revision, initial_events_end: false });
            }
            tokio::select! {
                biased;
                () = &mut self.shutdown => return None,
                message = self.receiver.recv() => {
                    let (kind, delivery) = message?;
                    return Some(self.note(Item::Change(kind, delivery)));
                }
                () = &mut self.timer => {
                    let now = Instant::now();
                    if now >= self.deadline {
                        return None;
                    }
                    self.due = Some(self.cache.applied());
                    self.timer.as_mut().reset(self.deadline.min(now + BOOKMARK_EVERY));
                }
            }
        }
    }

    fn note(&mut self, item: Item) -> Item {
        if let Item::Change(_, delivery) = &item {
            self.sent = delivery.change.revision;
        }
        item
    }
}

/// 410 of a watch whose start is older than the history.
pub fn too_old(asked: u64, oldest: u64) -> Status {
    Status::expired(format!("too old resource version: {asked} ({oldest})"))
}
