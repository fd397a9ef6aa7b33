//! Keeps the snapshot live, takes pods off the queue, carries out what was decided.

mod bind;
mod observe;
mod refuse;
mod surroundings;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use client::{Cache, CacheEvent, Caches, Client};
use env::{Env, Shutdown};
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use machinery::Key;
use reconcile::Recorder;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::decision::Round;
use crate::queue::Pending;
use crate::{Decision, PodInfo, Snapshot, pod, schedule, volumes};
use bind::Bound;
use surroundings::Surroundings;

/// The scheduler's name.
pub const NAME: &str = pod::NAME;

/// How many bindings are under way at once: the store commits them in groups.
const BINDINGS: usize = 256;
/// How many other writes are.
const WRITES: usize = 256;
/// How many decisions are made before events are looked at.
const BATCH: usize = 64;

/// The scheduler.
pub struct Scheduler {
    client: Client,
    pods: Cache,
    nodes: Cache,
    namespaces: Cache,
    surroundings: Surroundings,
    recorder: Recorder,
    env: Env,
    snapshot: Snapshot,
    pending: Pending,
    bindings: JoinSet<Bound>,
    /// Status writes under way: a pod is bound after what was written of it before.
    writes: BTreeMap<Key, oneshot::Receiver<()>>,
    /// Status writes and evictions under way.
    telling: JoinSet<()>,
    /// Pods that are being bound: the API does not say so yet.
    assumed: BTreeMap<Key, Arc<PodInfo>>,
    /// Volumes that pods are being bound to.
    taken: BTreeSet<String>,
    /// Where in the order of nodes the next round starts.
    start: usize,
}

/// What the scheduler is told.
struct News {
    pods: Receiver<CacheEvent>,
    nodes: Receiver<CacheEvent>,
    namespaces: Receiver<CacheEvent>,
    storage: Vec<Receiver<CacheEvent>>,
}

/// The collections of which it is told.
#[derive(Clone, Copy)]
enum Of {
    Pods,
    Nodes,
    Namespaces,
    Storage,
}

impl Scheduler {
    pub fn build(caches: &Caches, client: Client, recorder: Recorder, env: Env) -> Self {
        Self {
            client,
            pods: caches.of::<Pod>(),
            nodes: caches.of::<Node>(),
            namespaces: caches.of::<Namespace>(),
            surroundings: Surroundings::new(caches),
            recorder,
            env,
            snapshot: Snapshot::default(),
            pending: Pending::default(),
            bindings: JoinSet::new(),
            writes: BTreeMap::new(),
            telling: JoinSet::new(),
            assumed: BTreeMap::new(),
            taken: BTreeSet::new(),
            start: 0,
        }
    }

    /// Runs until `shutdown`.
    pub async fn run(mut self, shutdown: Shutdown) {
        let mut news = News::subscribe(&self);
        for cache in [&self.namespaces, &self.nodes, &self.pods] {
            cache.synced().await;
        }
        self.surroundings.synced().await;
        self.observe_all();
        while !shutdown.is_cancelled() {
            while let Some(bound) = self.bindings.try_join_next() {
                self.bound(bound);
            }
            while self.telling.try_join_next().is_some() {}
            while let Some((of, event)) = news.take() {
                self.observe(of, event);
            }
            if self.decide(BATCH) {
                // Others have something to do, too.
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                (of, event) = news.next() => self.observe(of, event),
                Some(bound) = self.bindings.join_next(), if !self.bindings.is_empty() => self.bound(bound),
                Some(_) = self.telling.join_next(), if !self.telling.is_empty() => {}
                () = sleep_until(self.pending.next()) => {}
            }
        }
        self.bindings.shutdown().await;
    }

    /// Decides for ready pods; whether there may be more of them.
    fn decide(&mut self, most: usize) -> bool {
        for _ in 0..most {
            if self.bindings.len() >= BINDINGS || self.telling.len() >= WRITES {
                return false;
            }
            let Some(info) = self.pending.pop(Instant::now()) else { return false };
            self.decide_for(info);
        }
        true
    }

