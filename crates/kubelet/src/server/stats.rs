//! `/stats/summary`: what the node and its pods use now.

use std::collections::BTreeMap;

use containers::{ContainerId, ContainerState, ContainerStatus, Usage};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Answer, Failure, Server, json};
use crate::pods::executor::chain;

/// The place of the node itself among the samples; no container has this name.
const NODE: &str = "/";

/// The last CPU reading of each container, from which the rate is computed.
#[derive(Default)]
pub(super) struct Samples {
    last: Mutex<BTreeMap<ContainerId, (Instant, u64)>>,
}

impl Samples {
    /// CPU in billionths of a core since the last call; 0 the first time.
    fn rate(&self, id: &ContainerId, nanoseconds: u64) -> u64 {
        let now = Instant::now();
        let before = self.last.lock().insert(id.clone(), (now, nanoseconds));
        let Some((then, used)) = before else { return 0 };
        let elapsed = now.duration_since(then).as_nanos().max(1);
        let rate = u128::from(nanoseconds.saturating_sub(used)) * 1_000_000_000 / elapsed;
        u64::try_from(rate).unwrap_or(u64::MAX)
    }

    fn retain(&self, alive: &[(ContainerStatus, Usage)]) {
        self.last.lock().retain(|id, _| id.0 == NODE || alive.iter().any(|(status, _)| status.id == *id));
    }
}

impl Server {
    /// All running containers with what they use.
    pub(super) async fn usages(&self) -> Result<Vec<(ContainerStatus, Usage)>, Failure> {
        let text = |error: containers::RuntimeError| Failure::internal(chain(&error));
        let all = self.shared.runtime.containers().await.map_err(text)?;
        let mut found = Vec::new();
        for status in all {
            if !matches!(status.state, ContainerState::Running { .. }) {
                continue;
            }
            // A container that ended meanwhile uses nothing.
            if let Ok(usage) = self.shared.runtime.usage(&status.id).await {
                found.push((status, usage));
            }
        }
        Ok(found)
    }

    pub(super) async fn summary(&self) -> Answer {
        let usages = self.usages().await?;
        let now = self.shared.env.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let mut pods: BTreeMap<String, Vec<&(ContainerStatus, Usage)>> = BTreeMap::new();
        for entry in &usages {
            let uid = entry.0.config.labels.get("io.kubernetes.pod.uid").cloned().unwrap_or_default();
            pods.entry(uid).or_default().push(entry);
        }
        let list: Vec<_> = pods.values().map(|containers| self.pod_stats(containers, &now)).collect();
        self.samples.retain(&usages);
        Ok(json(&json!({"node": self.node_stats(&now), "pods": list})))
    }

    fn pod_stats(&self, containers: &[&(ContainerStatus, Usage)], now: &str) -> Value {
        let label = |name: &str| {
            let first = containers.first();
            first.and_then(|(status, _)| status.config.labels.get(name).cloned()).unwrap_or_default()
        };
        let mut total = Usage::default();
        let mut rate = 0;
        let mut list = Vec::new();
        for (status, usage) in containers {
            let own = self.samples.rate(&status.id, usage.cpu_nanoseconds);
            rate += own;
            add(&mut total, usage);
            let mut stats = stats(usage, own, now);
            stats["name"] = json!(status.config.name);
            stats["startTime"] = json!(status.created_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
            stats["rootfs"] = json!({"time": now, "usedBytes": usage.writable_layer_bytes});
            list.push(stats);
        }
        let mut pod = stats(&total, rate, now);
        pod["podRef"] = json!({
            "name": label("io.kubernetes.pod.name"),
            "namespace": label("io.kubernetes.pod.namespace"),
            "uid": label("io.kubernetes.pod.uid"),
        });
        pod["containers"] = Value::Array(list);
        pod["process_stats"] = json!({"process_count": total.pids});
        pod
    }

    fn node_stats(&self, now: &str) -> Value {
        let memory = linux::facts::memory().unwrap_or_default();
        let disk = linux::facts::disk(&self.shared.volumes.pod_directory("")).unwrap_or_default();
        let cpu = linux::facts::cpu_nanoseconds().unwrap_or_default();
        let rate = self.samples.rate(&ContainerId(NODE.to_owned()), cpu);
        let used = memory.total_bytes.saturating_sub(memory.available_bytes);
        let file_system = json!({
            "time": now, "availableBytes": disk.available_bytes, "capacityBytes": disk.total_bytes,
            "usedBytes": disk.used_bytes, "inodesFree": disk.free_inodes, "inodes": disk.total_inodes,
        });
        json!({
            "nodeName": self.shared.node_name,
            "cpu": {"time": now, "usageNanoCores": rate, "usageCoreNanoSeconds": cpu},
            "memory": {"time": now, "availableBytes": memory.available_bytes, "usageBytes": used, "workingSetBytes": used},
            "fs": file_system.clone(),
            "runtime": {"imageFs": file_system.clone(), "containerFs": file_system},
        })
    }
}

fn add(total: &mut Usage, usage: &Usage) {
    total.cpu_nanoseconds += usage.cpu_nanoseconds;
    total.memory_usage_bytes += usage.memory_usage_bytes;
    total.memory_working_set_bytes += usage.memory_working_set_bytes;
    total.memory_rss_bytes += usage.memory_rss_bytes;
    total.pids += usage.pids;
}

fn stats(usage: &Usage, rate: u64, now: &str) -> Value {
    json!({
        "cpu": {"time": now, "usageNanoCores": rate, "usageCoreNanoSeconds": usage.cpu_nanoseconds},
        "memory": {"time": now, "usageBytes": usage.memory_usage_bytes,
            "workingSetBytes": usage.memory_working_set_bytes, "rssBytes": usage.memory_rss_bytes},
    })
}
