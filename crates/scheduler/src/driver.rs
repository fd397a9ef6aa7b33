//! Keeps the snapshot live, takes pods off the queue, binds them.

use std::sync::Arc;

use client::{Cache, CacheEvent, Caches, Client, Patch, typed};
use env::{Env, Shutdown};
use k8s_openapi::api::core::v1::{Node, Pod};
use machinery::{Key, Object, Status};
use reconcile::{Recorder, Reference};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::plugin::{Filter, Score};
use crate::queue::Pending;
use crate::{Decision, PodInfo, Snapshot, plugins, schedule};

/// The `schedulerName` that pods are scheduled for.
pub const NAME: &str = "default-scheduler";

/// How many bindings are under way at once.
const BINDINGS: usize = 64;

/// The scheduler.
pub struct Scheduler {
    client: Client,
    pods: Cache,
    nodes: Cache,
    recorder: Recorder,
    env: Env,
    filters: Vec<Box<dyn Filter>>,
    scores: Vec<Box<dyn Score>>,
    snapshot: Snapshot,
    pending: Pending,
    bindings: JoinSet<Bound>,
    /// When a waiting pod's back-off ends after the cluster has changed.
    wake_at: Option<Instant>,
}

struct Bound {
    info: Arc<PodInfo>,
    object: Arc<Object>,
    node: String,
    result: Result<(), Status>,
}

impl Scheduler {
    pub fn build(caches: &Caches, client: Client, recorder: Recorder, env: Env) -> Self {
        Self {
            client,
            pods: caches.of::<Pod>(),
            nodes: caches.of::<Node>(),
            recorder,
            env,
            filters: plugins::filters(),
            scores: plugins::scores(),
            snapshot: Snapshot::default(),
            pending: Pending::default(),
            bindings: JoinSet::new(),
            wake_at: None,
        }
    }

    /// Runs until `shutdown`.
    pub async fn run(mut self, shutdown: Shutdown) {
        let (mut pods, mut nodes) = (self.pods.subscribe(), self.nodes.subscribe());
        self.nodes.synced().await;
        self.pods.synced().await;
        self.observe_all();
        loop {
            self.decide();
            tokio::select! {
                () = shutdown.cancelled() => break,
                event = pods.recv() => match event {
                    Ok(event) => self.pod_event(&event),
                    Err(RecvError::Lagged(_)) => self.observe_all(),
                    Err(RecvError::Closed) => break,
                },
                event = nodes.recv() => match event {
                    Ok(event) => self.node_event(&event),
                    Err(RecvError::Lagged(_)) => self.observe_all(),
                    Err(RecvError::Closed) => break,
                },
                Some(bound) = self.bindings.join_next(), if !self.bindings.is_empty() => self.bound(bound),
                () = sleep_until(self.wake_at) => self.wake(),
            }
        }
        self.bindings.shutdown().await;
    }

    fn observe_all(&mut self) {
        self.snapshot = Snapshot::default();
        self.pending = Pending::default();
        for node in self.nodes.all() {
            self.set_node(&node);
        }
        for pod in self.pods.all() {
            self.observe_pod(&pod);
        }
    }

    fn set_node(&mut self, object: &Object) {
        match typed::<Node>(object) {
            Ok(node) => self.snapshot.set_node(&object.meta().name, node),
            Err(status) => tracing::warn!(%status, "a node cannot be read"),
        }
    }

    fn node_event(&mut self, event: &CacheEvent) {
        match event {
            CacheEvent::Deleted(node) => self.snapshot.remove_node(&node.meta().name),
            CacheEvent::Added(node) | CacheEvent::Modified { new: node, .. } => self.set_node(node),
        }
        self.wake();
    }

    fn pod_event(&mut self, event: &CacheEvent) {
        match event {
            CacheEvent::Deleted(pod) => {
                self.pending.remove(&pod.key());
                if self.snapshot.remove_pod(&pod.key()) {
                    self.wake();
                }
            }
            CacheEvent::Added(pod) | CacheEvent::Modified { new: pod, .. } => self.observe_pod(pod),
        }
    }

