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

/// What a node uses.
#[derive(Default)]
pub(super) struct NodeUsage {
    pub cpu_nanoseconds: u64,
    pub memory_bytes: u64,
    available_bytes: u64,
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
        let mut list = Vec::new();
        for containers in pods.values() {
            list.push(self.pod_stats(containers, &now).await);
        }
        self.samples.retain(&usages);
        Ok(json(&json!({"node": self.node_stats(&now).await, "pods": list})))
    }

    async fn pod_stats(&self, containers: &[&(ContainerStatus, Usage)], now: &str) -> Value {
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
            // A container that ended meanwhile has written nothing that counts.
            let layer = self.shared.runtime.writable_layer_bytes(&status.id).await.unwrap_or(0);
            stats["rootfs"] = json!({"time": now, "usedBytes": layer});
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

    /// What the node uses: the whole machine, or the node's share of it where several are on one. None if the machine
    /// does not say.
    pub(super) async fn node_usage(&self) -> Option<NodeUsage> {
        let memory = linux::facts::memory().ok()?;
        if !self.shared.shares_machine {
            return Some(NodeUsage {
                cpu_nanoseconds: linux::facts::cpu_nanoseconds().ok()?,
                memory_bytes: memory.total_bytes.saturating_sub(memory.available_bytes),
                available_bytes: memory.available_bytes,
            });
        }
        let pods = self.shared.runtime.total_usage().await.ok()?;
        let (cpu, resident) = linux::facts::own_usage().ok()?;
        Some(NodeUsage {
            cpu_nanoseconds: pods.cpu_nanoseconds + cpu,
            memory_bytes: pods.memory_working_set_bytes + resident,
            available_bytes: memory.available_bytes,
        })
    }

    async fn node_stats(&self, now: &str) -> Value {
        let used = self.node_usage().await.unwrap_or_default();
        let disk = linux::facts::disk(&self.shared.volumes.pod_directory("")).unwrap_or_default();
        let (cpu, memory) = (used.cpu_nanoseconds, used.memory_bytes);
        let rate = self.samples.rate(&ContainerId(NODE.to_owned()), cpu);
        let file_system = json!({
            "time": now, "availableBytes": disk.available_bytes, "capacityBytes": disk.total_bytes,
            "usedBytes": disk.used_bytes, "inodesFree": disk.free_inodes, "inodes": disk.total_inodes,
        });
        json!({
            "nodeName": self.shared.node_name,
            "cpu": {"time": now, "usageNanoCores": rate, "usageCoreNanoSeconds": cpu},
            "memory": {"time": now, "availableBytes": used.available_bytes, "usageBytes": memory, "workingSetBytes": memory},
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
