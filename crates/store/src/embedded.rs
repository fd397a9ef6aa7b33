//! The store in this process: reads from memory, writes through the writer, leases that expire by themselves.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::state::{HistoryLimit, Loaded, State};
use crate::watchers::Watchers;
use crate::writer::{Command, Engine, Inner, NoDisk, Reply, Shared, Writer};
use crate::{Compare, KeyValue, LeaseId, Op, Outcome, Range, Revision, Store, StoreError, Watch, snapshot};

/// How many commands may wait for the writer.
const QUEUE: usize = 1024;
/// How many commands the writer takes at once.
const GROUP: usize = 256;
/// How long the store waits after leases could not be expired, for instance because the disk is full.
const EXPIRE_RETRY: Duration = Duration::from_secs(5);

/// How a store is opened.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Changes that are kept in memory for watches and old revisions without an explicit compaction.
    pub history_events: usize,
    /// Bytes of replaced values that are kept in memory.
    pub history_bytes: usize,
    /// How many bytes keys and values may take; writes beyond it fail with [`StoreError::Full`].
    pub quota: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self { history_events: 20_000, history_bytes: 16 << 20, quota: None }
    }
}

/// Where the writer is.
enum Route {
    /// Nothing blocks, so whoever writes is the writer.
    Here(Mutex<Writer>),
    /// The thread is the writer of what waits in the queue; when nothing does and the disk is quick, whoever writes is.
    Thread { writer: Arc<Mutex<Writer>>, queue: mpsc::Sender<Command> },
}

impl Route {
    async fn send(&self, command: Command) -> Result<(), StoreError> {
        match self {
            Self::Here(writer) => {
                writer.lock().process([command]);
                Ok(())
            }
            Self::Thread { writer, queue } => {
                if is_empty(queue)
                    && let Some(mut writer) = writer.try_lock()
                    && writer.is_quick()
                {
                    writer.process([command]);
                    return Ok(());
                }
                queue.send(command).await.map_err(|_closed| StoreError::Closed)
            }
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply)).await?;
        answer.await.map_err(|_closed| StoreError::Closed)?
    }
}

fn is_empty<T>(queue: &mpsc::Sender<T>) -> bool {
    queue.capacity() == queue.max_capacity()
}

