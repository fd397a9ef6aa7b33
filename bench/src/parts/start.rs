//! From an empty data directory to an API that answers, a node that is ready, a pod that runs.

use std::time::{Duration, Instant};

use client::Target;
use serde_json::json;

use crate::cluster::{Cluster, Machine, target};
use crate::load::Durations;
use crate::report::Report;
use crate::{Extent, Failure};

/// The web image is a part of the program: nothing is pulled.
pub const IMAGE: &str = "kobune.local/web:latest";

/// Pods of the namespace `default`.
pub fn pods() -> Target {
    target("", "v1", "pods", "default")
}

pub async fn measure(machine: &Machine, extent: Extent, report: &mut Report) -> Result<(), Failure> {
    let mut taken = [Vec::new(), Vec::new(), Vec::new()];
    let runs = extent.pick(7, 3);
    for _ in 0..runs {
        let cluster = machine.launch()?;
        cluster.api_ready().await?;
        let api = cluster.started.elapsed();
        let (node, pod) = tokio::join!(node_ready(&cluster), first_pod(&cluster));
        for (all, one) in taken.iter_mut().zip([api, node?, pod?]) {
            all.push(one);
        }
    }
    let names = ["cold start to /readyz", "cold start to node Ready", "cold start to first pod Running"];
    for (name, all) in names.into_iter().zip(taken) {
        let all = Durations::new(all);
        let worst = all.percentile_ms(100);
        report.add(name, all.median_ms(), "ms", format!("median of {runs}, worst {worst:.0} ms"));
    }
    Ok(())
}

async fn node_ready(cluster: &Cluster) -> Result<Duration, Failure> {
    cluster.node_ready().await?;
    Ok(cluster.started.elapsed())
}

async fn first_pod(cluster: &Cluster) -> Result<Duration, Failure> {
    let client = cluster.client()?;
    let start = Instant::now();
    // As for anybody else, the first pod is refused until its namespace has a service account.
    while let Err(status) = client.target(pods()).create(&pod("first")).await {
        if start.elapsed() > Duration::from_secs(30) {
            return Err(status.to_string().into());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    cluster.until(&pods(), "metadata.name=first", |pod| pod["status"]["phase"] == "Running").await?;
    Ok(cluster.started.elapsed())
}

/// A pod of one container.
pub fn pod(name: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": "bench"}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "web", "image": IMAGE, "imagePullPolicy": "IfNotPresent"}],
        },
    })
}
