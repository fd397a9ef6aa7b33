//! Registers the fake nodes and keeps their Leases: one timer for all, so that thousands cost little.

use std::sync::Arc;
use std::time::Duration;

use client::Patch;
use env::Shutdown;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use machinery::Status;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::{Shared, body};

/// How many requests are under way at once.
const AT_ONCE: usize = 64;
const RETRY: Duration = Duration::from_secs(1);

/// What a beat of one node's heart is.
#[derive(Clone, Copy)]
enum Beat {
    Register,
    Lease,
    Status,
}

pub async fn run(shared: Arc<Shared>, registered: oneshot::Sender<()>, shutdown: Shutdown) {
    let hearts = async {
        all(&shared, Beat::Register).await;
        // Whoever waited may have given up.
        let _nobody_waits = registered.send(());
        let leases = beat(&shared, Beat::Lease, shared.config.lease_period);
        let statuses = beat(&shared, Beat::Status, shared.config.status_period);
        tokio::join!(leases, statuses);
    };
    shutdown.run_until_cancelled(hearts).await;
}

async fn all(shared: &Arc<Shared>, what: Beat) {
    let mut tasks = JoinSet::new();
    for index in 0..shared.config.count {
        if tasks.len() >= AT_ONCE {
            tasks.join_next().await;
        }
        tasks.spawn(one(shared.clone(), what, index));
    }
    while tasks.join_next().await.is_some() {}
}

/// Lets every node have its turn once per period, evenly spread.
async fn beat(shared: &Arc<Shared>, what: Beat, period: Duration) {
    let count = u32::try_from(shared.config.count.max(1)).unwrap_or(u32::MAX);
    let (start, mut tasks) = (Instant::now(), JoinSet::new());
    for turn in 1_u64.. {
        // Computed from the start, so that nothing adds up.
        let (round, index) = (turn / u64::from(count), turn % u64::from(count));
        let into = period.as_nanos() as u64 / u64::from(count) * index;
        let due = start + period * u32::try_from(round).unwrap_or(u32::MAX) + Duration::from_nanos(into);
        tokio::time::sleep_until(due).await;
        while tasks.try_join_next().is_some() {}
        if tasks.len() >= AT_ONCE {
            tasks.join_next().await;
        }
        tasks.spawn(one(shared.clone(), what, usize::try_from(index).unwrap_or(0)));
    }
}

/// A node that can speak again says at once that it is there; returns its number.
pub async fn greet(shared: Arc<Shared>, index: usize) -> usize {
    one(shared.clone(), Beat::Status, index).await;
    one(shared, Beat::Lease, index).await;
    index
}

async fn one(shared: Arc<Shared>, what: Beat, index: usize) {
    if index >= shared.config.count {
        return;
    }
    loop {
        if !shared.links.pass(index).await {
            return;
        }
        let result = match what {
            Beat::Register => register(&shared, index).await,
            Beat::Lease => renew(&shared, index).await,
            Beat::Status => report(&shared, index).await,
        };
        match (what, result) {
            (_, Ok(())) => return,
            (Beat::Register, Err(status)) => {
                tracing::warn!(%status, node = shared.config.name(index), "a fake node was not registered");
                tokio::time::sleep(RETRY).await;
            }
            (_, Err(status)) => {
                return tracing::debug!(%status, node = shared.config.name(index), "a fake node was not heard");
            }
        }
    }
}

async fn register(shared: &Shared, index: usize) -> Result<(), Status> {
    let nodes = shared.client.cluster::<Node>();
    match nodes.create(&body::node(&shared.config, index, shared.now(index))).await {
        Err(status) if status.is_already_exists() => {}
        other => other.map(drop)?,
    }
    report(shared, index).await?;
    renew(shared, index).await
}

async fn report(shared: &Shared, index: usize) -> Result<(), Status> {
    let status = body::status(&shared.config, index, shared.now(index));
    let patch = Patch::StrategicMerge(json!({"status": status}));
    let name = shared.config.name(index);
    let nodes = shared.client.cluster::<Node>();
    match nodes.patch_status(&name, patch.clone()).await {
        // Somebody deleted the node; a kubelet comes back, too.
        Err(status) if status.is_not_found() => {
            nodes.create(&body::node(&shared.config, index, shared.now(index))).await?;
            nodes.patch_status(&name, patch).await.map(drop)
        }
        other => other.map(drop),
    }
}

async fn renew(shared: &Shared, index: usize) -> Result<(), Status> {
    let (name, now) = (shared.config.name(index), shared.now(index));
    let leases = shared.client.namespaced::<Lease>(body::LEASE_NAMESPACE);
    let spec = body::lease_spec(&name, now);
    let renewed = leases.patch(&name, Patch::Merge(json!({"spec": spec}))).await;
    match renewed {
        Err(status) if status.is_not_found() => {}
        other => return other.map(drop),
    }
    let Some(node) = shared.client.cluster::<Node>().find(&name).await? else {
        return report(shared, index).await;
    };
    leases.create(&body::lease(&name, &node.meta().uid, now)).await.map(drop)
}
