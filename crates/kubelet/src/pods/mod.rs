//! All pods of this node: finds out which there are, gives each a worker, passes on what happens.

pub mod admission;
pub mod executor;
pub mod observe;
pub mod pulling;
pub mod references;
pub mod shared;
pub mod status_writer;
pub mod termination;
pub mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Cache, CacheEvent};
use containers::{PodIdentity, RuntimeEvent};
use env::Shutdown;
use k8s_openapi::api::core::v1::{Node, Pod};
use machinery::Object;
use parking_lot::Mutex;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::machine::{Event, Eviction};
use crate::make::GRACE_SECONDS;
use admission::Claims;
use executor::chain;
use observe::Belongings;
use shared::Shared;
use worker::{Beginning, INBOX, Signal};

/// How long after looking at the runtime failed it is tried again.
const LIST_RETRY: Duration = Duration::from_secs(1);
/// The grace period of pods that nobody remembers.
const UNKNOWN_GRACE_SECONDS: u64 = 30;

#[derive(Clone)]
struct Handle {
    inbox: mpsc::Sender<Signal>,
    name: PodIdentity,
    claims: Claims,
}

/// The pods of this node.
pub struct Pods {
    shared: Arc<Shared>,
    cache: Cache,
    node_labels: BTreeMap<String, String>,
    workers: Mutex<BTreeMap<String, Handle>>,
    tasks: TaskTracker,
}

impl Pods {
    /// `cache` holds the pods of this node.
    pub fn new(shared: Arc<Shared>, cache: Cache, node_labels: BTreeMap<String, String>) -> Arc<Self> {
        Arc::new(Self { shared, cache, node_labels, workers: Mutex::default(), tasks: TaskTracker::new() })
    }

