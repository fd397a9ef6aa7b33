//! How long a pod takes to run, and a Deployment to grow.

use std::time::{Duration, Instant};

use client::{Patch, WatchEvent, WatchOptions, WatchStream};
use futures::StreamExt;
use serde_json::json;

use crate::cluster::{Machine, target};
use crate::load::Durations;
use crate::parts::idle::{deployment, ready_replicas};
use crate::parts::start::{pod, pods};
use crate::report::Report;
use crate::{Extent, Failure};

const PATIENCE: Duration = Duration::from_secs(60);

pub async fn measure(machine: &Machine, extent: Extent, report: &mut Report) -> Result<(), Failure> {
    starts(machine, extent, report).await?;
    let mut taken = Vec::new();
    for _ in 0..extent.pick(5, 2) {
        taken.push(scaling(machine).await?);
    }
    let taken = Durations::new(taken);
    let note = format!("to 20 ready replicas; median of {}", taken.len());
    report.add("replicas 2 to 20", taken.median_ms() / 1e3, "s", note);
    Ok(())
}

async fn starts(machine: &Machine, extent: Extent, report: &mut Report) -> Result<(), Failure> {
    let cluster = machine.ready().await?;
    let client = cluster.client()?;
    cluster.until(&target("", "v1", "serviceaccounts", "default"), "metadata.name=default", |_| true).await?;
    let watch = client.target(pods()).watch(&WatchOptions::default()).await;
    let mut watch = watch.map_err(|status| status.to_string())?;
    let mut taken = Vec::new();
    // The first one unpacks the image and is not what is measured here.
    for index in 0..=extent.pick(50, 20) {
        let name = format!("start-{index}");
        let start = Instant::now();
        client.target(pods()).create(&pod(&name)).await.map_err(|status| status.to_string())?;
        tokio::time::timeout(PATIENCE, running(&mut watch, &name)).await??;
        taken.push(start.elapsed());
    }
    taken.remove(0);
    let taken = Durations::new(taken);
    let note = format!("from the create to a watcher's Running; {} pods one after the other", taken.len());
    report.add("pod start, p50", taken.percentile_ms(50), "ms", note);
    report.add("pod start, p99", taken.percentile_ms(99), "ms", "");
    Ok(())
}

async fn running(watch: &mut WatchStream, name: &str) -> Result<(), Failure> {
    while let Some(event) = watch.next().await {
        if let WatchEvent::Modified(object) = event.map_err(|status| status.to_string())?
            && object.meta().name == name
            && object.value()["status"]["phase"] == "Running"
        {
            return Ok(());
        }
    }
    Err("the watch ended".into())
}

async fn scaling(machine: &Machine) -> Result<Duration, Failure> {
    let cluster = machine.ready().await?;
    let deployments = cluster.client()?.target(target("apps", "v1", "deployments", "default"));
    deployments.create(&deployment("web", 2)).await.map_err(|status| status.to_string())?;
    ready_replicas(&cluster, "web", 2).await?;
    let start = Instant::now();
    let patch = Patch::Merge(json!({"spec": {"replicas": 20}}));
    deployments.patch("web", patch).await.map_err(|status| status.to_string())?;
    ready_replicas(&cluster, "web", 20).await?;
    Ok(start.elapsed())
}
