//! What events change in the snapshot and the queue.

use std::sync::Arc;

use client::CacheEvent;
use machinery::{Key, Object};

use super::{Of, Scheduler};
use crate::hint::Event;
use crate::queue::Pending;
use crate::{NodeInfo, PodInfo, Seen, Snapshot};

impl Scheduler {
    /// Takes in everything anew.
    pub(super) fn observe_all(&mut self) {
        self.snapshot = Snapshot::default();
        self.pending = Pending::default();
        for namespace in self.namespaces.all() {
            self.snapshot.set_namespace(&namespace);
        }
        for node in self.nodes.all() {
            self.node(&node);
        }
        for pod in self.assumed.values().cloned().collect::<Vec<_>>() {
            self.snapshot.place(pod);
        }
        for pod in self.pods.all() {
            self.pod(&pod);
        }
    }

    /// Takes in an event; `None` if some were missed.
    pub(super) fn observe(&mut self, of: Of, event: Option<CacheEvent>) {
        let Some(event) = event else { return self.observe_all() };
        match (of, &event) {
            (Of::Pods, CacheEvent::Deleted(pod)) => self.pod_gone(&pod.key()),
            (Of::Pods, _) => self.pod(event.object()),
            (Of::Nodes, CacheEvent::Deleted(node)) => {
                self.snapshot.remove_node(&node.meta().name);
                self.pending.wake(Event::NodeGone);
            }
            (Of::Nodes, _) => self.node(event.object()),
            (Of::Namespaces, CacheEvent::Deleted(namespace)) => {
                self.snapshot.remove_namespace(&namespace.meta().name);
            }
            (Of::Namespaces, _) => {
                self.snapshot.set_namespace(event.object());
                self.pending.wake(Event::Namespace);
            }
            (Of::Storage, _) => self.pending.wake(Event::Storage),
        }
    }

    fn node(&mut self, object: &Arc<Object>) {
        let node = match NodeInfo::read(object) {
            Ok(node) => node,
            Err(status) => return tracing::warn!(%status, "a node cannot be read"),
        };
        let name = node.name.clone();
        let before = self.snapshot.set_node(node);
        let Some(after) = self.snapshot.node(&name) else { return };
        match &before {
            None => self.pending.wake(Event::NodeAdded(after)),
            Some(before) if before.is_like(after) => {}
            Some(before) => self.pending.wake(Event::NodeChanged(before, after)),
        }
    }

    fn pod(&mut self, object: &Arc<Object>) {
        match PodInfo::read(object) {
            Ok(Seen::Placed(pod)) => self.placed(pod),
            Ok(Seen::Waiting(pod)) => self.waiting(pod),
            Ok(Seen::Other) => self.pod_gone(&object.key()),
            Err(status) => tracing::warn!(%status, "a pod cannot be read"),
        }
    }

    fn placed(&mut self, pod: PodInfo) {
        self.forget_waiting(&pod.key);
        let pod = Arc::new(pod);
        match self.snapshot.place(pod.clone()) {
            Some(before) if before.uid() == pod.uid() => {
                if before.labels() != pod.labels() || before.requests != pod.requests {
                    self.pending.wake(Event::PodChanged(&before, &pod));
                }
            }
            Some(before) => {
                self.pending.wake(Event::PodGone(&before));
                self.pending.wake(Event::PodPlaced(&pod));
            }
            None => self.pending.wake(Event::PodPlaced(&pod)),
        }
    }

    fn waiting(&mut self, mut pod: PodInfo) {
        let assigned = self.snapshot.placed(&pod.key);
        if assigned.is_some_and(|assigned| assigned.uid() == pod.uid()) {
            // It was given a node; the API just does not say so yet.
            return;
        }
        let known = self.pending.get(&pod.key).filter(|known| known.uid() == pod.uid());
        // The status, which this scheduler itself writes, is no news.
        let is_news = known.is_none_or(|known| {
            known.object.meta().generation != pod.object.meta().generation || known.labels() != pod.labels()
        });
        if let (Some(wish), Some(known)) = (pod.wish.as_deref_mut(), known) {
            wish.nominated = known.wish().nominated.clone().or(wish.nominated.take());
        }
        let pod = Arc::new(pod);
        let nominated = pod.wish().nominated.clone();
        if nominated.is_some() || known.is_some_and(|known| known.wish().nominated.is_some()) {
            self.snapshot.nominate(&pod, nominated.as_deref());
        }
        if is_news { self.pending.add(pod) } else { self.pending.refresh(pod) }
    }

    /// A pod is gone, finished, or no longer ours.
    fn pod_gone(&mut self, key: &Key) {
        self.forget_waiting(key);
        self.writes.remove(key);
        if let Some(pod) = self.snapshot.remove_pod(key) {
            self.pending.wake(Event::PodGone(&pod));
        }
    }

    pub(super) fn forget_waiting(&mut self, key: &Key) {
        let Some(info) = self.pending.get(key).cloned() else { return };
        self.pending.remove(key);
        if info.wish().nominated.is_some() {
            self.snapshot.nominate(&info, None);
        }
    }
}
