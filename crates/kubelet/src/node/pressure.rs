//! Being short of memory, disk or processes: thresholds, and who has to go first.

use k8s_openapi::api::core::v1::Pod;

use crate::quantity;

/// What the node is short of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    pub memory: bool,
    pub disk: bool,
    pub pids: bool,
}

/// What was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    pub memory_available_bytes: u64,
    pub disk_available_bytes: u64,
    pub disk_total_bytes: u64,
    pub inodes_free: u64,
    pub inodes_total: u64,
    pub pids: u64,
    pub pids_max: u64,
}

/// Upstream's hard threshold for memory.
const MEMORY_BYTES: u64 = 100 << 20;
/// A disk with this much left is not short of space, however large it is.
const DISK_BYTES: u64 = 5 << 30;

impl Pressure {
    /// Upstream's hard thresholds: 100 Mi of memory, 10 % of the disk (here at most 5 Gi), 5 % of the inodes; and 3 % of
    /// the processes.
    pub fn judge(signals: &Signals) -> Self {
        let below = |available: u64, total: u64, percent: u64| total > 0 && available < total / 100 * percent;
        Self {
            memory: signals.memory_available_bytes < MEMORY_BYTES,
            disk: signals.disk_available_bytes < DISK_BYTES
                && below(signals.disk_available_bytes, signals.disk_total_bytes, 10)
                || below(signals.inodes_free, signals.inodes_total, 5),
            pids: below(signals.pids_max.saturating_sub(signals.pids), signals.pids_max, 3),
        }
    }
}

/// Which pod to evict for memory. `usage` has pods with the bytes they use.
pub fn choose_for_memory<'a>(usage: &[(&'a Pod, u64)]) -> Option<&'a Pod> {
    choose(usage, |pod| quantity::pod_requests(pod).1)
}

/// Which pod to evict for the disk's space.
pub fn choose_for_disk<'a>(usage: &[(&'a Pod, u64)]) -> Option<&'a Pod> {
    choose(usage, super::storage::requested)
}

/// First those that use more than they asked for, then by priority, then by how much more they use.
fn choose<'a>(usage: &[(&'a Pod, u64)], asked: fn(&Pod) -> i64) -> Option<&'a Pod> {
    let rank = |(pod, used): &&(&Pod, u64)| {
        let asked = asked(pod).max(0).unsigned_abs();
        let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
        let over = i128::from(*used) - i128::from(asked);
        (over <= 0, priority, -over)
    };
    let evictable = |(pod, _): &&(&Pod, u64)| {
        pod.spec.as_ref().and_then(|spec| spec.priority).is_none_or(|priority| priority < 2_000_000_000)
    };
    usage.iter().filter(evictable).min_by_key(rank).map(|(pod, _)| *pod)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn thresholds() {
        let calm = Signals {
            memory_available_bytes: 1 << 30,
            disk_available_bytes: 50,
            disk_total_bytes: 400,
            inodes_free: 100,
            inodes_total: 1000,
            pids: 10,
            pids_max: 1000,
        };
        assert_eq!(Pressure::judge(&calm), Pressure::default());
        assert!(Pressure::judge(&Signals { memory_available_bytes: 99 << 20, ..calm }).memory);
        assert!(Pressure::judge(&Signals { disk_available_bytes: 39, ..calm }).disk);
        let (total, free) = (1 << 40, DISK_BYTES);
        let large = Signals { disk_available_bytes: free, disk_total_bytes: total, ..calm };
        assert!(!Pressure::judge(&large).disk);
        assert!(Pressure::judge(&Signals { disk_available_bytes: free - 1, ..large }).disk);
        assert!(Pressure::judge(&Signals { inodes_free: 40, ..calm }).disk);
        assert!(Pressure::judge(&Signals { pids: 990, ..calm }).pids);
    }

    #[test]
    fn the_greediest_of_the_least_important_goes() {
        let pod = |name: &str, priority: i32, request: &str| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"priority": priority,
                "containers": [{"name": "c", "resources": {"requests": {"memory": request}}}]}}))
            .unwrap()
        };
        let (a, b) = (pod("a", 0, "100"), pod("b", 0, "10"));
        let (c, d) = (pod("c", 5, "0"), pod("critical", 2_000_000_000, "0"));
        let chosen =
            |usage: &[(&Pod, u64)]| choose_for_memory(usage).and_then(|pod| pod.metadata.name.clone());
        assert_eq!(chosen(&[(&a, 50), (&b, 20), (&c, 500), (&d, 999)]).as_deref(), Some("b"));
        assert_eq!(chosen(&[(&a, 300), (&b, 20)]).as_deref(), Some("a"));
        assert_eq!(chosen(&[(&d, 999)]), None);
        let name = choose_for_disk(&[(&a, 5), (&b, 6)]).and_then(|pod| pod.metadata.name.clone());
        assert_eq!(name.as_deref(), Some("b"));
    }
}