/// See the module.
pub struct Embedded {
    shared: Arc<Shared>,
    /// `None` only while the store is dropped.
    route: Option<Arc<Route>>,
    timer: AbortHandle,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Embedded {
    /// A store that lives only in memory. Must be called inside a tokio runtime.
    pub fn in_memory(options: Options) -> Self {
        let shared = share(Loaded::empty(), options);
        let writer = Writer::new(shared.clone(), Box::new(NoDisk));
        Self::assemble(shared, Route::Here(Mutex::new(writer)), None)
    }

    /// A store whose writer has a thread of its own, which ends and closes `engine` when the store is dropped.
    /// Must be called inside a tokio runtime.
    pub fn on_thread(loaded: Loaded, engine: Box<dyn Engine>, options: Options) -> Result<Self, StoreError> {
        let shared = share(loaded, options);
        let writer = Arc::new(Mutex::new(Writer::new(shared.clone(), engine)));
        let (queue, waiting) = mpsc::channel(QUEUE);
        let own = writer.clone();
        let run = move || write_all(&own, waiting);
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(run).map_err(|error| {
            StoreError::Io { what: "starting the thread of the store".to_owned(), cause: error.to_string() }
        })?;
        Ok(Self::assemble(shared, Route::Thread { writer, queue }, Some(thread)))
    }

    fn assemble(shared: Arc<Shared>, route: Route, thread: Option<std::thread::JoinHandle<()>>) -> Self {
        let route = Arc::new(route);
        let timer = tokio::spawn(expire_leases(shared.clone(), Arc::downgrade(&route))).abort_handle();
        Self { shared, route: Some(route), timer, thread }
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, StoreError> {
        self.route.as_ref().ok_or(StoreError::Closed)?.ask(command).await
    }
}

/// The thread of the writer, until the store is closed.
fn write_all(writer: &Mutex<Writer>, mut waiting: mpsc::Receiver<Command>) {
    let mut group = Vec::new();
    while waiting.blocking_recv_many(&mut group, GROUP) > 0 {
        let mut writer = writer.lock();
        // What came while another commit was under way becomes durable with the first.
        while group.len() < GROUP
            && let Ok(command) = waiting.try_recv()
        {
            group.push(command);
        }
        writer.process(group.drain(..));
    }
}

fn share(loaded: Loaded, options: Options) -> Arc<Shared> {
    let limit = HistoryLimit { events: options.history_events, bytes: options.history_bytes };
    let state = State::new(loaded, limit, Instant::now());
    let inner = Inner { state, watchers: Watchers::default() };
    Arc::new(Shared { inner: RwLock::new(inner), leases_changed: Notify::new() })
}

async fn expire_leases(shared: Arc<Shared>, route: std::sync::Weak<Route>) {
    loop {
        let changed = shared.leases_changed.notified();
        let deadline = shared.inner.read().state.next_deadline();
        let Some(deadline) = deadline else {
            changed.await;
            continue;
        };
        tokio::select! {
            biased;
            () = changed => continue,
            () = tokio::time::sleep_until(deadline) => {}
        }
        let Some(route) = route.upgrade() else { return };
        let result = route.ask(|reply| Command::Expire { now: Instant::now(), reply }).await;
        drop(route);
        if let Err(error) = result {
            tracing::warn!(%error, "leases could not be expired");
            tokio::time::sleep(EXPIRE_RETRY).await;
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.timer.abort();
        self.route = None;
        // The queue is closed now; the thread does what is left in it, closes the database and releases the
        // directory, so that it can be opened again as soon as the store is gone.
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the store panicked");
        }
    }
}

#[async_trait]
impl Store for Embedded {
    async fn txn(&self, compare: Vec<Compare>, ops: Vec<Op>) -> Result<Outcome, StoreError> {
        self.ask(|reply| Command::Txn { compare, ops, reply }).await
    }

    async fn get(&self, key: &str) -> Result<Option<KeyValue>, StoreError> {
        Ok(self.shared.inner.read().state.get(key).map(|entry| entry.pair.clone()))
    }

    async fn range(
        &self,
        prefix: &str,
        from: &str,
        at: Option<Revision>,
        limit: usize,
    ) -> Result<Range, StoreError> {
        self.shared.inner.read().state.range(prefix, from, at, limit)
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        let mut inner = self.shared.inner.write();
        let backlog = inner.state.events_after(prefix, after)?;
        Ok(inner.watchers.add(prefix, backlog))
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.shared.inner.read().state.revision())
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.ask(|reply| Command::Compact { revision, reply }).await
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.ask(|reply| Command::Grant { ttl, reply }).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.shared.inner.write().state.keep_alive(lease, Instant::now())?;
        self.shared.leases_changed.notify_one();
        Ok(())
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.ask(|reply| Command::Revoke { lease, reply }).await
    }

    async fn snapshot(&self, path: &Path) -> Result<Revision, StoreError> {
        let state = self.shared.inner.read().state.dump();
        let path = path.to_owned();
        let written = tokio::task::spawn_blocking(move || snapshot::write(&state, &path)).await;
        written.unwrap_or(Err(StoreError::Closed))
    }

    async fn snapshot_to(&self, out: Box<dyn std::io::Write + Send>) -> Result<Revision, StoreError> {
        let state = self.shared.inner.read().state.dump();
        let what = "sending a snapshot".to_owned();
        let written =
            tokio::task::spawn_blocking(move || snapshot::write_to(&state, out).map(|()| state.revision));
        match written.await {
            Ok(written) => written.map_err(|error| StoreError::Io { what, cause: error.to_string() }),
            Err(_stopped) => Err(StoreError::Closed),
        }
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.ask(|reply| Command::Close { reply }).await
    }
}
