//! The runtime that is built in: the side that lives in the managing process.
//!
//! What must survive this process is in files and in the monitors; what is here is a picture of it, kept current by
//! one connection per monitor, and rebuilt from the files and monitors when the process starts.

mod adopt;
mod cleanup;
mod containers;
mod monitor;
mod sandboxes;
mod service;
mod streams;

pub use cleanup::sweep;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use env::Env;
use images::ImageService;
use linux::cgroup::{Cgroup, Hierarchies};
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};

use crate::record::{ContainerRecord, SandboxRecord, StateRecord};
use crate::{ContainerId, PodIdentity, RuntimeError, RuntimeEvent, SandboxId, SandboxNetwork};

/// A receiver that is further behind lists again.
const EVENT_QUEUE: usize = 1024;

/// What the runtime needs.
#[derive(Clone)]
pub struct Config {
    /// State is kept in `containers/` and sockets and namespaces in `run/` below it.
    pub data_dir: PathBuf,
    /// The cgroup below which everything runs, from the hierarchies' mount points: `/kobune`. Instances on one
    /// machine need different ones.
    pub cgroup_root: String,
    pub images: Arc<dyn ImageService>,
    /// Without one, sandboxes have a loopback only.
    pub network: Option<Arc<dyn SandboxNetwork>>,
    /// The executable that is started as monitor; its `main` must call [`crate::is_helper`].
    pub helper: PathBuf,
    pub env: Env,
}

/// The built-in runtime. Cheap to clone.
#[derive(Clone)]
pub struct EmbeddedRuntime {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    hierarchies: Arc<Hierarchies>,
    boot_id: String,
    /// `run/`, by which sockets are reached however long the data directory's path is.
    run: File,
    tables: Mutex<Tables>,
    events: broadcast::Sender<RuntimeEvent>,
}

#[derive(Default)]
struct Tables {
    sandboxes: BTreeMap<SandboxId, Arc<Sandbox>>,
    containers: BTreeMap<ContainerId, Arc<Container>>,
}

struct Sandbox {
    id: SandboxId,
    record: Mutex<SandboxRecord>,
    /// Whether its monitor answers.
    alive: watch::Sender<bool>,
    /// Held while the sandbox is being changed.
    changing: tokio::sync::Mutex<()>,
}

struct Container {
    id: ContainerId,
    record: Mutex<ContainerRecord>,
    state: watch::Sender<StateRecord>,
    changing: tokio::sync::Mutex<()>,
}

impl EmbeddedRuntime {
    /// Opens the runtime: what an earlier process left running is taken over as it is, what ended meanwhile is
    /// known with its exit code, and what a restart of the machine swept away is cleaned up.
    pub async fn open(config: Config) -> Result<Self, RuntimeError> {
        let run = config.data_dir.join("run");
        for directory in
            [config.data_dir.join("containers/sandboxes"), config.data_dir.join("containers/all")]
        {
            make_private(&directory)?;
        }
        make_private(&run)?;
        let inner = Inner {
            hierarchies: Arc::new(Hierarchies::detect().map_err(|error| other("open the runtime", error))?),
            boot_id: linux::facts::boot_id().map_err(|error| other("open the runtime", error))?,
            run: File::open(&run).map_err(|source| io_error("open the run directory", source))?,
            tables: Mutex::default(),
            events: broadcast::Sender::new(EVENT_QUEUE),
            config,
        };
        let runtime = Self { inner: Arc::new(inner) };
        runtime.inner.adopt().await?;
        Ok(runtime)
    }

    /// The root of everything this runtime puts into cgroups.
    pub fn cgroup(&self) -> Cgroup {
        self.inner.cgroup_root()
    }
}

impl Inner {
    fn cgroup_root(&self) -> Cgroup {
        Cgroup::new(&self.hierarchies, &self.config.cgroup_root)
    }

    fn pod_cgroup(&self, parent: &str, id: &SandboxId) -> Cgroup {
        // Without a parent the sandbox is one of its own.
        let name = if parent.is_empty() { format!("pods/{}", id.0) } else { parent.to_owned() };
        self.cgroup_root().child(&name)
    }

    fn sandbox_directory(&self, id: &SandboxId) -> PathBuf {
        self.config.data_dir.join("containers/sandboxes").join(&id.0)
    }

    fn container_directory(&self, id: &ContainerId) -> PathBuf {
        self.config.data_dir.join("containers/all").join(&id.0)
    }

    /// Where a sandbox's namespace and shared memory are mounted.
    fn runtime_directory(&self, id: &SandboxId) -> PathBuf {
        self.config.data_dir.join("run").join(short(&id.0))
    }

    fn sandbox(&self, id: &SandboxId) -> Result<Arc<Sandbox>, RuntimeError> {
        let found = self.tables.lock().sandboxes.get(id).cloned();
        found.ok_or_else(|| RuntimeError::NoSandbox(id.0.clone()))
    }

    fn container(&self, id: &ContainerId) -> Result<Arc<Container>, RuntimeError> {
        let found = self.tables.lock().containers.get(id).cloned();
        found.ok_or_else(|| RuntimeError::NoContainer(id.0.clone()))
    }

    fn containers_of(&self, id: &SandboxId) -> Vec<Arc<Container>> {
        let tables = self.tables.lock();
        tables
            .containers
            .values()
            .filter(|container| container.record.lock().sandbox == id.0)
            .cloned()
            .collect()
    }

    fn new_id(&self) -> String {
        let mut bytes = [0; 32];
        self.config.env.fill_random(&mut bytes);
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn send(&self, event: RuntimeEvent) {
        // Nobody listening is no error.
        self.events.send(event).ok();
    }
}

impl Sandbox {
    fn new(record: SandboxRecord, alive: bool) -> Arc<Self> {
        Arc::new(Self {
            id: SandboxId(record.id.clone()),
            record: Mutex::new(record),
            alive: watch::Sender::new(alive),
            changing: tokio::sync::Mutex::default(),
        })
    }

    fn pod(&self) -> PodIdentity {
        self.record.lock().config.pod.clone()
    }
}

impl Container {
    fn new(record: ContainerRecord, state: StateRecord) -> Arc<Self> {
        Arc::new(Self {
            id: ContainerId(record.id.clone()),
            record: Mutex::new(record),
            state: watch::Sender::new(state),
            changing: tokio::sync::Mutex::default(),
        })
    }

    fn sandbox(&self) -> SandboxId {
        SandboxId(self.record.lock().sandbox.clone())
    }

    fn current(&self) -> StateRecord {
        self.state.borrow().clone()
    }
}

/// Enough of an identifier to name a file by; two that begin alike do not occur.
fn short(id: &str) -> &str {
    id.get(..16).unwrap_or(id)
}

fn make_private(directory: &std::path::Path) -> Result<(), RuntimeError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o711).create(directory);
    made.map_err(|source| io_error(format!("make {}", directory.display()), source))
}

fn io_error(what: impl Into<String>, source: io::Error) -> RuntimeError {
    RuntimeError::Io { what: what.into(), source }
}

fn other(what: impl Into<String>, cause: linux::Error) -> RuntimeError {
    RuntimeError::Other { what: what.into(), cause: cause.text() }
}