    /// The pods as the API has them.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Looks after pods until `shutdown`; what runs then goes on running.
    pub async fn run(self: Arc<Self>, shutdown: Shutdown) {
        let mut changes = self.cache.subscribe();
        let mut happenings = self.shared.runtime.events();
        let begun = shutdown.run_until_cancelled(async {
            self.cache.synced().await;
            self.begin().await;
        });
        if begun.await.is_none() {
            return;
        }
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                change = changes.recv() => match change {
                    Ok(change) => self.changed(change).await,
                    Err(RecvError::Lagged(_)) => self.compare_all().await,
                    Err(RecvError::Closed) => break,
                },
                happening = happenings.recv() => match happening {
                    Ok(happening) => self.happened(happening).await,
                    Err(RecvError::Lagged(_)) => self.tell_all(|| Signal::Relist).await,
                    Err(RecvError::Closed) => break,
                },
            }
        }
        // Workers end when their inboxes close.
        self.workers.lock().clear();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Adopts what the runtime has, starts what is new, cleans up what nobody wants.
    async fn begin(self: &Arc<Self>) {
        let mut found = loop {
            match observe::all(&self.shared).await {
                Ok(found) => break found,
                Err(error) => tracing::error!(error = chain(&error), "the runtime does not answer"),
            }
            tokio::time::sleep(LIST_RETRY).await;
        };
        for object in self.cache.all() {
            let belongings = found.remove(&object.meta().uid).map(|(_, belongings)| belongings);
            self.start(&object, belongings.unwrap_or_default());
        }
        self.sweep(&found);
        for (identity, belongings) in found.into_values() {
            let this = self.clone();
            self.tasks.spawn(async move { this.remove_orphan(identity, belongings).await });
        }
    }

    /// Removes directories of pods that are neither in the API nor in the runtime.
    fn sweep(&self, orphans: &BTreeMap<String, (PodIdentity, Belongings)>) {
        let known = match self.shared.volumes.known_pods() {
            Ok(known) => known,
            Err(error) => return tracing::warn!(%error, "leftovers of dead pods cannot be listed"),
        };
        let workers = self.workers.lock();
        for uid in known.iter().filter(|uid| !workers.contains_key(*uid) && !orphans.contains_key(*uid)) {
            if let Err(error) = self.shared.volumes.remove_pod(uid) {
                tracing::warn!(%uid, %error, "leftovers of a dead pod not removed");
            }
        }
    }

    async fn remove_orphan(&self, pod: PodIdentity, (sandboxes, containers): Belongings) {
        let grace = sandboxes.iter().find_map(|sandbox| sandbox.config.annotations.get(GRACE_SECONDS));
        let grace = grace.and_then(|text| text.parse().ok()).unwrap_or(UNKNOWN_GRACE_SECONDS);
        let stops = containers.iter().map(|container| {
            self.shared.runtime.stop_container(&container.status.id, Duration::from_secs(grace))
        });
        for stopped in futures::future::join_all(stops).await {
            if let Err(error) = stopped {
                tracing::warn!(pod = %pod.name, error = chain(&error), "orphaned container not stopped");
            }
        }
        for sandbox in &sandboxes {
            if let Err(error) = self.shared.runtime.stop_sandbox(&sandbox.id).await {
                tracing::warn!(pod = %pod.name, error = chain(&error), "orphaned sandbox not stopped");
            }
        }
        if let Err(error) = executor::remove_all(&self.shared, &pod).await {
            tracing::warn!(pod = %pod.name, error, "orphaned pod not removed");
        }
    }

    async fn changed(self: &Arc<Self>, change: CacheEvent) {
        match change {
            CacheEvent::Added(object) => self.start(&object, Belongings::default()),
            CacheEvent::Modified { old, new } if old.meta().uid != new.meta().uid => {
                self.tell(&old.meta().uid, Signal::Event(Event::ObjectGone)).await;
                self.start(&new, Belongings::default());
            }
            CacheEvent::Modified { new, .. } => match client::typed::<Pod>(&new) {
                Ok(pod) => self.tell(&new.meta().uid, Signal::Object(pod)).await,
                Err(error) => tracing::error!(%error, "a pod cannot be read"),
            },
            CacheEvent::Deleted(object) => {
                if let Ok(pod) = client::typed::<Pod>(&object) {
                    self.tell(&object.meta().uid, Signal::Object(pod)).await;
                }
                self.tell(&object.meta().uid, Signal::Event(Event::ObjectGone)).await;
            }
        }
    }

    /// Changes were missed: compares the workers with the cache.
    async fn compare_all(self: &Arc<Self>) {
        let objects = self.cache.all();
        for object in &objects {
            match client::typed::<Pod>(object) {
                Ok(pod) => self.tell(&object.meta().uid, Signal::Object(pod)).await,
                Err(error) => tracing::error!(%error, "a pod cannot be read"),
            }
            self.start(object, Belongings::default());
        }
        let gone: Vec<_> = {
            let workers = self.workers.lock();
            workers.keys().filter(|uid| !objects.iter().any(|o| o.meta().uid == **uid)).cloned().collect()
        };
        for uid in gone {
            self.tell(&uid, Signal::Event(Event::ObjectGone)).await;
        }
    }

    async fn happened(&self, happening: RuntimeEvent) {
        match happening {
            RuntimeEvent::Started { .. } => {}
            RuntimeEvent::Exited { container, pod, .. } => {
                self.tell(&pod.uid, Signal::Ended(container)).await
            }
            RuntimeEvent::SandboxStopped { sandbox, pod } => {
                self.tell(&pod.uid, Signal::Event(Event::SandboxStopped(sandbox))).await;
            }
        }
    }

    /// Gives a pod that has no worker one.
    fn start(self: &Arc<Self>, object: &Object, (sandboxes, containers): Belongings) {
        let pod = match client::typed::<Pod>(object) {
            Ok(pod) => pod,
            Err(error) => return tracing::error!(%error, "a pod cannot be read"),
        };
        let uid = object.meta().uid.clone();
        if self.workers.lock().contains_key(&uid) {
            return;
        }
        let known =
            !sandboxes.is_empty() || pod.status.as_ref().is_some_and(|status| status.start_time.is_some());
        let claims = Claims::of(&pod);
        let rejected = if known { None } else { self.admit(&pod, &claims).err() };
        let claims = if rejected.is_some() { Claims::default() } else { claims };
        let (inbox, receiver) = mpsc::channel(INBOX);
        let name = crate::make::identity(&pod);
        self.workers.lock().insert(uid.clone(), Handle { inbox, name, claims });
        let this = self.clone();
        self.tasks.spawn(async move {
            let rejected = match rejected {
                None if !known => this.selected(&pod).await.err(),
                rejected => rejected,
            };
            let beginning = Beginning { pod, sandboxes, containers, rejected };
            worker::run(this.shared.clone(), beginning, receiver).await;
            this.workers.lock().remove(&uid);
        });
    }

    fn admit(&self, pod: &Pod, claims: &Claims) -> Result<(), (String, String)> {
        let mut room = admission::Room {
            cpu_millis: self.shared.facts.allocatable_cpu_millis,
            memory_bytes: self.shared.facts.allocatable_memory_bytes,
            pods: self.shared.max_pods,
            ..admission::Room::default()
        };
        for handle in self.workers.lock().values().filter(|handle| !self.is_over(&handle.name)) {
            room.take(&handle.claims);
        }
        admission::admit(pod, claims, &room)
    }

    /// Whether the pod may be on this node by its labels. Others than those it was registered with come from
    /// elsewhere, and the scheduler may know of them before this node does: so they are asked for.
    async fn selected(&self, pod: &Pod) -> Result<(), (String, String)> {
        let name = &self.shared.node_name;
        if admission::selected(pod, name, &self.node_labels).is_ok() {
            return Ok(());
        }
        match self.shared.client.cluster::<Node>().get(name).await {
            Ok(node) => admission::selected(pod, name, &node.meta().labels),
            Err(status) => {
                tracing::warn!(%status, "this node's labels cannot be read");
                admission::selected(pod, name, &self.node_labels)
            }
        }
    }

    /// Whether the pod takes nothing any more: it ended, or its object is gone, which is only so when all of it is.
    fn is_over(&self, pod: &PodIdentity) -> bool {
        let object = self.cache.get(&machinery::Key::new(&pod.namespace, &pod.name));
        let Some(object) = object.filter(|object| object.meta().uid == pod.uid) else { return true };
        let typed = client::typed::<Pod>(&object).ok();
        let phase = typed.and_then(|pod| pod.status.as_ref().and_then(|status| status.phase.clone()));
        phase.is_some_and(|phase| matches!(phase.as_str(), "Succeeded" | "Failed"))
    }

    async fn tell(&self, uid: &str, signal: Signal) {
        let handle = self.workers.lock().get(uid).cloned();
        if let Some(handle) = handle {
            // A worker that has just ended needs no telling.
            let _worker_gone = handle.inbox.send(signal).await;
        }
    }

    async fn tell_all(&self, signal: impl Fn() -> Signal) {
        let uids: Vec<_> = self.workers.lock().keys().cloned().collect();
        for uid in uids {
            self.tell(&uid, signal()).await;
        }
    }

    /// Ends a pod because the node needs what it uses.
    pub async fn evict(&self, uid: &str, eviction: Eviction) {
        self.tell(uid, Signal::Event(Event::Evict(eviction))).await;
    }
}

/// Stops all containers and sandboxes of this node, each within `grace`. Records and objects stay, so that the pods
/// are made anew at the next start.
pub async fn stop_everything(shared: &Shared, grace: Duration) {
    let runtime = &shared.runtime;
    let containers = runtime.containers().await.unwrap_or_default();
    let running = containers.iter().filter(|c| matches!(c.state, containers::ContainerState::Running { .. }));
    let stops = running.map(|container| runtime.stop_container(&container.id, grace));
    for stopped in futures::future::join_all(stops).await {
        if let Err(error) = stopped {
            tracing::warn!(error = chain(&error), "container not stopped");
        }
    }
    let sandboxes = runtime.sandboxes().await.unwrap_or_default();
    let stops =
        sandboxes.iter().filter(|sandbox| sandbox.ready).map(|sandbox| runtime.stop_sandbox(&sandbox.id));
    for stopped in futures::future::join_all(stops).await {
        if let Err(error) = stopped {
            tracing::warn!(error = chain(&error), "sandbox not stopped");
        }
    }
}
