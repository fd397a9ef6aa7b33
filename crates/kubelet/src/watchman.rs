//! Watches the node's memory, disk and processes; frees images and evicts pods when they run short.

use std::sync::Arc;
use std::time::Duration;

use containers::ContainerStatus;
use env::Shutdown;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

use crate::logs::rotate::{Limits, rotate_all};
use crate::machine::Eviction;
use crate::node::pressure::{Pressure, Signals, choose_for_disk, choose_for_memory};
use crate::node::storage::{Occupied, disk_volumes, exceeds, is_limited};
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
            evict_beyond_limits(&shared, &pods).await;
            if now.disk && !free_images(&shared).await {
                evict_for_disk(&shared, &pods).await;
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

/// Removes images that no container uses, the largest first, until the disk is no longer short; says whether that
/// was enough.
async fn free_images(shared: &Shared) -> bool {
    let (Ok(mut images), Ok(containers)) = (shared.images.list().await, shared.runtime.containers().await)
    else {
        return true;
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
        if !disk_is_short(shared) {
            return true;
        }
        if let Err(error) = shared.images.remove(&image.id).await {
            tracing::warn!(image = %image.id, %error, "unused image not removed");
        }
    }
    !disk_is_short(shared)
}

fn disk_is_short(shared: &Shared) -> bool {
    measure(shared).is_some_and(|signals| Pressure::judge(&signals).disk)
}

/// What the containers of a pod are called and where they write.
fn containers_of<'a>(containers: &'a [ContainerStatus], uid: &str) -> Vec<&'a ContainerStatus> {
    let owner = |status: &ContainerStatus| {
        status.config.labels.get("io.kubernetes.pod.uid").is_some_and(|owner| owner == uid)
    };
    containers.iter().filter(|status| owner(status)).collect()
}

/// All pods of this node with what `measure` finds of each, as far as it finds anything.
async fn survey(shared: &Shared, pods: &Pods, memory: bool) -> Vec<(Arc<Pod>, u64)> {
    let Ok(containers) = shared.runtime.containers().await else { return Vec::new() };
    let mut found = Vec::new();
    for object in pods.cache().all() {
        let Ok(pod) = client::typed::<Pod>(&object) else { continue };
        let own = containers_of(&containers, &object.meta().uid);
        let used =
            if memory { memory_of(shared, &own).await } else { occupied(shared, &pod, &own).await.total() };
        if used > 0 {
            found.push((pod, used));
        }
    }
    found
}

async fn memory_of(shared: &Shared, containers: &[&ContainerStatus]) -> u64 {
    let mut used = 0;
    for container in containers {
        used += shared.runtime.usage(&container.id).await.map_or(0, |usage| usage.memory_working_set_bytes);
    }
    used
}

/// What the pod occupies on disk. Nothing is known of what cannot be read.
async fn occupied(shared: &Shared, pod: &Pod, containers: &[&ContainerStatus]) -> Occupied {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let mut found = Occupied::default();
    for container in containers {
        let layer = shared.runtime.writable_layer_bytes(&container.id).await.unwrap_or(0);
        let log = std::fs::metadata(&container.log_path).map_or(0, |log| log.len());
        *found.containers.entry(container.config.name.clone()).or_default() += layer + log;
    }
    for (name, _) in disk_volumes(pod) {
        let Some(place) = shared.volumes.place(&uid, name) else { continue };
        let size = tokio::task::spawn_blocking(move || linux::facts::occupied_bytes(&place)).await;
        found.volumes.insert(name.to_owned(), size.unwrap_or(0));
    }
    found
}

/// Ends pods that use more of the disk than they may.
async fn evict_beyond_limits(shared: &Shared, pods: &Pods) {
    let limited: Vec<_> = pods
        .cache()
        .all()
        .iter()
        .filter_map(|object| client::typed::<Pod>(object).ok())
        .filter(|pod| is_limited(pod) && is_active(pod))
        .collect();
    if limited.is_empty() {
        return;
    }
    let Ok(containers) = shared.runtime.containers().await else { return };
    for pod in limited {
        let own = containers_of(&containers, pod.metadata.uid.as_deref().unwrap_or_default());
        if let Some(message) = exceeds(&pod, &occupied(shared, &pod, &own).await) {
            evict(pods, &pod, message).await;
        }
    }
}

fn is_active(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}

async fn evict_for_memory(shared: &Shared, pods: &Pods) {
    let usage = survey(shared, pods, true).await;
    let ranked: Vec<_> = usage.iter().map(|(pod, used)| (pod.as_ref(), *used)).collect();
    if let Some(chosen) = choose_for_memory(&ranked) {
        evict(pods, chosen, "The node was low on resource: memory. ".to_owned()).await;
    }
}

async fn evict_for_disk(shared: &Shared, pods: &Pods) {
    let usage: Vec<_> = survey(shared, pods, false).await;
    let ranked: Vec<_> =
        usage.iter().filter(|(pod, _)| is_active(pod)).map(|(pod, used)| (pod.as_ref(), *used)).collect();
    if let Some(chosen) = choose_for_disk(&ranked) {
        evict(pods, chosen, "The node was low on resource: ephemeral-storage. ".to_owned()).await;
    }
}

async fn evict(pods: &Pods, pod: &Pod, message: String) {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    pods.evict(&uid, Eviction { reason: "Evicted".to_owned(), message, grace_seconds: Some(0) }).await;
}
