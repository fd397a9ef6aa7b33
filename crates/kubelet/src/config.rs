//! How a kubelet is set up, and what it is given.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use client::{Cache, Client};
use containers::Runtime;
use env::Env;
use images::ImageService;
use tokio::sync::Semaphore;

use crate::BuildError;
use crate::machine;
use crate::make::NodeSettings;
use crate::make::naming::ClusterDns;
use crate::node::facts::{NodeFacts, Reserved, hugepages};
use crate::pods::references::Watches;
use crate::pods::shared::Shared;
use crate::probes::{Counts, Prober, tls};
use crate::volumes::Volumes;

/// What happens to pods when the kubelet stops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StopMode {
    /// They run on and are adopted at the next start.
    #[default]
    LeavePods,
    /// They are stopped; their objects stay and they are made anew at the next start.
    StopPods,
}

/// Settings of one node.
#[derive(Clone, Debug)]
pub struct Config {
    pub node_name: String,
    /// The node's addresses, the primary one first.
    pub addresses: Vec<IpAddr>,
    /// The kubelet's own directory: `/var/lib/kobune/kubelet`.
    pub root: PathBuf,
    /// Where pod logs are: `/var/log/pods`.
    pub log_root: PathBuf,
    /// The host's resolver file: `/etc/resolv.conf`.
    pub resolver_file: PathBuf,
    pub cluster_dns: Vec<IpAddr>,
    /// `cluster.local`.
    pub cluster_domain: String,
    pub max_pods: usize,
    /// Processes per pod; 0 for no limit.
    pub pod_pids_limit: i64,
    pub reserved: Reserved,
    /// Besides those that every node has.
    pub labels: BTreeMap<String, String>,
    /// Taints that the node registers with, as in `spec.taints`.
    pub taints: Vec<serde_json::Value>,
    /// Where the kubelet's server can be reached.
    pub port: u16,
    /// Where manifests of static pods are.
    pub static_pods: Option<PathBuf>,
    pub stop_mode: StopMode,
    /// For how long the node counts as alive after each renewal of its lease; upstream's `nodeLeaseDurationSeconds`.
    pub lease_duration: Duration,
    /// How long containers get to end under [`StopMode::StopPods`].
    pub stop_grace: Duration,
    /// How many containers are started at the same time.
    pub parallel_starts: usize,
    /// Other nodes are on this machine as well: what this one uses is what its pods and this process use.
    pub shares_machine: bool,
}

impl Config {
    /// Upstream's defaults for a node of this name.
    pub fn new(node_name: impl Into<String>) -> Self {
        Self {
            node_name: node_name.into(),
            addresses: Vec::new(),
            root: PathBuf::from("/var/lib/kobune/kubelet"),
            log_root: PathBuf::from("/var/log/pods"),
            resolver_file: PathBuf::from("/etc/resolv.conf"),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            max_pods: 110,
            pod_pids_limit: 0,
            reserved: Reserved::default(),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            port: 10250,
            static_pods: None,
            stop_mode: StopMode::LeavePods,
            lease_duration: Duration::from_secs(40),
            stop_grace: Duration::from_secs(5),
            parallel_starts: 8,
            shares_machine: false,
        }
    }

    /// Asks the machine what it is.
    pub(crate) fn facts(&self, runtime: &dyn Runtime) -> linux::Result<NodeFacts> {
        let machine = linux::facts::Machine::read()?;
        let root =
            std::iter::successors(Some(self.root.as_path()), |path| path.parent()).find(|path| path.exists());
        let disk = root.map(linux::facts::disk).transpose()?.unwrap_or_default();
        let (name, version) = runtime.version();
        Ok(NodeFacts {
            name: self.node_name.clone(),
            hostname: self.node_name.clone(),
            addresses: self.addresses.iter().map(ToString::to_string).collect(),
            cpus: machine.cpus as u64,
            memory_bytes: machine.memory.total_bytes,
            storage_bytes: disk.total_bytes,
            hugepages: hugepages(std::path::Path::new("/sys/kernel/mm/hugepages")),
            max_pods: self.max_pods,
            architecture: machine.architecture,
            kernel_version: machine.kernel_version,
            os_image: machine.os_image,
            boot_id: machine.boot_id,
            machine_id: machine.machine_id,
            system_uuid: machine.system_uuid,
            runtime_version: format!("{name}://{version}"),
            kubelet_port: self.port,
            labels: self.labels.clone(),
            taints: self.taints.clone(),
            swap_bytes: machine.memory.swap_total_bytes,
        })
    }

    pub(crate) fn shared(
        &self,
        facts: &NodeFacts,
        dependencies: &Dependencies,
        recorder: reconcile::Recorder,
    ) -> Result<Shared, BuildError> {
        let Dependencies { env, client, runtime, images, services, nodes: _ } = dependencies.clone();
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let settings = NodeSettings {
            hostname: facts.hostname.clone(),
            dns: ClusterDns {
                servers: self.cluster_dns.iter().map(ToString::to_string).collect(),
                domain: self.cluster_domain.clone(),
            },
            resolver_file: self.resolver_file.clone(),
            log_root: self.log_root.clone(),
            seccomp_root: self.root.join("seccomp"),
            pids_limit: self.pod_pids_limit,
            memory_capacity_bytes: signed(facts.memory_bytes),
        };
        let node = machine::NodeFacts {
            host_ips: facts.addresses.clone(),
            allocatable_cpu_millis: signed(facts.allocatable_cpu_millis(self.reserved)),
            allocatable_memory_bytes: signed(facts.allocatable_memory_bytes(self.reserved)),
        };
        Ok(Shared {
            node_name: self.node_name.clone(),
            settings,
            facts: node,
            allocatable_storage_bytes: signed(facts.allocatable_storage_bytes(self.reserved)),
            max_pods: self.max_pods,
            shares_machine: self.shares_machine,
            volumes: Volumes::new(self.root.clone(), client.clone(), env.clone()),
            watches: Watches::new(client.clone()),
            services: services.unwrap_or_else(|| crate::services_cache(&client)),
            recorder,
            starts: Semaphore::new(self.parallel_starts.max(1)),
            prober: Prober { tls: tls::trusting().map_err(BuildError::Tls)?, counts: Counts::default() },
            pulled: tokio::sync::Notify::new(),
            env,
            client,
            runtime,
            images,
        })
    }
}

/// What a kubelet works with.
#[derive(Clone)]
pub struct Dependencies {
    pub env: Env,
    pub client: Client,
    pub runtime: Arc<dyn Runtime>,
    pub images: Arc<dyn ImageService>,
    /// A cache of all services that somebody else keeps live; the kubelet keeps its own if there is none.
    pub services: Option<Cache>,
    /// A cache with this node that somebody else keeps live. Without one the kubelet does not notice when the node is
    /// given up, and says at its next turn that it is ready.
    pub nodes: Option<Cache>,
}
