//! Says why a pod has to wait, and makes room for it where that is possible.

use std::sync::Arc;

use client::{Client, DeleteOptions, Patch, Preconditions};
use k8s_openapi::api::core::v1::Pod;
use machinery::Status;
use reconcile::Reference;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Scheduler;
use crate::PodInfo;
use crate::decision::Wait;
use crate::preemption::Preemption;

/// How many writes are remembered before those that are done are forgotten.
const REMEMBERED: usize = 1024;

impl Scheduler {
    pub(super) fn refuse(&mut self, info: Arc<PodInfo>, wait: Wait) {
        let nominated = match &wait.preemption {
            Preemption::Evict { node, .. } => Some(node.to_string()),
            Preemption::Useless { clear: true, .. } => None,
            Preemption::Useless { clear: false, .. } => info.wish().nominated.clone(),
        };
        let mut told = PodInfo::clone(&info);
        if let Some(wish) = told.wish.as_deref_mut() {
            wish.told = Some(wait.message.clone());
            wish.nominated.clone_from(&nominated);
        }
        let told = Arc::new(told);
        if nominated.is_some() || info.wish().nominated.is_some() {
            self.snapshot.nominate(&told, nominated.as_deref());
        }
        self.pending.refresh(told);
        self.pending.stick(&info.key, wait.plugins, Instant::now());
        if let Preemption::Evict { node, victims } = wait.preemption {
            self.preempt(&info, &node, victims);
        }
        self.tell(&info, wait.message, nominated);
    }

    /// Writes the condition and the nominated node, unless they stand there already.
    fn tell(&mut self, info: &Arc<PodInfo>, message: String, nominated: Option<String>) {
        let wish = info.wish();
        if wish.told.as_ref() == Some(&message) && wish.nominated == nominated {
            return;
        }
        if wish.told.as_ref() != Some(&message) {
            let about = Reference::new("v1", "Pod", &info.object);
            self.recorder.event(&about, true, "FailedScheduling", message.clone());
        }
        let mut condition = json!({
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "observedGeneration": info.object.meta().generation,
        });
        if wish.told.is_none() {
            condition["lastTransitionTime"] = json!(self.now());
        }
        let status = json!({"conditions": [condition], "nominatedNodeName": nominated});
        self.write_status(info, json!({"metadata": {"uid": info.uid()}, "status": status}));
    }

    fn now(&self) -> String {
        self.env.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// Writes to a pod's status, after what is being written to it already.
    fn write_status(&mut self, info: &PodInfo, body: Value) {
        let pods = self.client.namespaced::<Pod>(info.namespace());
        let (done, after) = oneshot::channel();
        let (name, before) = (info.key.name.clone(), self.writes.insert(info.key.clone(), after));
        let write = async move {
            if let Some(before) = before {
                // It ends by dropping its end.
                drop(before.await);
            }
            if let Err(status) = pods.patch_status(&name, Patch::StrategicMerge(body)).await {
                tracing::debug!(%status, pod = name, "why it waits was not written");
            }
            drop::<oneshot::Sender<()>>(done);
        };
        self.telling.spawn(write);
        if self.writes.len() > REMEMBERED {
            self.writes
                .retain(|_, write| matches!(write.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
        }
    }

    /// Removes the victims from the node. Pods of lower priority that were promised room there are promised none.
    fn preempt(&mut self, info: &Arc<PodInfo>, node: &str, victims: Vec<Arc<PodInfo>>) {
        let yielding: Vec<Arc<PodInfo>> = self
            .snapshot
            .nominated(node)
            .iter()
            .filter(|other| other.priority < info.priority)
            .cloned()
            .collect();
        for other in yielding {
            let mut free = PodInfo::clone(&other);
            if let Some(wish) = free.wish.as_deref_mut() {
                wish.nominated = None;
            }
            let free = Arc::new(free);
            self.snapshot.nominate(&free, None);
            self.pending.refresh(free);
            self.write_status(
                &other,
                json!({"metadata": {"uid": other.uid()}, "status": {"nominatedNodeName": null}}),
            );
        }
        for victim in victims.into_iter().filter(|victim| !victim.is_deleting()) {
            let about = Reference::new("v1", "Pod", &victim.object);
            let message = format!("Preempted by pod {} on node {node}", info.uid());
            self.recorder.event(&about, false, "Preempted", message);
            let (client, now) = (self.client.clone(), self.now());
            self.telling.spawn(async move {
                if let Err(status) = evict(&client, &victim, &now).await {
                    tracing::warn!(%status, victim = %victim.key, "a pod was not preempted");
                }
            });
        }
    }
}

/// Says why in the pod's status, then deletes it; it has its grace period.
async fn evict(client: &Client, victim: &PodInfo, now: &str) -> Result<(), Status> {
    let pods = client.namespaced::<Pod>(victim.namespace());
    let condition = json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "PreemptionByScheduler",
        "message": format!("{}: preempting to accommodate a higher priority pod", super::NAME),
        "observedGeneration": victim.object.meta().generation,
        "lastTransitionTime": now,
    });
    let body = json!({"metadata": {"uid": victim.uid()}, "status": {"conditions": [condition]}});
    let preconditions = Preconditions { uid: Some(victim.uid().to_owned()), resource_version: None };
    let options = DeleteOptions { preconditions: Some(preconditions), ..DeleteOptions::default() };
    let written = pods.patch_status(&victim.key.name, Patch::StrategicMerge(body)).await.map(drop);
    let deleted = match written {
        Ok(()) => pods.delete(&victim.key.name, &options).await.map(drop),
        Err(status) => Err(status),
    };
    match deleted {
        // Gone already, or another pod has its name now.
        Err(status) if status.is_not_found() || status.is_conflict() => Ok(()),
        other => other,
    }
}
