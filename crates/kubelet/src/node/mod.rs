//! This node in the API: its object, its heartbeat, its conditions.
//!
//! When nothing changes only the Lease is written; the status every five minutes or when it changes.

pub mod facts;
pub mod pressure;
pub mod storage;

use std::sync::Arc;
use std::time::Duration;

use client::{Cache, Client, Patch};
use env::{Env, Shutdown};
use images::ImageService;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use machinery::{Key, Object, Status};
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use facts::{NodeFacts, Reserved};
use pressure::Pressure;

const LEASE_NAMESPACE: &str = "kube-node-lease";
/// How many times a lease is renewed in the time that it is good for.
const RENEWALS: u32 = 4;
/// How long at least between two looks at what others say of the node.
const RESTATE_PAUSE: Duration = Duration::from_secs(1);
const STATUS_PERIOD: Duration = Duration::from_secs(300);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Upstream lists this many images.
const MAX_IMAGES: usize = 50;

/// Keeps the node's object and lease.
pub struct NodeKeeper {
    pub client: Client,
    pub env: Env,
    pub facts: NodeFacts,
    pub reserved: Reserved,
    pub images: Arc<dyn ImageService>,
    /// What the node is short of.
    pub pressure: watch::Receiver<Pressure>,
    /// For how long the node counts as alive after each renewal of its lease.
    pub lease_duration: Duration,
    /// The node as the API has it, if somebody keeps it live.
    pub nodes: Option<Cache>,
}

impl NodeKeeper {
    /// Registers, then keeps the node alive in the API until `shutdown`. `registered` is told once.
    pub async fn run(self, registered: tokio::sync::oneshot::Sender<()>, shutdown: Shutdown) {
        shutdown
            .run_until_cancelled(async {
                let node = self.register().await;
                // Whoever waited may have given up.
                let _nobody_waits = registered.send(());
                let lease = self.keep_lease(node.meta().uid.clone());
                let status = self.keep_status();
                tokio::join!(lease, status);
            })
            .await;
    }

    async fn register(&self) -> Arc<Object> {
        let mut wait = RETRY_FIRST;
        loop {
            match self.try_register().await {
                Ok(node) => return node,
                Err(error) => tracing::warn!(%error, "node not registered"),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    async fn try_register(&self) -> Result<Arc<Object>, Status> {
        let nodes = self.client.cluster::<Node>();
        let status = self.status(None).await;
        let body = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": self.facts.name,
                "labels": self.facts.all_labels(),
                "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
            },
            "spec": {"taints": self.facts.taints},
            "status": status.clone(),
        });
        match nodes.create(&body).await {
            Ok(node) if has_conditions(&node) => return Ok(node),
            Ok(_) => {}
            Err(exists) if exists.is_already_exists() => {
                let labels = json!({"metadata": {"labels": self.facts.all_labels()}});
                nodes.patch(&self.facts.name, Patch::StrategicMerge(labels)).await?;
            }
            Err(error) => return Err(error),
        }
        let known = nodes.get(&self.facts.name).await?.value();
        let status = self.status(Some(&known["status"])).await;
        nodes.patch_status(&self.facts.name, Patch::StrategicMerge(json!({"status": status}))).await
    }

    /// The whole status; transition times carry over from `known`.
    async fn status(&self, known: Option<&Value>) -> Value {
        let facts = &self.facts;
        let pressure = *self.pressure.borrow();
        json!({
            "addresses": facts.address_list(),
            "capacity": facts.capacity(),
            "allocatable": facts.allocatable(self.reserved),
            "conditions": conditions(&pressure, known, self.env.now()),
            "nodeInfo": facts.node_info(),
            "images": self.image_list().await,
            "daemonEndpoints": {"kubeletEndpoint": {"Port": facts.kubelet_port}},
            "runtimeHandlers": [{"name": "", "features": {"recursiveReadOnlyMounts": true, "userNamespaces": false}}],
            "features": {"supplementalGroupsPolicy": true},
        })
    }

    async fn image_list(&self) -> Value {
        let mut images = self.images.list().await.unwrap_or_default();
        images.sort_by(|a, b| b.size_bytes.cmp(&a.size_bytes).then_with(|| a.id.cmp(&b.id)));
        let entry = |image: &images::Image| {
            let names: Vec<_> = image.digests.iter().chain(&image.tags).take(5).cloned().collect();
            json!({"names": names, "sizeBytes": image.size_bytes})
        };
        Value::Array(images.iter().take(MAX_IMAGES).map(entry).collect())
    }

    async fn keep_status(&self) {
        let mut pressure = self.pressure.clone();
        loop {
            // Every period, or as soon as the pressure changes or the node was given up.
            let changed = async {
                if pressure.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = changed => {}
                () = self.given_up() => {}
                () = tokio::time::sleep(STATUS_PERIOD) => {}
            }
            if let Err(error) = self.write_status().await {
                tracing::warn!(%error, "node status not written");
                if error.is_not_found() {
                    self.register().await;
                }
            }
        }
    }

