//! Follows the pods of the fake nodes.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use client::{CacheEvent, DeleteOptions, Patch, Preconditions};
use env::Shutdown;
use k8s_openapi::api::core::v1::Pod;
use machinery::{Key, Object, Status};
use reconcile::{Queue, Reconcile};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;

use crate::step::{PodView, Step, step};
use crate::{Shared, body, heart};

/// Queues side by side, so that many pods are written at once.
const QUEUES: u64 = 16;
/// How many addresses a node has for pods.
const ADDRESSES: u32 = 253;

/// Works on pods by key.
struct Pods {
    shared: Arc<Shared>,
    /// How many pods each node has started.
    started: Arc<Vec<AtomicU32>>,
}

type Queues = Vec<Arc<Queue<Key>>>;

pub async fn run(shared: Arc<Shared>, shutdown: Shutdown) {
    let queues: Queues = (0..QUEUES).map(|_| Arc::default()).collect();
    let started: Arc<Vec<AtomicU32>> =
        Arc::new(std::iter::repeat_with(AtomicU32::default).take(shared.config.count).collect());
    let mut tasks = JoinSet::new();
    for queue in &queues {
        let pods = Arc::new(Pods { shared: shared.clone(), started: started.clone() });
        tasks.spawn(reconcile::run_queue("fake nodes", queue.clone(), pods, shutdown.clone()));
    }
    shutdown.run_until_cancelled(feed(&shared, &queues)).await;
    while tasks.join_next().await.is_some() {}
}

async fn feed(shared: &Arc<Shared>, queues: &Queues) {
    let mut events = shared.pods.subscribe();
    shared.pods.synced().await;
    let Some(mut mended) = shared.links.mended() else { return };
    let all = |is_wanted: &dyn Fn(usize) -> bool| {
        let pods = shared.pods.all();
        let wanted = pods.iter().filter(|pod| node_of(shared, pod).is_some_and(is_wanted));
        wanted.for_each(|pod| add(queues, pod));
    };
    all(&|_| true);
    let mut greetings = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            node = mended.recv() => match node {
                // A node that can speak again says first that it is there.
                Some(node) => {
                    greetings.spawn(heart::greet(shared.clone(), node));
                }
                None => return,
            },
            Some(Ok(node)) = greetings.join_next(), if !greetings.is_empty() => all(&|of| of == node),
            event = events.recv() => match event {
                // Each state of a pod comes here; the cheap look comes first.
                Ok(CacheEvent::Deleted(_)) => {}
                Ok(event) => {
                    if node_of(shared, event.object()).is_some() {
                        add(queues, event.object());
                    }
                }
                Err(RecvError::Lagged(_)) => all(&|_| true),
                Err(RecvError::Closed) => return,
            },
        }
    }
}

fn add(queues: &Queues, pod: &Object) {
    let key = pod.key();
    // The default hasher has no random key of its own.
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    let index = usize::try_from(hasher.finish() % QUEUES).unwrap_or(0);
    queues[index].add(key);
}

/// The number of the fake node that a pod is on.
fn node_of(shared: &Shared, pod: &Object) -> Option<usize> {
    shared.config.index(pod.node_name())
}

#[async_trait]
impl Reconcile<Key> for Pods {
    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Status> {
        let shared = &self.shared;
        let look = || shared.pods.get(key).and_then(|pod| Some((node_of(shared, &pod)?, pod)));
        let Some((node, _)) = look() else { return Ok(None) };
        if !shared.links.pass(node).await {
            // Mending the link brings it back.
            return Ok(None);
        }
        let Some((node, pod)) = look() else { return Ok(None) };
        let Some(view) = PodView::read(&pod) else { return Ok(None) };
        let pods = shared.client.namespaced::<Pod>(&key.namespace);
        let result = match step(&pod, &view, node, || self.next_address(node), shared.now(node)) {
            Step::Nothing => Ok(()),
            Step::Write(body) => pods.patch_status(&key.name, Patch::StrategicMerge(body)).await.map(drop),
            Step::Remove => pods.delete(&key.name, &at_once(&pod)).await.map(drop),
        };
        match result {
            // It is gone, or another pod has its name now: an event tells.
            Err(status) if status.is_not_found() || status.is_conflict() => Ok(None),
            other => other.map(|()| None),
        }
    }
}

impl Pods {
    fn next_address(&self, node: usize) -> String {
        let started = self.started.get(node).map_or(0, |started| started.fetch_add(1, Ordering::Relaxed));
        body::pod_address(node, u8::try_from(started % ADDRESSES + 1).unwrap_or(1))
    }
}

fn at_once(pod: &Object) -> DeleteOptions {
    DeleteOptions {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: Some(pod.meta().uid.clone()), resource_version: None }),
        ..DeleteOptions::default()
    }
}
