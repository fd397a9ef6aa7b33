//! The runtime interface: sandboxes, containers, streams, events.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{broadcast, mpsc};

/// Who a sandbox belongs to. The uid tells two pods of one name apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodIdentity {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// What a pod's containers share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SandboxConfig {
    pub pod: PodIdentity,
    /// Counts the sandboxes that this pod has had.
    pub attempt: u32,
    pub hostname: String,
    /// Where container logs are written, e.g. `/var/log/pods/NAMESPACE_NAME_UID`.
    pub log_directory: PathBuf,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// Use the host's namespace instead of an own one.
    pub host_network: bool,
    pub host_pid: bool,
    pub host_ipc: bool,
    /// All containers of the pod share one process namespace.
    pub share_process_namespace: bool,
    /// The pod's cgroup relative to the runtime's root, e.g. `burstable/pod<uid>`.
    pub cgroup_parent: String,
    pub sysctls: BTreeMap<String, String>,
    /// Limits and requests of the whole pod, set on the pod's cgroup.
    pub resources: Resources,
}

/// Limits as the kernel takes them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// Relative weight in cgroup v1's scale (2 to 262144); 0 leaves it alone.
    pub cpu_shares: u64,
    /// Microseconds of CPU time per `cpu_period_us`; 0 for no limit.
    pub cpu_quota_us: i64,
    pub cpu_period_us: u64,
    /// Bytes; 0 for no limit.
    pub memory_limit_bytes: i64,
    /// Processes; 0 for no limit.
    pub pids_limit: i64,
    pub oom_score_adj: i64,
}

/// A process to run in a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// The container's name within the pod.
    pub name: String,
    /// Counts the restarts of this container within the pod.
    pub attempt: u32,
    /// An image ID that the image service knows.
    pub image_id: String,
    /// What the user wrote, shown in listings.
    pub image: String,
    /// Replaces the image's entry point when not empty.
    pub command: Vec<String>,
    /// Replaces the image's command when not empty.
    pub args: Vec<String>,
    pub working_directory: String,
    /// In order; a later one wins. The image's own come first.
    pub environment: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// The log file's path below the sandbox's log directory, e.g. `web/0.log`.
    pub log_path: PathBuf,
    pub stdin: bool,
    /// Close stdin after the first attached client leaves.
    pub stdin_once: bool,
    pub tty: bool,
    pub resources: Resources,
    pub security: Security,
}

/// A bind mount.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    pub host_path: PathBuf,
    pub container_path: PathBuf,
    pub read_only: bool,
    /// Read-only all the way down.
    pub recursive_read_only: bool,
    pub propagation: Propagation,
}

/// Mount propagation between host and container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    #[default]
    Private,
    HostToContainer,
    Bidirectional,
}

/// A host device made available in the container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Device {
    pub host_path: PathBuf,
    pub container_path: PathBuf,
    /// Of `r`, `w`, `m`.
    pub permissions: String,
}

/// Who the process is and what it may do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Security {
    pub privileged: bool,
    pub run_as_user: Option<u32>,
    pub run_as_group: Option<u32>,
    pub supplemental_groups: Vec<u32>,
    /// Ignore the groups that the image's `/etc/group` gives the user.
    pub strict_supplemental_groups: bool,
    pub read_only_root: bool,
    pub no_new_privileges: bool,
    /// Names without `CAP_`; `ALL` for all. Applied to the default set.
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
    pub seccomp: Seccomp,
    /// Paths to hide and to make read-only; the runtime's default when `None`.
    pub masked_paths: Option<Vec<PathBuf>>,
    pub read_only_paths: Option<Vec<PathBuf>>,
    /// Join the process namespace of this container (an ephemeral container's target).
    pub target_container: Option<ContainerId>,
}

/// The system-call filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    #[default]
    Unconfined,
    /// The runtime's own profile.
    RuntimeDefault,
    /// A profile file on the host.
    Localhost(PathBuf),
}

/// Identifies a sandbox on this machine; 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SandboxId(pub String);

/// Identifies a container on this machine; 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContainerId(pub String);

/// A sandbox as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SandboxStatus {
    pub id: SandboxId,
    pub config: SandboxConfig,
    /// The pause process runs and the network is attached.
    pub ready: bool,
    pub created_at: Timestamp,
    /// The pod's addresses; empty with the host's network.
    pub addresses: Vec<IpAddr>,
    /// The network namespace's path; `None` with the host's network.
    pub network_namespace: Option<PathBuf>,
}

/// A container as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerStatus {
    pub id: ContainerId,
    pub sandbox: SandboxId,
    pub config: ContainerConfig,
    pub state: ContainerState,
    pub created_at: Timestamp,
    /// The absolute path of the log.
    pub log_path: PathBuf,
    /// The process on the host while running.
    pub pid: Option<u32>,
}

/// Where in its life a container is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ContainerState {
    Created,
    Running {
        started_at: Timestamp,
    },
    Exited {
        started_at: Timestamp,
        finished_at: Timestamp,
        /// 128 + signal when killed by one.
        exit_code: i32,
        /// The signal that ended it, or 0.
        signal: i32,
        /// `Completed`, `Error` or `OOMKilled`.
        reason: String,
        message: String,
    },
    /// It cannot be told, e.g. because its monitor was killed.
    Unknown,
}

