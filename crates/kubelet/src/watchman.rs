//! Watches the node's memory, disk and processes; frees images and evicts pods when they run short.

use std::sync::Arc;
use std::time::Duration;

use env::Shutdown;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

use crate::logs::rotate::{Limits, rotate_all};
use crate::machine::Eviction;
use crate::node::pressure::{Pressure, Signals, choose_for_memory};
use crate::pods::Pods;
use crate::pods::shared::Shared;

/// Upstream's housekeeping period. What the kernel runs short of has no event to wait for.
const PERIOD: Duration = Duration::from_secs(10);

/// Measures until `shutdown`, and besides whenever an image was pulled.
pub async fn watch(
    shared: Arc<Shared>,
    pods: Arc<Pods>,
    pressure: watch::Sender<Pressure>,
    shutdown: Shutdown,
) {
    let work = async {
        loop {
            // Either a pull or the end of the period; both mean that it is time to look.
            let _pulled = tokio::time::timeout(PERIOD, shared.pulled.notified()).await;
            rotate_all(&shared, Limits::default()).await;
            let now = measure(&shared).map(|signals| Pressure::judge(&signals)).unwrap_or_default();
            pressure.send_if_modified(|known| std::mem::replace(known, now) != now);
            if now.disk {
                free_images(&shared).await;
            }
            if now.memory {
                evict_for_memory(&shared, &pods).await;
            }
        }
    };
    shutdown.run_until_cancelled(work).await;
}

/// `None` when the machine does not say.
fn measure(shared: &Shared) -> Option<Signals> {
    let memory = linux::facts::memory().ok()?;
    let disk = linux::facts::disk(&shared.volumes.pod_directory("")).ok()?;
    let number = |path: &str| std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let tasks = load.split_whitespace().nth(3).and_then(|field| field.split('/').nth(1)?.parse().ok());
    Some(Signals {
        memory_available_bytes: memory.available_bytes,
        disk_available_bytes: disk.available_bytes,
        disk_total_bytes: disk.total_bytes,
        inodes_free: disk.free_inodes,
        inodes_total: disk.total_inodes,
        pids: tasks.unwrap_or(0),
        pids_max: number("/proc/sys/kernel/pid_max").unwrap_or(0),
    })
}

/// Removes images that no container uses, the largest first, until the disk is no longer short.
async fn free_images(shared: &Shared) {
    let (Ok(mut images), Ok(containers)) = (shared.images.list().await, shared.runtime.containers().await)
    else {
        return;
    };
    let mounts = linux::mount::list().unwrap_or_default();
    // A mounted image volume names its layers in the mount's options, or as its root.
    let mounted = |layer: &std::path::PathBuf| {
        let name = layer.to_string_lossy();
        mounts.iter().any(|m| m.super_options.contains(&*name) || name.ends_with(&*m.root.to_string_lossy()))
    };
    images.retain(|image| {
        !containers.iter().any(|container| container.config.image_id == image.id)
            && !image.layers.iter().any(mounted)
    });
    images.sort_by_key(|image| std::cmp::Reverse(image.size_bytes));
    for image in images {
        if !measure(shared).is_some_and(|signals| Pressure::judge(&signals).disk) {
            return;
        }
        if let Err(error) = shared.images.remove(&image.id).await {
            tracing::warn!(image = %image.id, %error, "unused image not removed");
        }
    }
}

async fn evict_for_memory(shared: &Shared, pods: &Pods) {
    let Ok(containers) = shared.runtime.containers().await else { return };
    let mut usage: Vec<(Arc<Pod>, u64)> = Vec::new();
    for object in pods.cache().all() {
        let Ok(pod) = client::typed::<Pod>(&object) else { continue };
        let uid = Some(object.meta().uid.as_str());
        let mut used = 0;
        for container in containers
            .iter()
            .filter(|c| c.config.labels.get("io.kubernetes.pod.uid").map(String::as_str) == uid)
        {
            used +=
                shared.runtime.usage(&container.id).await.map_or(0, |usage| usage.memory_working_set_bytes);
        }
        if used > 0 {
            usage.push((pod, used));
        }
    }
    let ranked: Vec<_> = usage.iter().map(|(pod, used)| (pod.as_ref(), *used)).collect();
    let Some(chosen) = choose_for_memory(&ranked) else { return };
    let uid = chosen.metadata.uid.clone().unwrap_or_default();
    let message = "The node was low on resource: memory. ".to_owned();
    pods.evict(&uid, Eviction { reason: "Evicted".to_owned(), message, grace_seconds: Some(0) }).await;
}
