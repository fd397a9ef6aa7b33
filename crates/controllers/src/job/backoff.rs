//! How long a job waits before it tries again: ten seconds, doubled with each failure in a row, at most ten minutes.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::{INDEX_FAILURES, INDEX_IGNORED_FAILURES, annotation};
use crate::shared::claim::ObservedPod;
use crate::shared::pods;

const FIRST_SECONDS: i64 = 10;
const MAX_SECONDS: i64 = 600;

/// How often the pod's index failed before.
pub fn index_failures(pod: &Pod) -> i32 {
    annotation(pod, INDEX_FAILURES).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// How often the pod's index failed before without that having counted.
pub fn ignored_failures(pod: &Pod) -> i32 {
    annotation(pod, INDEX_IGNORED_FAILURES).and_then(|text| text.parse().ok()).unwrap_or(0)
}

pub fn absolute_failures(pod: &Pod) -> i32 {
    index_failures(pod).saturating_add(ignored_failures(pod))
}

/// When the last container of a pod ended; a pod that never ran ends with its deletion.
pub fn finished_at(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let ended = |container: &k8s_openapi::api::core::v1::ContainerStatus| {
        Some(container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0)
    };
    let meta = &pod.metadata;
    let removed = meta.deletion_timestamp.as_ref().or(meta.creation_timestamp.as_ref()).map(|time| time.0);
    containers.iter().filter_map(ended).max().or(removed)
}

fn left(failures: u32, last: Timestamp, now: Timestamp) -> Duration {
    let delay = FIRST_SECONDS.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(MAX_SECONDS);
    let left = delay - (now.as_second() - last.as_second());
    Duration::from_secs(left.max(0).unsigned_abs())
}

/// How long to wait, by the failures since the last success among the pods that are there.
pub fn of_job(finished: &[&ObservedPod], now: Timestamp) -> Duration {
    let ends = |phase: &'static str| {
        let of_phase = finished
            .iter()
            .filter(move |(_, pod)| (pods::phase(pod) == "Succeeded") == (phase == "Succeeded"));
        of_phase.filter_map(|(_, pod)| finished_at(pod))
    };
    let last_success = ends("Succeeded").max();
    let failures: Vec<Timestamp> =
        ends("Failed").filter(|at| last_success.is_none_or(|success| *at > success)).collect();
    match failures.iter().max() {
        None => Duration::ZERO,
        Some(last) => left(u32::try_from(failures.len()).unwrap_or(u32::MAX), *last, now),
    }
}

/// How long an index waits after this pod of it failed.
pub fn of_index(last: &Pod, now: Timestamp) -> Duration {
    let failures = u32::try_from(absolute_failures(last)).unwrap_or(0) + 1;
    finished_at(last).map_or(Duration::ZERO, |at| left(failures, at, now))
}
