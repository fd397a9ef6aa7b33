//! Runs controllers: events to keys, keys to plans, failures to back-off.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use client::{Cache, CacheEvent};
use env::{Env, Shutdown};
use jiff::Timestamp;
use machinery::{Key, Object, Status};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;

use crate::{Executor, Plan, Queue};

/// How many keys of one controller are worked on at once.
const WORKERS: usize = 8;

/// Which keys an object of a cache concerns.
pub type KeysOf = Box<dyn Fn(&Object) -> Vec<Key> + Send + Sync>;

/// A cache that a controller observes.
pub struct Input {
    pub cache: Cache,
    pub keys: KeysOf,
}

impl Input {
    /// Each object concerns the key of its own name.
    pub fn own(cache: Cache) -> Self {
        Self::new(cache, |object| vec![object.key()])
    }

    pub fn new(cache: Cache, keys: impl Fn(&Object) -> Vec<Key> + Send + Sync + 'static) -> Self {
        Self { cache, keys: Box::new(keys) }
    }
}

/// A controller whose judgement is a plain function of its caches.
pub trait Controller: Send + Sync + 'static {
    /// Its name in logs and as a field manager, `replicaset-controller`.
    fn name(&self) -> &'static str;
    /// What it observes. The first input's keys are its own.
    fn inputs(&self) -> Vec<Input>;
    /// What is to be done about a key.
    fn plan(&self, key: &Key, now: Timestamp) -> Plan;
    /// What is to be done when carrying out a plan failed, e.g. to show it in a condition. The key is tried again
    /// after a while in any case.
    fn plan_failure(&self, _key: &Key, _now: Timestamp, _failure: &Status) -> Plan {
        Plan::nothing()
    }
}

/// A controller that must ask the API before it can judge.
#[async_trait]
pub trait Reconcile<K>: Send + Sync + 'static {
    /// Works on one key; asks to be called again after a while by returning a delay.
    async fn reconcile(&self, key: &K) -> Result<Option<Duration>, Status>;
}

/// Runs a controller until `shutdown`.
pub async fn run(controller: Arc<dyn Controller>, executor: Executor, env: Env, shutdown: Shutdown) {
    let queue = Arc::new(Queue::default());
    let name = controller.name();
    let mut feeders = JoinSet::new();
    let inputs = controller.inputs();
    for input in &inputs {
        input.cache.synced().await;
    }
    for input in inputs {
        feeders.spawn(feed(input, queue.clone()));
    }
    let planned = Planned { controller, executor, env };
    run_queue(name, queue, Arc::new(planned), shutdown).await;
    feeders.shutdown().await;
}

struct Planned {
    controller: Arc<dyn Controller>,
    executor: Executor,
    env: Env,
}

#[async_trait]
impl Reconcile<Key> for Planned {
    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Status> {
        let plan = self.controller.plan(key, self.env.now());
        let next = plan.next;
        let Err(failure) = self.executor.apply(plan).await else { return Ok(next) };
        if !failure.is_conflict() {
            self.executor.apply(self.controller.plan_failure(key, self.env.now(), &failure)).await?;
        }
        Err(failure)
    }
}

/// Turns the events of a cache into keys, starting with everything that is there.
async fn feed(input: Input, queue: Arc<Queue<Key>>) {
    let mut events = input.cache.subscribe();
    let enqueue = |object: &Object| (input.keys)(object).into_iter().for_each(|key| queue.add(key));
    input.cache.all().iter().for_each(|object| enqueue(object));
    loop {
        match events.recv().await {
            // An object that changes its labels or owner concerns the keys of both states.
            Ok(CacheEvent::Modified { old, new }) => {
                enqueue(&old);
                enqueue(&new);
            }
            Ok(event) => enqueue(event.object()),
            Err(RecvError::Lagged(_)) => input.cache.all().iter().for_each(|object| enqueue(object)),
            Err(RecvError::Closed) => return,
        }
    }
}

/// Works on the keys of a queue, several at a time and each alone, until `shutdown`.
pub async fn run_queue<K>(
    name: &'static str,
    queue: Arc<Queue<K>>,
    reconciler: Arc<dyn Reconcile<K>>,
    shutdown: Shutdown,
) where
    K: Ord + Clone + Send + Sync + std::fmt::Debug + 'static,
{
    let mut workers = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(finished) = workers.join_next(), if !workers.is_empty() => {
                if let Err(error) = finished {
                    tracing::error!(controller = name, %error, "a worker panicked");
                }
            }
            key = queue.next(), if workers.len() < WORKERS => {
                workers.spawn(work(name, queue.clone(), reconciler.clone(), key));
            }
        }
    }
    workers.shutdown().await;
}

async fn work<K>(name: &'static str, queue: Arc<Queue<K>>, reconciler: Arc<dyn Reconcile<K>>, key: K)
where
    K: Ord + Clone + Send + Sync + std::fmt::Debug + 'static,
{
    match reconciler.reconcile(&key).await {
        Ok(again) => queue.done(&key, again),
        Err(status) => {
            tracing::debug!(controller = name, ?key, %status, "will try again");
            queue.failed(&key);
        }
    }
}
