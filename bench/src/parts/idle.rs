//! What the program uses while nobody asks it for anything.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::{Cluster, Machine, target};
use crate::parts::start::IMAGE;
use crate::report::Report;
use crate::{Extent, Failure, processes};

const MEGABYTE: f64 = 1e6;

pub async fn measure(machine: &Machine, extent: Extent, report: &mut Report) -> Result<(), Failure> {
    let cluster = machine.ready().await?;
    rest(&cluster, extent, report, "idle").await?;
    let deployments = cluster.client()?.target(target("apps", "v1", "deployments", "default"));
    deployments.create(&deployment("web", 20)).await.map_err(|status| status.to_string())?;
    ready_replicas(&cluster, "web", 20).await?;
    rest(&cluster, extent, report, "20 pods").await
}

/// Lets the cluster come to rest, then watches it for a while. `state` names the rows.
pub async fn rest(
    cluster: &Cluster,
    extent: Extent,
    report: &mut Report,
    state: &str,
) -> Result<(), Failure> {
    tokio::time::sleep(Duration::from_secs(extent.pick(20, 10))).await;
    let window = Duration::from_secs(extent.pick(60, 20));
    let (cpu, written) = (processes::cpu_seconds(cluster.pid())?, processes::bytes_written(cluster.pid())?);
    tokio::time::sleep(window).await;
    let seconds = window.as_secs_f64();
    let cpu = (processes::cpu_seconds(cluster.pid())? - cpu) / seconds * 100.0;
    let written = (processes::bytes_written(cluster.pid())? - written) as f64 * 60.0 / seconds;
    memory(cluster, report, state)?;
    report.add(&format!("CPU, {state}"), cpu, "%", "of one core");
    report.add(&format!("written, {state}"), written / 1e3, "kB/min", "to the disk");
    Ok(())
}

fn memory(cluster: &Cluster, report: &mut Report, state: &str) -> Result<(), Failure> {
    let main = processes::memory(cluster.pid()).ok_or("the program has ended")?;
    let others = processes::others_of(cluster.program(), cluster.pid())?;
    let others: Vec<_> = others.into_iter().filter_map(processes::memory).collect();
    let others_pss: u64 = others.iter().map(|memory| memory.pss).sum();
    let note = format!(
        "PSS of all processes; the server itself: RSS {:.1} MB; {} others: {:.1} MB",
        main.rss as f64 / MEGABYTE,
        others.len(),
        others_pss as f64 / MEGABYTE
    );
    report.add(&format!("memory, {state}"), (main.pss + others_pss) as f64 / MEGABYTE, "MB", note);
    Ok(())
}

/// Waits until a Deployment has so many ready replicas.
pub async fn ready_replicas(cluster: &Cluster, name: &str, count: u64) -> Result<(), Failure> {
    let deployments = target("apps", "v1", "deployments", "default");
    let is_so = |object: &Value| object["status"]["readyReplicas"] == count;
    cluster.until(&deployments, &format!("metadata.name={name}"), is_so).await
}

/// A Deployment of the web image.
pub fn deployment(name: &str, replicas: u64) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{"name": "web", "image": IMAGE, "imagePullPolicy": "IfNotPresent"}],
                },
            },
        },
    })
}