    /// Waits until the API says that the node is not ready, which only somebody else says: the node controller, when
    /// it has not heard of the node for a while.
    async fn given_up(&self) {
        let Some(nodes) = &self.nodes else { return std::future::pending().await };
        tokio::time::sleep(RESTATE_PAUSE).await;
        let mut events = nodes.subscribe();
        let key = Key::new("", &*self.facts.name);
        loop {
            if nodes.get(&key).is_some_and(|node| is_given_up(&node)) {
                return;
            }
            match events.recv().await {
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return std::future::pending().await,
            }
        }
    }

    async fn write_status(&self) -> Result<(), Status> {
        let nodes = self.client.cluster::<Node>();
        let known = nodes.get(&self.facts.name).await?.value();
        let status = self.status(Some(&known["status"])).await;
        nodes
            .patch_status(&self.facts.name, Patch::StrategicMerge(json!({"status": status})))
            .await
            .map(|_node| ())
    }

    async fn keep_lease(&self, node_uid: String) {
        let mut wait = RETRY_FIRST;
        loop {
            match self.renew(&node_uid).await {
                Ok(()) => {
                    wait = RETRY_FIRST;
                    tokio::time::sleep(self.lease_duration / RENEWALS).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "lease not renewed");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(RETRY_MAX);
                }
            }
        }
    }

    async fn renew(&self, node_uid: &str) -> Result<(), Status> {
        let leases = self.client.namespaced::<Lease>(LEASE_NAMESPACE);
        let name = &self.facts.name;
        let spec = json!({
            "holderIdentity": name,
            "leaseDurationSeconds": self.lease_duration.as_secs(),
            "renewTime": self.env.now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
        });
        match leases.patch(name, Patch::Merge(json!({"spec": spec}))).await {
            Err(missing) if missing.is_not_found() => {}
            done => return done.map(|_lease| ()),
        }
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": name, "uid": node_uid});
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "namespace": LEASE_NAMESPACE, "ownerReferences": [owner]},
            "spec": spec,
        });
        leases.create(&lease).await.map(|_lease| ())
    }
}

fn is_given_up(node: &Object) -> bool {
    let node = node.value();
    let mut conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| condition["type"] == "Ready" && condition["status"] != "True")
}

fn has_conditions(node: &Object) -> bool {
    node.value()["status"]["conditions"].as_array().is_some_and(|list| !list.is_empty())
}

/// The four conditions in upstream's order and words.
fn conditions(pressure: &Pressure, known: Option<&Value>, now: Timestamp) -> Value {
    let at = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let verdicts = [
        (
            "MemoryPressure",
            pressure.memory,
            if pressure.memory {
                ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available")
            } else {
                ("KubeletHasSufficientMemory", "kubelet has sufficient memory available")
            },
        ),
        (
            "DiskPressure",
            pressure.disk,
            if pressure.disk {
                ("KubeletHasDiskPressure", "kubelet has disk pressure")
            } else {
                ("KubeletHasNoDiskPressure", "kubelet has no disk pressure")
            },
        ),
        (
            "PIDPressure",
            pressure.pids,
            if pressure.pids {
                ("KubeletHasInsufficientPID", "kubelet has insufficient PID available")
            } else {
                ("KubeletHasSufficientPID", "kubelet has sufficient PID available")
            },
        ),
        ("Ready", true, ("KubeletReady", "kubelet is posting ready status")),
    ];
    let list = verdicts.iter().map(|(type_, holds, (reason, message))| {
        let status = if *holds { "True" } else { "False" };
        let before = known.and_then(|known| known["conditions"].as_array()).into_iter().flatten();
        let same = before.into_iter().find(|old| old["type"] == *type_ && old["status"] == status);
        let since = same.and_then(|old| old["lastTransitionTime"].as_str()).unwrap_or(&at);
        json!({"type": type_, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": at, "lastTransitionTime": since})
    });
    Value::Array(list.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transition_times_carry_over() {
        let now = Timestamp::from_second(100).unwrap();
        let old = json!({"conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:00:01Z"},
            {"type": "DiskPressure", "status": "False", "lastTransitionTime": "1970-01-01T00:00:02Z"}]});
        let pressure = Pressure { disk: true, ..Pressure::default() };
        let made = conditions(&pressure, Some(&old), now);
        let shown: Vec<_> = made
            .as_array()
            .unwrap()
            .iter()
            .map(|c| format!("{} {} {}", c["type"], c["status"], c["lastTransitionTime"]))
            .collect();
        expect_test::expect![[r#"
            "MemoryPressure" "False" "1970-01-01T00:01:40Z"
            "DiskPressure" "True" "1970-01-01T00:01:40Z"
            "PIDPressure" "False" "1970-01-01T00:01:40Z"
            "Ready" "True" "1970-01-01T00:00:01Z""#]]
        .assert_eq(&shown.join("\n"));
    }
}
