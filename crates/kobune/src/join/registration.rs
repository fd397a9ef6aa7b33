//! The node's object comes before the node: from it comes the range of its pods.

use std::path::{Path, PathBuf};
use std::time::Duration;

use client::{Client, Patch};
use controllers::node_ipam::node_ranges;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use machinery::{Object, Status};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{ClusterParameters, follow};
use crate::cli::Failure;
use crate::config::Settings;

/// How long a range of pod addresses is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// What an earlier start learned.
#[derive(Serialize, Deserialize)]
struct Learned {
    parameters: ClusterParameters,
    pod_cidrs: Vec<IpNet>,
}

fn learned_file(dir: &Path) -> PathBuf {
    dir.join("cluster.json")
}

/// Registers, and lays what the cluster says over the settings. If the server cannot be reached, what it said the last
/// time holds.
pub async fn register(client: &Client, settings: &mut Settings, dir: &Path) -> Result<(), Failure> {
    let asked = async {
        let parameters = ClusterParameters::read(client).await?;
        claim(client, settings).await?;
        let pod_cidrs = assigned(client, &settings.node_name).await?;
        Ok::<_, Status>(Learned { parameters, pod_cidrs })
    };
    let learned = match asked.await {
        Ok(learned) => {
            let text = serde_json::to_vec(&learned).map_err(|error| Failure::chain(&error))?;
            auth::pki::write_private(&learned_file(dir), &text).map_err(|error| Failure::chain(&error))?;
            learned
        }
        Err(status) => remembered(dir, &status)?,
    };
    settings.pod_cidrs = learned.pod_cidrs;
    learned.parameters.apply(settings);
    Ok(())
}

fn remembered(dir: &Path, status: &Status) -> Result<Learned, Failure> {
    let told = || Failure::new(format!("the cluster does not take this node: {status}"));
    if !status.is_service_unavailable() {
        return Err(told());
    }
    let text = auth::pki::read(&learned_file(dir)).map_err(|error| Failure::chain(&error))?;
    let text = text.ok_or_else(told)?;
    tracing::warn!(%status, "the server cannot be reached; starting with what it said the last time");
    serde_json::from_str(&text).map_err(|error| Failure::chain(&error))
}

/// Creates the node's object, tainted until the kubelet has taken it over, or corrects its addresses.
async fn claim(client: &Client, settings: &Settings) -> Result<(), Status> {
    let nodes = client.cluster::<Node>();
    let name = &settings.node_name;
    let addresses = json!([
        {"type": "InternalIP", "address": settings.node_ip.to_string()},
        {"type": "Hostname", "address": name},
    ]);
    let Some(present) = nodes.find(name).await? else {
        let body = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name},
            "spec": {"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]},
            "status": {"addresses": addresses},
        });
        return nodes.create(&body).await.map(drop);
    };
    if present.value().pointer("/status/addresses") == Some(&addresses) {
        return Ok(());
    }
    let patch: Value = json!([{"op": "add", "path": "/status/addresses", "value": addresses}]);
    nodes.patch_status(name, Patch::Json(patch)).await.map(drop)
}

async fn assigned(client: &Client, name: &str) -> Result<Vec<IpNet>, Status> {
    let ranges = |node: &Object| Some(node_ranges(node)).filter(|ranges| !ranges.is_empty());
    let awaited = tokio::time::timeout(PATIENCE, follow::until(client.cluster::<Node>(), name, ranges)).await;
    awaited.unwrap_or_else(|_| {
        Err(Status::internal(format!("node {name} got no range of pod addresses within {PATIENCE:?}")))
    })
}
