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

use crate::Shared;
use crate::step::{PodView, Step, step};

/// Queues side by side, so that many pods are written at once.
const QUEUES: u64 = 16;
/// The first pod address: RFC 6598's range.
const ADDRESSES: u32 = 0x6440_0000;

/// Works on pods by key.
struct Pods {
    shared: Arc<Shared>,
    addresses: Arc<AtomicU32>,
}

type Queues = Vec<Arc<Queue<Key>>>;

pub async fn run(shared: Arc<Shared>, shutdown: Shutdown) {
    let queues: Queues = (0..QUEUES).map(|_| Arc::default()).collect();
    let addresses = Arc::new(AtomicU32::new(ADDRESSES));
    let mut tasks = JoinSet::new();
    for queue in &queues {
        let pods = Arc::new(Pods { shared: shared.clone(), addresses: addresses.clone() });
        tasks.spawn(reconcile::run_queue("fake nodes", queue.clone(), pods, shutdown.clone()));
    }
    shutdown.run_until_cancelled(feed(&shared, &queues)).await;
    while tasks.join_next().await.is_some() {}
}

async fn feed(shared: &Shared, queues: &Queues) {
    let mut events = shared.pods.subscribe();
    shared.pods.synced().await;
    let Some(mut mended) = shared.links.mended() else { return };
    let all = |is_wanted: &dyn Fn(usize) -> bool| {
        let pods = shared.pods.all();
        let wanted = pods.iter().filter(|pod| node_of(shared, pod).is_some_and(is_wanted));
        wanted.for_each(|pod| add(queues, pod));
    };
    all(&|_| true);
    loop {
        tokio::select! {
            biased;
            node = mended.recv() => match node {
                Some(node) => all(&|of| of == node),
                None => return,
            },
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
    let view = PodView::read(pod)?;
    shared.config.index(view.spec.node_name.as_deref()?)
}

#[async_trait]
impl Reconcile<Key> for Pods {
    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Status> {
        let shared = &self.shared;
        let look = || {
            let pod = shared.pods.get(key)?;
            let view = PodView::read(&pod)?;
            let node = shared.config.index(view.spec.node_name.as_deref()?)?;
            Some((pod, view, node))
        };
        let Some((_, _, node)) = look() else { return Ok(None) };
        if !shared.links.pass(node).await {
            // Mending the link brings it back.
            return Ok(None);
        }
        let Some((pod, view, node)) = look() else { return Ok(None) };
        let pods = shared.client.namespaced::<Pod>(&key.namespace);
        let result = match step(&pod, &view, node, || self.next_address(), shared.env.now()) {
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
    fn next_address(&self) -> String {
        std::net::Ipv4Addr::from(self.addresses.fetch_add(1, Ordering::Relaxed)).to_string()
    }
}

fn at_once(pod: &Object) -> DeleteOptions {
    DeleteOptions {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: Some(pod.meta().uid.clone()), resource_version: None }),
        ..DeleteOptions::default()
    }
}
