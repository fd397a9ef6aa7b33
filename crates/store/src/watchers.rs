//! Who watches which prefix.
//!
//! An event is looked up once per distinct length of prefix, so its cost does not depend on how many watch
//! something else.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::state::filter_batch;
use crate::{Event, StoreError, Watch};

/// How many revisions a watcher may be behind before it is dropped.
pub const WATCH_BUFFER: usize = 1024;

type Sender = mpsc::Sender<Result<Arc<[Event]>, StoreError>>;

/// The open watches.
#[derive(Debug, Default)]
pub struct Watchers {
    by_prefix: HashMap<Arc<str>, Vec<Sender>>,
    /// How many prefixes there are of each length.
    lengths: BTreeMap<usize, usize>,
}

impl Watchers {
    /// A watch that first yields `backlog`.
    pub fn add(&mut self, prefix: &str, backlog: Vec<Arc<[Event]>>) -> Watch {
        // The last slot is reserved for the news that the watcher fell behind.
        let (sender, receiver) = mpsc::channel(backlog.len() + WATCH_BUFFER + 1);
        for batch in backlog {
            sender.try_send(Ok(batch)).expect("the channel was made to hold the backlog");
        }
        if let Some(senders) = self.by_prefix.get_mut(prefix) {
            senders.retain(|sender| !sender.is_closed());
            senders.push(sender);
        } else {
            *self.lengths.entry(prefix.len()).or_default() += 1;
            self.by_prefix.insert(Arc::from(prefix), vec![sender]);
        }
        receiver
    }

    /// Hands a batch to everybody who watches one of its keys.
    pub fn publish(&mut self, batch: &Arc<[Event]>) {
        for prefix in self.matching(batch) {
            let Some(part) = filter_batch(batch, &prefix) else { continue };
            if let Some(senders) = self.by_prefix.get_mut(&prefix) {
                senders.retain(|sender| deliver(sender, &part));
                if senders.is_empty() {
                    self.forget(&prefix);
                }
            }
        }
    }

    fn matching(&self, batch: &[Event]) -> Vec<Arc<str>> {
        let mut found: Vec<Arc<str>> = Vec::new();
        for event in batch {
            for length in self.lengths.keys() {
                let known = event.key.get(..*length).and_then(|prefix| self.by_prefix.get_key_value(prefix));
                if let Some((prefix, _)) = known
                    && !found.contains(prefix)
                {
                    found.push(prefix.clone());
                }
            }
        }
        found
    }

    fn forget(&mut self, prefix: &str) {
        self.by_prefix.remove(prefix);
        if let Some(count) = self.lengths.get_mut(&prefix.len()) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&prefix.len());
            }
        }
    }
}

/// Whether the watcher stays.
fn deliver(sender: &Sender, batch: &Arc<[Event]>) -> bool {
    if sender.capacity() > 1 {
        return sender.try_send(Ok(batch.clone())).is_ok();
    }
    // Fails only when the watcher has gone away, which is the same to us.
    let _gone = sender.try_send(Err(StoreError::Lagged));
    false
}
