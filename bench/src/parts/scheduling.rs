//! Pods per second that the scheduler puts on fake nodes, from the API's first word to its last binding.
//!
//! All pods are there before the clock starts: they name a claim that does not exist. Once it does they can all be
//! scheduled at once, so creating them is not measured.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::{WatchEvent, WatchOptions};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Machine, target};
use crate::parts::stored::create;
use crate::report::Report;
use crate::{Extent, Failure, load, processes};

const NAMESPACE: &str = "scheduling";
const CLAIM: &str = "gate";
const CLIENTS: usize = 16;
/// How long everything may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// Upstream's gate for 5,000 nodes is 680; this is ours.
const AIM: f64 = 10_000.0;

pub async fn measure(machine: &Machine, extent: Extent, report: &mut Report) -> Result<(), Failure> {
    let pods = extent.pick(10_000, 2_000);
    for (nodes, name) in [(1_000, "1,000"), (5_000, "5,000")] {
        let cluster = machine.launch_with(&["--fake-nodes", &nodes.to_string()])?;
        cluster.api_ready().await?;
        // The machine's own node is one more.
        count(&cluster, "nodes", "", nodes + 1).await?;
        let memory = processes::memory(cluster.pid()).ok_or("the program is gone")?;
        report.add(&format!("memory, {name} fake nodes"), memory.rss as f64 / 1e6, "MB", "RSS");
        let rate = schedule(&cluster, pods).await?;
        report.add_rate(&format!("pods scheduled, {name} nodes"), rate, Some(AIM), format!("{pods} pods"));
        let memory = processes::memory(cluster.pid()).ok_or("the program is gone")?;
        report.add(
            &format!("memory, {name} fake nodes and {pods} pods"),
            memory.rss as f64 / 1e6,
            "MB",
            "RSS",
        );
        if extent.quick {
            break;
        }
    }
    Ok(())
}

async fn schedule(cluster: &Cluster, pods: usize) -> Result<f64, Failure> {
    let text = |status: machinery::Status| status.to_string();
    let client = cluster.client()?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    client.target(target("", "v1", "namespaces", "")).create(&namespace).await.map_err(text)?;
    let accounts = target("", "v1", "serviceaccounts", NAMESPACE);
    cluster.until(&accounts, "metadata.name=default", |_| true).await?;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    load::drive(cluster.https(CLIENTS)?, pods, move |http, index| {
        let (path, body) = (path.clone(), pod(index));
        async move { create(&http, &path, body).await }
    })
    .await?;
    refused(cluster, pods).await?;
    client.target(target("", "v1", "persistentvolumes", "")).create(&volume()).await.map_err(text)?;
    let claims = client.target(target("", "v1", "persistentvolumeclaims", NAMESPACE));
    let start = Instant::now();
    claims.create(&claim()).await.map_err(text)?;
    count(cluster, "pods", "spec.nodeName!=", pods).await?;
    Ok(pods as f64 / start.elapsed().as_secs_f64())
}

/// Waits until every pod was told why it waits, so that nothing of that is still going on.
async fn refused(cluster: &Cluster, pods: usize) -> Result<(), Failure> {
    let last = format!("p-{}", pods - 1);
    let waits = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array();
        conditions.is_some_and(|all| all.iter().any(|one| one["reason"] == "Unschedulable"))
    };
    cluster.until(&target("", "v1", "pods", NAMESPACE), &format!("metadata.name={last}"), waits).await
}

/// Waits until a collection has so many objects of a field selector.
async fn count(cluster: &Cluster, resource: &str, fields: &str, wanted: usize) -> Result<(), Failure> {
    let namespace = if resource == "pods" { NAMESPACE } else { "" };
    let client = cluster.client()?;
    let target = client.target(target("", "v1", resource, namespace));
    let counting = async {
        let options = WatchOptions { field_selector: fields.to_owned(), ..WatchOptions::default() };
        let mut seen = BTreeSet::new();
        loop {
            let mut watch = target.watch(&options).await.map_err(|status| status.to_string())?;
            // A watcher that does not keep up is dropped, as upstream does; it begins again with what is there.
            while let Some(event) = watch.next().await {
                if let WatchEvent::Added(object) = event.map_err(|status| status.to_string())? {
                    seen.insert(object.meta().name.clone());
                }
                if seen.len() >= wanted {
                    return Ok(());
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, counting).await?
}

fn pod(index: usize) -> Bytes {
    let body = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": format!("p-{index}"), "namespace": NAMESPACE, "labels": {"app": "bench"}},
        "spec": {
            "containers": [{
                "name": "c",
                "image": "registry.k8s.io/pause:3.10",
                "resources": {"requests": {"cpu": "100m", "memory": "200Mi"}},
            }],
            "nodeSelector": {"kobune.dev/fake-node": "true"},
            "volumes": [{"name": "gate", "persistentVolumeClaim": {"claimName": CLAIM}}],
        },
    });
    Bytes::from(body.to_string())
}

fn volume() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": CLAIM},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "",
            "claimRef": {"namespace": NAMESPACE, "name": CLAIM},
            "hostPath": {"path": "/none"},
        },
    })
}

fn claim() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM, "namespace": NAMESPACE},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "",
            "volumeName": CLAIM,
            "resources": {"requests": {"storage": "1Gi"}},
        },
    })
}