    fn decide_for(&mut self, mut info: Arc<PodInfo>) {
        if let Some(wish) = info.wish.as_deref()
            && !wish.volumes.is_empty()
        {
            let needs =
                volumes::needs(info.namespace(), &wish.volumes, &self.surroundings.storage, &self.taken);
            if let Some(wish) = Arc::make_mut(&mut info).wish.as_deref_mut() {
                wish.needs = needs;
            }
        }
        let defaults = self.surroundings.defaults(&info);
        let mut round = Round { start: self.start, tie: self.env.random_u64(), budgets: Vec::new() };
        let (mut decision, next) = schedule(&self.snapshot, &info, &defaults, &round);
        self.start = next;
        if matches!(&decision, Decision::Wait(wait) if wait.preemption.evicts()) {
            // Budgets matter only now, which is rarely.
            round.budgets = self.surroundings.budgets();
            if !round.budgets.is_empty() {
                decision = schedule(&self.snapshot, &info, &defaults, &round).0;
            }
        }
        match decision {
            Decision::Bind { node } => self.bind(info, node),
            Decision::Wait(wait) => self.refuse(info, wait),
        }
    }
}

impl News {
    fn subscribe(scheduler: &Scheduler) -> Self {
        Self {
            pods: scheduler.pods.subscribe(),
            nodes: scheduler.nodes.subscribe(),
            namespaces: scheduler.namespaces.subscribe(),
            storage: scheduler.surroundings.storage.subscribe(),
        }
    }

    /// An event that is there already. `None` for the event: some were missed.
    fn take(&mut self) -> Option<(Of, Option<CacheEvent>)> {
        let take = |of: Of, receiver: &mut Receiver<CacheEvent>| match receiver.try_recv() {
            Ok(event) => Some((of, Some(event))),
            Err(TryRecvError::Lagged(_)) => Some((of, None)),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        };
        take(Of::Namespaces, &mut self.namespaces)
            .or_else(|| take(Of::Nodes, &mut self.nodes))
            .or_else(|| self.storage.iter_mut().find_map(|receiver| take(Of::Storage, receiver)))
            .or_else(|| take(Of::Pods, &mut self.pods))
    }

    /// The next event. `None` for the event: some were missed.
    async fn next(&mut self) -> (Of, Option<CacheEvent>) {
        let [claims, volumes, classes] = self.storage.as_mut_slice() else {
            return std::future::pending().await;
        };
        tokio::select! {
            biased;
            event = receive(&mut self.namespaces) => (Of::Namespaces, event),
            event = receive(&mut self.nodes) => (Of::Nodes, event),
            event = receive(claims) => (Of::Storage, event),
            event = receive(volumes) => (Of::Storage, event),
            event = receive(classes) => (Of::Storage, event),
            event = receive(&mut self.pods) => (Of::Pods, event),
        }
    }
}

async fn receive(receiver: &mut Receiver<CacheEvent>) -> Option<CacheEvent> {
    match receiver.recv().await {
        Ok(event) => Some(event),
        Err(RecvError::Lagged(_)) => None,
        // The caches live as long as the scheduler.
        Err(RecvError::Closed) => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The caches in which claims are looked up.
struct StorageCaches {
    claims: Cache,
    volumes: Cache,
    classes: Cache,
}

impl StorageCaches {
    fn new(caches: &Caches) -> Self {
        Self {
            claims: caches.of::<PersistentVolumeClaim>(),
            volumes: caches.of::<PersistentVolume>(),
            classes: caches.of::<StorageClass>(),
        }
    }

    fn subscribe(&self) -> Vec<Receiver<CacheEvent>> {
        [&self.claims, &self.volumes, &self.classes].map(Cache::subscribe).into()
    }
}

impl volumes::Storage for StorageCaches {
    fn claim(&self, key: &Key) -> Option<Arc<PersistentVolumeClaim>> {
        client::typed(&*self.claims.get(key)?).ok()
    }

    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>> {
        client::typed(&*self.volumes.get(&Key::new("", name))?).ok()
    }

    fn volumes(&self) -> Vec<Arc<PersistentVolume>> {
        self.volumes.all().iter().filter_map(|volume| client::typed(volume).ok()).collect()
    }

    fn class(&self, name: &str) -> Option<Arc<StorageClass>> {
        client::typed(&*self.classes.get(&Key::new("", name))?).ok()
    }
}

#[cfg(test)]
mod tests;
