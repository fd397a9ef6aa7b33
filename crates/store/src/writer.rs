//! The one writer: judges what waits, has an engine make it durable, shows it to readers and watchers, and only
//! then answers.

use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::stage::Stage;
use crate::state::{Changes, State};
use crate::watchers::Watchers;
use crate::{Compare, LeaseId, Op, Outcome, Revision, StoreError};

/// What readers see.
pub struct Shared {
    pub inner: RwLock<Inner>,
    /// Told when the first deadline of the leases may have changed.
    pub leases_changed: Notify,
}

pub struct Inner {
    pub state: State,
    pub watchers: Watchers,
}

/// Makes changes durable.
pub trait Engine: Send {
    /// Returns when all of `changes` survives power loss, or an error when none of it does.
    fn persist(&mut self, changes: &Changes) -> Result<(), StoreError>;

    /// Gives back space that is no longer needed.
    fn reclaim(&mut self) -> Result<(), StoreError>;

    /// Brings everything to where the next start reads it; nothing is made durable after that.
    fn close(&mut self) -> Result<(), StoreError>;

    /// Whether the next commit is likely to take less time than waking another thread.
    fn is_quick(&self) -> bool {
        true
    }
}

/// The engine of a store that lives only in memory.
pub struct NoDisk;

impl Engine for NoDisk {
    fn persist(&mut self, _changes: &Changes) -> Result<(), StoreError> {
        Ok(())
    }

    fn reclaim(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn close(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

pub type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the writer is asked to do.
pub enum Command {
    Txn {
        compare: Vec<Compare>,
        ops: Vec<Op>,
        reply: Reply<Outcome>,
    },
    Grant {
        ttl: std::time::Duration,
        reply: Reply<LeaseId>,
    },
    Revoke {
        lease: LeaseId,
        reply: Reply<()>,
    },
    /// Revokes the leases whose deadline is not after `now`.
    Expire {
        now: Instant,
        reply: Reply<()>,
    },
    Compact {
        revision: Revision,
        reply: Reply<()>,
    },
    Close {
        reply: Reply<()>,
    },
}

/// The writer, wherever it runs.
pub struct Writer {
    shared: Arc<Shared>,
    engine: Box<dyn Engine>,
    closed: bool,
}

impl Writer {
    pub fn new(shared: Arc<Shared>, engine: Box<dyn Engine>) -> Self {
        Self { shared, engine, closed: false }
    }

    /// See [`Engine::is_quick`].
    pub fn is_quick(&self) -> bool {
        self.engine.is_quick()
    }

    /// Does all of `commands` in order; neighbouring transactions become durable together.
    pub fn process(&mut self, commands: impl IntoIterator<Item = Command>) {
        let mut group = Vec::new();
        for command in commands {
            match command {
                Command::Txn { compare, ops, reply } => group.push((compare, ops, reply)),
                other => {
                    self.commit_group(std::mem::take(&mut group));
                    self.alone(other);
                }
            }
        }
        self.commit_group(group);
    }

    fn commit_group(&mut self, group: Vec<(Vec<Compare>, Vec<Op>, Reply<Outcome>)>) {
        if group.is_empty() {
            return;
        }
        let mut replies = Vec::with_capacity(group.len());
        let changes = {
            let inner = self.shared.inner.read();
            let mut stage = Stage::new(&inner.state);
            for (compare, ops, reply) in group {
                replies.push((stage.txn(&compare, ops), reply));
            }
            stage.into_changes()
        };
        // Even a refusal may rest on what another transaction of the group has written, so it fails with it.
        let failed = self.commit(changes).err();
        for (outcome, reply) in replies {
            answer(reply, failed.clone().map_or(outcome, Err));
        }
    }

    fn alone(&mut self, command: Command) {
        match command {
            Command::Txn { compare, ops, reply } => self.commit_group(vec![(compare, ops, reply)]),
            Command::Grant { ttl, reply } => answer(reply, self.staged(|stage, _| Ok(stage.grant(ttl)))),
            Command::Revoke { lease, reply } => {
                answer(reply, self.staged(|stage, _| stage.revoke(vec![lease])))
            }
            Command::Expire { now, reply } => {
                answer(reply, self.staged(|stage, state| stage.revoke(state.expired(now))));
            }
            Command::Compact { revision, reply } => answer(reply, self.compact(revision)),
            Command::Close { reply } => {
                self.closed = true;
                answer(reply, self.engine.close());
            }
        }
    }

    fn staged<T>(
        &mut self,
        judge: impl FnOnce(&mut Stage<'_>, &State) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (result, changes) = {
            let inner = self.shared.inner.read();
            let mut stage = Stage::new(&inner.state);
            (judge(&mut stage, &inner.state)?, stage.into_changes())
        };
        self.commit(changes)?;
        self.shared.leases_changed.notify_one();
        Ok(result)
    }

    fn commit(&mut self, changes: Changes) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        if self.closed {
            return Err(StoreError::Closed);
        }
        self.engine.persist(&changes)?;
        let batches = changes.batches.clone();
        let mut inner = self.shared.inner.write();
        inner.state.apply(changes, Instant::now());
        for batch in &batches {
            inner.watchers.publish(batch);
        }
        Ok(())
    }

    fn compact(&mut self, revision: Revision) -> Result<(), StoreError> {
        self.shared.inner.write().state.compact(revision)?;
        self.engine.reclaim()
    }
}

fn answer<T>(reply: Reply<T>, result: Result<T, StoreError>) {
    // Whoever asked may have gone away; what was done stays done.
    let _gone = reply.send(result);
}