    fn observe_pod(&mut self, object: &Object) {
        let Ok(pod) = typed::<Pod>(object) else { return };
        let key = object.key();
        let finished = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if matches!(finished, Some("Succeeded" | "Failed")) {
            self.pending.remove(&key);
            if self.snapshot.remove_pod(&key) {
                self.wake();
            }
            return;
        }
        let placed =
            pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|node| !node.is_empty());
        if placed {
            self.pending.remove(&key);
            self.snapshot.place(Arc::new(PodInfo::new(key, pod)));
        } else if is_ours(&pod) && !self.snapshot.has(&key, &object.meta().uid) {
            if self.is_news(&key, &pod) {
                self.pending.add(Arc::new(PodInfo::new(key, pod)));
            }
        } else {
            self.pending.remove(&key);
        }
    }

    /// Whether anything but the status (which this scheduler itself writes) changed.
    fn is_news(&self, key: &Key, pod: &Pod) -> bool {
        self.pending
            .spec(key)
            .is_none_or(|known| known.spec != pod.spec || known.metadata.labels != pod.metadata.labels)
    }

    fn wake(&mut self) {
        self.wake_at = self.pending.wake();
    }

    /// Decides for all ready pods.
    fn decide(&mut self) {
        while self.bindings.len() < BINDINGS {
            let Some(info) = self.pending.pop() else { return };
            let Some(object) = self.pods.get(&info.key).filter(|pod| pod.meta().uid == info.uid) else {
                self.pending.remove(&info.key);
                continue;
            };
            match schedule(&self.snapshot, &info, &self.filters, &self.scores, self.env.random_u64()) {
                Decision::Bind { node } => self.bind(info, object, node),
                Decision::Unschedulable { message } => self.refuse(&info, object, message),
            }
        }
    }

    /// Counts the pod on its node at once and tells the API.
    fn bind(&mut self, info: Arc<PodInfo>, object: Arc<Object>, node: String) {
        let placed = PodInfo { node: Some(node.clone()), ..PodInfo::clone(&info) };
        self.snapshot.place(Arc::new(placed));
        self.pending.remove(&info.key);
        let pods = self.client.namespaced::<Pod>(&info.key.namespace);
        self.bindings.spawn(async move {
            let body = json!({
                "apiVersion": "v1",
                "kind": "Binding",
                "metadata": {"name": info.key.name, "namespace": info.key.namespace, "uid": info.uid},
                "target": {"apiVersion": "v1", "kind": "Node", "name": node},
            });
            let result = pods.create_sub(&info.key.name, "binding", &body).await.map(drop);
            Bound { info, object, node, result }
        });
    }

    fn bound(&mut self, bound: Result<Bound, tokio::task::JoinError>) {
        let Bound { info, object, node, result } = match bound {
            Ok(bound) => bound,
            Err(error) => return tracing::error!(%error, "a binding panicked"),
        };
        let about = Reference::new("v1", "Pod", &object);
        match result {
            Ok(()) => {
                let message = format!("Successfully assigned {} to {node}", info.key);
                self.recorder.event(&about, false, "Scheduled", message);
            }
            Err(status) => {
                self.snapshot.remove_pod(&info.key);
                if !status.is_not_found() {
                    self.recorder.event(
                        &about,
                        true,
                        "FailedScheduling",
                        format!("binding rejected: {status}"),
                    );
                    self.pending.add(info.clone());
                    self.pending.defer(&info.key);
                    self.wake();
                }
            }
        }
    }

    fn refuse(&mut self, info: &PodInfo, object: Arc<Object>, message: String) {
        self.pending.defer(&info.key);
        let told = condition_message(&info.spec).is_some_and(|told| told == message);
        if told {
            return;
        }
        let about = Reference::new("v1", "Pod", &object);
        self.recorder.event(&about, true, "FailedScheduling", message.clone());
        let pods = self.client.namespaced::<Pod>(&info.key.namespace);
        let (name, now) = (info.key.name.clone(), self.env.now());
        let body = json!({"metadata": {"uid": info.uid}, "status": {"conditions": [{
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }]}});
        tokio::spawn(async move {
            if let Err(status) = pods.patch_status(&name, Patch::StrategicMerge(body)).await {
                tracing::debug!(%status, pod = name, "why it waits was not written");
            }
        });
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Pods of other schedulers, gated ones, and those on their way out are not scheduled.
fn is_ours(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    pod.metadata.deletion_timestamp.is_none()
        && spec.scheduler_name.as_deref().unwrap_or(NAME) == NAME
        && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
}

fn condition_message(pod: &Pod) -> Option<&str> {
    let conditions = pod.status.as_ref()?.conditions.as_deref()?;
    conditions.iter().find(|condition| condition.type_ == "PodScheduled")?.message.as_deref()
}