/// Something happened to a container or sandbox that nobody asked for just now, or a start succeeded.
#[derive(Clone, Debug, PartialEq)]
pub enum RuntimeEvent {
    Started {
        sandbox: SandboxId,
        container: ContainerId,
        pod: PodIdentity,
    },
    Exited {
        sandbox: SandboxId,
        container: ContainerId,
        pod: PodIdentity,
    },
    /// The pause process is gone.
    SandboxStopped {
        sandbox: SandboxId,
        pod: PodIdentity,
    },
}

/// What a container uses now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    pub cpu_nanoseconds: u64,
    pub memory_usage_bytes: u64,
    pub memory_working_set_bytes: u64,
    pub memory_rss_bytes: u64,
    pub pids: u64,
}

/// A command to run inside a container, or a client to attach to its main process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamRequest {
    /// Empty for attach.
    pub command: Vec<String>,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
    /// Columns and rows that the command's terminal has from the start, if they are known.
    pub size: Option<(u16, u16)>,
}

/// The ends of a running command's streams.
pub struct Streams {
    pub stdin: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    pub stdout: Option<Pin<Box<dyn AsyncRead + Send>>>,
    pub stderr: Option<Pin<Box<dyn AsyncRead + Send>>>,
    /// Columns and rows for a terminal.
    pub resize: mpsc::Sender<(u16, u16)>,
    /// The exit code, once; an attach yields 0 when the container ends.
    pub exit: tokio::sync::oneshot::Receiver<i32>,
}

/// The answer of [`Runtime::exec_sync`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExecResult {
    pub exit_code: i32,
    /// At most 16 KiB of each stream, as upstream's probes keep.
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// A byte stream in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Why the runtime could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("no such sandbox: {0}")]
    NoSandbox(String),
    #[error("no such container: {0}")]
    NoContainer(String),
    #[error("container {0} is not running")]
    NotRunning(String),
    /// The process could not be created or started: bad command, missing user, refused mount, …
    #[error("{0}")]
    Start(String),
    /// The command did not end in time and was killed.
    #[error("command timed out after {0:?}")]
    Timeout(Duration),
    #[error("{what}")]
    Io {
        what: String,
        #[source]
        source: std::io::Error,
    },
    /// Anything else, with what was being done.
    #[error("{what}: {cause}")]
    Other { what: String, cause: String },
}

/// Gives a sandbox's network namespace its addresses. Implemented by the `network` crate.
#[async_trait]
pub trait SandboxNetwork: Send + Sync {
    /// Connects the namespace at `netns` and returns its addresses, the primary one first. Calling it again for
    /// the same sandbox returns the same addresses.
    async fn attach(
        &self,
        id: &SandboxId,
        pod: &PodIdentity,
        netns: &Path,
    ) -> Result<Vec<IpAddr>, RuntimeError>;
    /// Takes everything back that `attach` made; doing so twice is no error.
    async fn detach(&self, id: &SandboxId, netns: &Path) -> Result<(), RuntimeError>;
    /// Learns, at start, which sandboxes are still there with which addresses; everything else is released.
    async fn adopt(&self, alive: &[(SandboxId, PathBuf, Vec<IpAddr>)]) -> Result<(), RuntimeError>;
}

/// The runtime. Every call is idempotent; containers outlive the process that created them.
#[async_trait]
pub trait Runtime: Send + Sync {
    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<SandboxStatus, RuntimeError>;
    /// Kills what runs in it and detaches the network; the record stays until removed.
    async fn stop_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError>;
    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError>;
    async fn sandboxes(&self) -> Result<Vec<SandboxStatus>, RuntimeError>;
    /// Changes the limits of the pod as a whole; nothing happens when they are what they were.
    async fn update_sandbox_resources(
        &self,
        id: &SandboxId,
        resources: &Resources,
    ) -> Result<(), RuntimeError>;

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
    ) -> Result<ContainerId, RuntimeError>;
    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError>;
    /// Sends the stop signal (the image's, `TERM` by default), waits up to `grace`, then kills. Returns when it ended.
    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError>;
    /// Removes a container that does not run, with its writable layer; its log stays.
    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError>;
    async fn containers(&self) -> Result<Vec<ContainerStatus>, RuntimeError>;
    async fn container(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError>;
    async fn update_resources(&self, id: &ContainerId, resources: &Resources) -> Result<(), RuntimeError>;
    /// Processor time, memory and processes: a few counters are read.
    async fn usage(&self, id: &ContainerId) -> Result<Usage, RuntimeError>;
    /// The same of everything that this runtime has started, pods that are gone included in the processor time.
    async fn total_usage(&self) -> Result<Usage, RuntimeError>;
    /// Bytes that the container has written to its own file system. Every file of it is looked at.
    async fn writable_layer_bytes(&self, id: &ContainerId) -> Result<u64, RuntimeError>;
    /// Close and open the log again, after it was rotated.
    async fn reopen_log(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecResult, RuntimeError>;
    async fn exec(&self, id: &ContainerId, request: &StreamRequest) -> Result<Streams, RuntimeError>;
    async fn attach(&self, id: &ContainerId, request: &StreamRequest) -> Result<Streams, RuntimeError>;
    /// Connects to a port on the sandbox's loopback.
    async fn port_forward(&self, id: &SandboxId, port: u16) -> Result<Box<dyn Duplex>, RuntimeError>;

    /// Events from now on. A receiver that lags must list again.
    fn events(&self) -> broadcast::Receiver<RuntimeEvent>;
    /// `kobune 0.1.0`, `containerd 2.0`, …: name and version.
    fn version(&self) -> (String, String);
}
