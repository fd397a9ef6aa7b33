//! What this machine is and has, as a value; and the Node object made from it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    pub name: String,
    pub hostname: String,
    /// The primary one first.
    pub addresses: Vec<String>,
    pub cpus: u64,
    pub memory_bytes: u64,
    pub storage_bytes: u64,
    /// `hugepages-2Mi` → bytes.
    pub hugepages: BTreeMap<String, u64>,
    pub max_pods: usize,
    pub architecture: String,
    pub kernel_version: String,
    pub os_image: String,
    pub boot_id: String,
    pub machine_id: String,
    pub system_uuid: String,
    pub runtime_version: String,
    pub kubelet_port: u16,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Value>,
    pub swap_bytes: u64,
}

/// What is kept back for the machine itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    pub storage_bytes: u64,
}

/// The sizes of huge pages that the kernel has set aside.
pub fn hugepages(root: &Path) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let kib = name
            .strip_prefix("hugepages-")
            .and_then(|rest| rest.strip_suffix("kB"))
            .and_then(|n| n.parse::<u64>().ok());
        let count = fs::read_to_string(entry.path().join("nr_hugepages"))
            .ok()
            .and_then(|n| n.trim().parse::<u64>().ok());
        if let (Some(kib), Some(count)) = (kib, count) {
            let size =
                if kib % (1 << 20) == 0 { format!("{}Gi", kib >> 20) } else { format!("{}Mi", kib >> 10) };
            found.insert(format!("hugepages-{size}"), count * kib * 1024);
        }
    }
    found
}

fn kib(bytes: u64) -> String {
    format!("{}Ki", bytes / 1024)
}

impl NodeFacts {
    /// `status.capacity`.
    pub fn capacity(&self) -> Value {
        let mut capacity = json!({
            "cpu": self.cpus.to_string(),
            "memory": kib(self.memory_bytes),
            "ephemeral-storage": kib(self.storage_bytes),
            "pods": self.max_pods.to_string(),
        });
        for (name, bytes) in &self.hugepages {
            capacity[name] = json!(if *bytes == 0 { "0".to_owned() } else { kib(*bytes) });
        }
        capacity
    }

    /// `status.allocatable`: capacity without what is reserved and without huge pages.
    pub fn allocatable(&self, reserved: Reserved) -> Value {
        let mut allocatable = self.capacity();
        let cpu = self.allocatable_cpu_millis(reserved);
        let cpu = if cpu.is_multiple_of(1000) { (cpu / 1000).to_string() } else { format!("{cpu}m") };
        allocatable["cpu"] = json!(cpu);
        allocatable["memory"] = json!(kib(self.allocatable_memory_bytes(reserved)));
        allocatable["ephemeral-storage"] = json!(self.allocatable_storage_bytes(reserved).to_string());
        allocatable
    }

    pub fn allocatable_cpu_millis(&self, reserved: Reserved) -> u64 {
        (self.cpus * 1000).saturating_sub(reserved.cpu_millis)
    }

    pub fn allocatable_memory_bytes(&self, reserved: Reserved) -> u64 {
        self.memory_bytes.saturating_sub(reserved.memory_bytes).saturating_sub(self.hugepages.values().sum())
    }

    pub fn allocatable_storage_bytes(&self, reserved: Reserved) -> u64 {
        self.storage_bytes.saturating_sub(reserved.storage_bytes)
    }

    /// All labels that the node gets when it registers.
    pub fn all_labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        for (name, value) in [
            ("kubernetes.io/hostname", self.hostname.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", self.architecture.as_str()),
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", self.architecture.as_str()),
        ] {
            labels.insert(name.to_owned(), value.to_owned());
        }
        labels
    }

    /// `status.addresses`.
    pub fn address_list(&self) -> Value {
        let mut list: Vec<_> =
            self.addresses.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
        list.push(json!({"type": "Hostname", "address": self.hostname}));
        Value::Array(list)
    }

    /// `status.nodeInfo`.
    pub fn node_info(&self) -> Value {
        json!({
            "machineID": self.machine_id,
            "systemUUID": self.system_uuid,
            "bootID": self.boot_id,
            "kernelVersion": self.kernel_version,
            "osImage": self.os_image,
            "containerRuntimeVersion": self.runtime_version,
            "kubeletVersion": crate::VERSION,
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": self.architecture,
            "swap": {"capacity": self.swap_bytes},
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_and_allocatable() {
        let facts = NodeFacts {
            cpus: 2,
            memory_bytes: 1 << 30,
            storage_bytes: 1 << 20,
            max_pods: 110,
            hugepages: BTreeMap::from([("hugepages-2Mi".to_owned(), 2 << 20)]),
            ..NodeFacts::default()
        };
        let reserved = Reserved { cpu_millis: 100, memory_bytes: 1 << 20, storage_bytes: 1 };
        expect_test::expect![[
            r#"{"cpu":"2","ephemeral-storage":"1024Ki","hugepages-2Mi":"2048Ki","memory":"1048576Ki","pods":"110"}"#
        ]]
        .assert_eq(&facts.capacity().to_string());
        expect_test::expect![[
            r#"{"cpu":"1900m","ephemeral-storage":"1048575","hugepages-2Mi":"2048Ki","memory":"1045504Ki","pods":"110"}"#
        ]]
        .assert_eq(&facts.allocatable(reserved).to_string());
    }

    #[test]
    fn hugepage_sizes() {
        let root = tempfile::tempdir().unwrap();
        for (name, count) in [("hugepages-2048kB", "3\n"), ("hugepages-1048576kB", "0\n")] {
            std::fs::create_dir(root.path().join(name)).unwrap();
            std::fs::write(root.path().join(name).join("nr_hugepages"), count).unwrap();
        }
        let found = hugepages(root.path());
        assert_eq!(found["hugepages-2Mi"], 6 << 20);
        assert_eq!(found["hugepages-1Gi"], 0);
    }
}
