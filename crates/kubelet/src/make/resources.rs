//! From requests and limits to what the kernel takes.

use containers::Resources;
use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};

use crate::quantity;

const PERIOD_US: u64 = 100_000;
const MIN_QUOTA_US: i64 = 1000;
const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;

/// 1024 shares per core, at least the kernel's minimum.
pub fn shares(millis: i64) -> u64 {
    if millis <= 0 {
        return MIN_SHARES;
    }
    (millis.unsigned_abs().saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// Microseconds per period for a limit; 0 for none.
fn quota(millis: Option<i64>) -> i64 {
    match millis {
        None | Some(0) => 0,
        Some(millis) => (millis.saturating_mul(PERIOD_US as i64) / 1000).max(MIN_QUOTA_US),
    }
}

/// How readily the kernel kills the container when memory runs out.
pub fn oom_score_adjustment(pod: &Pod, resources: Option<&ResourceRequirements>, capacity_bytes: i64) -> i64 {
    let critical = pod.spec.as_ref().and_then(|spec| spec.priority).is_some_and(|p| p >= 2_000_000_000);
    if critical {
        return -997;
    }
    match quantity::qos_class(pod) {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let (_, memory) = quantity::requests(resources);
            let share = i128::from(memory) * 1000 / i128::from(capacity_bytes.max(1));
            (1000 - share as i64).clamp(3, 999)
        }
    }
}

/// The limits of one container.
pub fn container(
    pod: &Pod,
    resources: Option<&ResourceRequirements>,
    capacity_bytes: i64,
    pids_limit: i64,
) -> Resources {
    let (cpu, _) = quantity::requests(resources);
    let (cpu_limit, memory_limit) = quantity::limits(resources);
    Resources {
        cpu_shares: shares(cpu),
        cpu_quota_us: quota(cpu_limit),
        cpu_period_us: PERIOD_US,
        memory_limit_bytes: memory_limit.unwrap_or(0),
        pids_limit,
        oom_score_adj: oom_score_adjustment(pod, resources, capacity_bytes),
    }
}

/// The limits of the whole pod: sums, and a limit only where every container has one.
pub fn pod(pod: &Pod, pids_limit: i64) -> Resources {
    let (cpu, _) = quantity::pod_requests(pod);
    let (cpu_limit, memory_limit) = pod_limits(pod);
    Resources {
        cpu_shares: shares(cpu),
        cpu_quota_us: quota(cpu_limit),
        cpu_period_us: PERIOD_US,
        memory_limit_bytes: memory_limit.unwrap_or(0),
        pids_limit,
        oom_score_adj: 0,
    }
}

/// The pod's limits while its containers are being resized: none of those that run may exceed them.
pub fn pod_around(pod: &Pod, running: &[Resources], pids_limit: i64) -> Resources {
    let wanted = self::pod(pod, pids_limit);
    let widest = |wanted: i64, of: fn(&Resources) -> i64| match wanted {
        0 => 0,
        wanted => running.iter().map(of).fold(wanted, i64::max),
    };
    Resources {
        cpu_quota_us: widest(wanted.cpu_quota_us, |own| own.cpu_quota_us),
        memory_limit_bytes: widest(wanted.memory_limit_bytes, |own| own.memory_limit_bytes),
        ..wanted
    }
}

/// Thousandths of a CPU, and bytes.
type Limits = (Option<i64>, Option<i64>);

fn pod_limits(pod: &Pod) -> Limits {
    let Some(spec) = &pod.spec else { return (None, None) };
    if let Some(limits) = spec.resources.as_ref().and_then(|resources| resources.limits.as_ref()) {
        return quantity::cpu_and_memory(Some(limits));
    }
    let all = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let sum = |pick: fn(Limits) -> Option<i64>| {
        all()
            .map(|container| pick(quantity::limits(container.resources.as_ref())))
            .try_fold(0_i64, |sum, limit| {
                limit.filter(|limit| *limit > 0).map(|limit| sum.saturating_add(limit))
            })
    };
    (sum(|limits| limits.0), sum(|limits| limits.1))
}

/// The pod's cgroup below the runtime's root, by its class.
pub fn cgroup_parent(pod: &Pod) -> String {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    match quantity::qos_class(pod) {
        "Guaranteed" => format!("pod{uid}"),
        "BestEffort" => format!("besteffort/pod{uid}"),
        _ => format!("burstable/pod{uid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(resources: serde_json::Value, want: (u64, i64, i64, i64), cgroup: &str) {
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {"uid": "u"}, "spec": {"containers": [{"name": "c", "resources": resources}]}}),
        )
        .unwrap();
        let own = pod.spec.as_ref().unwrap().containers[0].resources.clone();
        let made = container(&pod, own.as_ref(), 1000 << 20, 0);
        let got = (made.cpu_shares, made.cpu_quota_us, made.memory_limit_bytes, made.oom_score_adj);
        assert_eq!((got, cgroup_parent(&pod).as_str()), (want, cgroup));
    }

    #[test]
    fn the_pod_is_as_wide_as_its_widest_container() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [
            {"name": "a", "resources": {"limits": {"cpu": "1", "memory": "100"}}},
            {"name": "b", "resources": {"limits": {"cpu": "1"}}}]}}))
        .unwrap();
        let running =
            |cpu_quota_us| Resources { cpu_quota_us, memory_limit_bytes: 500, ..Resources::default() };
        let check = |running: &[Resources], quota: i64| {
            let made = pod_around(&pod, running, 0);
            assert_eq!((made.cpu_quota_us, made.memory_limit_bytes), (quota, 0));
        };
        check(&[], 200_000);
        check(&[running(100_000)], 200_000);
        check(&[running(100_000), running(300_000)], 300_000);
    }

    #[test]
    fn by_class() {
        check(json!({}), (2, 0, 0, 1000), "besteffort/podu");
        check(json!({"requests": {"cpu": "500m", "memory": "100Mi"}}), (512, 0, 0, 900), "burstable/podu");
        check(json!({"limits": {"cpu": "2", "memory": "64Mi"}}), (2048, 200_000, 64 << 20, -997), "podu");
        check(json!({"limits": {"cpu": "1m"}}), (2, 1000, 0, 999), "burstable/podu");
    }
}
