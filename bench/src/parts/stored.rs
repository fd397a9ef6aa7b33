//! Thousands of pods that no kubelet runs: they are bound to a node that exists only as an object.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::{Client, Http, Patch};
use http::{Method, header};
use serde_json::{Value, json};
use tokio::task::AbortHandle;

use crate::cluster::{Cluster, Machine, target};
use crate::parts::idle;
use crate::report::Report;
use crate::{Extent, Failure, load};

/// The node's and the namespace's name.
pub const NAME: &str = "stored";
const CLIENTS: usize = 16;
/// How often the node renews its lease, as a kubelet does.
const RENEW: Duration = Duration::from_secs(10);

pub async fn measure(machine: &Machine, extent: Extent, report: &mut Report) -> Result<(), Failure> {
    let cluster = machine.ready().await?;
    let _node = prepare(&cluster).await?;
    let mut stored = 0;
    for (count, state) in [(10_000, "10,000 stored pods"), (30_000, "30,000 stored pods")] {
        let rate = store(&cluster, stored..count).await?;
        stored = count;
        report.add_rate(&format!("pods stored, up to {count}"), rate, None, format!("{CLIENTS} clients"));
        idle::rest(&cluster, extent, report, state).await?;
        if extent.quick {
            break;
        }
    }
    Ok(())
}

/// The task that keeps the node alive; it ends when this is dropped.
pub struct FakeNode(AbortHandle);

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Makes the namespace and a node that renews its lease, so that nobody takes the pods away.
pub async fn prepare(cluster: &Cluster) -> Result<FakeNode, Failure> {
    let client = cluster.client()?;
    let text = |status: machinery::Status| status.to_string();
    client.target(target("", "v1", "nodes", "")).create(&node()).await.map_err(text)?;
    let status = json!({"status": node()["status"]});
    client
        .target(target("", "v1", "nodes", ""))
        .patch_status(NAME, Patch::Merge(status))
        .await
        .map_err(text)?;
    let leases = target("coordination.k8s.io", "v1", "leases", "kube-node-lease");
    client.target(leases.clone()).create(&lease()).await.map_err(text)?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAME}});
    client.target(target("", "v1", "namespaces", "")).create(&namespace).await.map_err(text)?;
    let accounts = target("", "v1", "serviceaccounts", NAME);
    cluster.until(&accounts, "metadata.name=default", |_| true).await?;
    let renewing = tokio::spawn(renew(client, leases));
    Ok(FakeNode(renewing.abort_handle()))
}

async fn renew(client: Client, leases: client::Target) {
    loop {
        tokio::time::sleep(RENEW).await;
        let spec = json!({"spec": {"renewTime": micro_time()}});
        if let Err(status) = client.target(leases.clone()).patch(NAME, Patch::Merge(spec)).await {
            eprintln!("bench: the stored node's lease: {status}");
        }
    }
}

fn micro_time() -> String {
    env::Env::system().now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

fn lease() -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": NAME, "namespace": "kube-node-lease"},
        "spec": {"holderIdentity": NAME, "leaseDurationSeconds": 40, "renewTime": micro_time()},
    })
}

fn node() -> Value {
    let time = env::Env::system().now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let resources = json!({"cpu": "64", "memory": "256Gi", "pods": "50000"});
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NAME},
        "status": {
            "capacity": resources,
            "allocatable": resources,
            "conditions": [{
                "type": "Ready",
                "status": "True",
                "reason": "KubeletReady",
                "message": "kubelet is posting ready status",
                "lastHeartbeatTime": time,
                "lastTransitionTime": time,
            }],
        },
    })
}

/// Creates the pods of a range; returns how many per second.
pub async fn store(cluster: &Cluster, range: std::ops::Range<usize>) -> Result<f64, Failure> {
    let first = range.start;
    let path: Arc<str> = format!("/api/v1/namespaces/{NAME}/pods").into();
    let work = move |http: Arc<Http>, index: usize| {
        let (path, body) = (path.clone(), pod(first + index));
        async move { create(&http, &path, body).await }
    };
    load::drive(cluster.https(CLIENTS)?, range.len(), work).await
}

/// One create of a JSON body.
pub async fn create(http: &Http, path: &str, body: Bytes) -> Result<(), Failure> {
    let headers = [(header::ACCEPT, "application/json"), (header::CONTENT_TYPE, "application/json")];
    http.fetch(Method::POST, path, &headers, body).await.map(drop).map_err(|status| status.to_string().into())
}

/// A pod like those of upstream's density tests; with what admission and defaults add it is about 2 kB.
fn pod(index: usize) -> Bytes {
    let body = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": format!("density-latency-pod-{index:05}"),
            "namespace": NAME,
            "labels": {"name": format!("density-{}", index / 30), "type": "density-latency-pod"},
            "annotations": {"bench.kobune.local/purpose": "stored, never run"},
        },
        "spec": {
            "nodeName": NAME,
            "containers": [{
                "name": "density",
                "image": "registry.k8s.io/pause:3.10",
                "imagePullPolicy": "IfNotPresent",
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "env": [{"name": "ENV_VAR", "value": "a"}],
                "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}},
            }],
        },
    });
    Bytes::from(body.to_string())
}
