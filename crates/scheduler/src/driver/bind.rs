//! Puts a pod on its node: counted at once, told to the API in the background.

use std::sync::Arc;
use std::time::Duration;

use client::{Cache, Client, Patch, typed};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use machinery::{Key, Status};
use reconcile::Reference;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinError;

use super::Scheduler;
use crate::PodInfo;
use crate::hint::Event;
use crate::volumes::Choice;

/// How long claims may take to be bound (`bindTimeoutSeconds` upstream).
const VOLUMES_WITHIN: Duration = Duration::from_secs(600);

/// A binding that is done, or not.
pub(super) struct Bound {
    info: Arc<PodInfo>,
    node: Arc<str>,
    choices: Vec<Choice>,
    result: Result<(), Status>,
}

/// Everything a binding needs.
struct Binding {
    client: Client,
    claims: Cache,
    info: Arc<PodInfo>,
    node: Arc<str>,
    choices: Vec<Choice>,
    /// What is being written of the pod.
    before: Option<oneshot::Receiver<()>>,
}

impl Scheduler {
    pub(super) fn bind(&mut self, info: Arc<PodInfo>, node: Arc<str>) {
        let placed = Arc::new(info.on(&node));
        self.snapshot.place(placed.clone());
        self.assumed.insert(info.key.clone(), placed.clone());
        self.forget_waiting(&info.key);
        self.pending.wake(Event::PodPlaced(&placed));
        let choices = self.snapshot.node(&node).and_then(|node| info.wish().needs.choose(node));
        let choices = choices.unwrap_or_default();
        self.taken.extend(choices.iter().filter_map(volume_of).map(str::to_owned));
        let binding = Binding {
            client: self.client.clone(),
            claims: self.surroundings.storage.claims.clone(),
            before: self.writes.remove(&info.key),
            info,
            node,
            choices,
        };
        self.bindings.spawn(binding.run());
    }

    pub(super) fn bound(&mut self, bound: Result<Bound, JoinError>) {
        let Bound { info, node, choices, result } = match bound {
            Ok(bound) => bound,
            Err(error) => return tracing::error!(%error, "a binding panicked"),
        };
        self.assumed.remove(&info.key);
        for volume in choices.iter().filter_map(volume_of) {
            self.taken.remove(volume);
        }
        let about = Reference::new("v1", "Pod", &info.object);
        match result {
            Ok(()) => {
                let message = format!("Successfully assigned {} to {node}", info.key);
                self.recorder.event(&about, false, "Scheduled", message);
            }
            Err(status) => {
                if self.snapshot.placed(&info.key).is_some_and(|placed| placed.uid() == info.uid())
                    && let Some(pod) = self.snapshot.remove_pod(&info.key)
                {
                    self.pending.wake(Event::PodGone(&pod));
                }
                self.retry(&info, &status);
            }
        }
    }

    /// The pod may be gone or changed since: what the cache says of it now counts.
    fn retry(&mut self, info: &PodInfo, status: &Status) {
        let Some(object) = self.pods.get(&info.key).filter(|pod| pod.meta().uid == info.uid()) else {
            return;
        };
        if status.is_not_found() {
            return;
        }
        match PodInfo::read(&object) {
            Ok(crate::Seen::Waiting(fresh)) => {
                let message = format!("binding rejected: {status}");
                self.recorder.event(&Reference::new("v1", "Pod", &object), true, "FailedScheduling", message);
                self.pending.add(Arc::new(fresh));
                self.pending.fail(&info.key, tokio::time::Instant::now());
            }
            Ok(crate::Seen::Placed(fresh)) => {
                self.snapshot.place(Arc::new(fresh));
            }
            Ok(crate::Seen::Other) | Err(_) => {}
        }
    }
}

fn volume_of(choice: &Choice) -> Option<&str> {
    match choice {
        Choice::Bind { volume, .. } => Some(volume),
        Choice::Provision { .. } => None,
    }
}

impl Binding {
    async fn run(mut self) -> Bound {
        if let Some(before) = self.before.take() {
            // Whether that was written or not, it is over.
            drop(before.await);
        }
        let result = match self.bind_volumes().await {
            Ok(()) => self.bind().await,
            Err(status) => Err(status),
        };
        Bound { info: self.info, node: self.node, choices: self.choices, result }
    }

    async fn bind(&self) -> Result<(), Status> {
        let pods = self.client.namespaced::<Pod>(self.info.namespace());
        let body = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {
                "name": self.info.key.name,
                "namespace": self.info.namespace(),
                "uid": self.info.uid(),
            },
            "target": {"apiVersion": "v1", "kind": "Node", "name": *self.node},
        });
        pods.create_sub(&self.info.key.name, "binding", &body).await.map(drop)
    }

    async fn bind_volumes(&self) -> Result<(), Status> {
        if self.choices.is_empty() {
            return Ok(());
        }
        for choice in &self.choices {
            self.choose(choice).await?;
        }
        let all_bound = async {
            for choice in &self.choices {
                let (Choice::Bind { claim, .. } | Choice::Provision { claim }) = choice;
                claim_bound(&self.claims, &Key::new(self.info.namespace(), claim.as_str())).await;
            }
        };
        tokio::time::timeout(VOLUMES_WITHIN, all_bound)
            .await
            .map_err(|_| Status::internal("timed out waiting for the condition: claims were not bound"))
    }

    /// Tells the volume controller what was chosen.
    async fn choose(&self, choice: &Choice) -> Result<(), Status> {
        let namespace = self.info.namespace();
        match choice {
            Choice::Provision { claim } => {
                let annotations = json!({"volume.kubernetes.io/selected-node": *self.node});
                let body = json!({"metadata": {"annotations": annotations}});
                let claims = self.client.namespaced::<PersistentVolumeClaim>(namespace);
                claims.patch(claim, Patch::Merge(body)).await.map(drop)
            }
            Choice::Bind { claim, volume } => {
                let object = self.claims.get(&Key::new(namespace, claim.as_str()));
                let uid = object.map(|claim| claim.meta().uid.clone());
                let reference = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": claim,
                    "namespace": namespace, "uid": uid});
                let annotations = json!({"pv.kubernetes.io/bound-by-controller": "yes"});
                let body = json!({"metadata": {"annotations": annotations}, "spec": {"claimRef": reference}});
                self.client.cluster::<PersistentVolume>().patch(volume, Patch::Merge(body)).await.map(drop)
            }
        }
    }
}

/// Waits until the volume controller has bound a claim.
async fn claim_bound(claims: &Cache, key: &Key) {
    let mut changes = claims.subscribe();
    let is_bound = || {
        let claim = claims.get(key).and_then(|claim| typed::<PersistentVolumeClaim>(&claim).ok());
        claim.is_some_and(|claim| {
            claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
        })
    };
    while !is_bound() {
        if let Err(tokio::sync::broadcast::error::RecvError::Closed) = changes.recv().await {
            return;
        }
    }
}
