//! What is kept on disk about sandboxes and containers. Every file is replaced as a whole, so a reader sees the old
//! or the new one.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{ContainerConfig, ContainerState, SandboxConfig};

/// `sandbox.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SandboxRecord {
    pub id: String,
    pub config: SandboxConfig,
    pub created_at: Timestamp,
    /// The start of the machine that it belongs to.
    pub boot_id: String,
    pub addresses: Vec<IpAddr>,
    pub network_namespace: Option<PathBuf>,
    /// Everything was set up.
    pub complete: bool,
    pub stopped: bool,
}

/// `container.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerRecord {
    pub id: String,
    pub sandbox: String,
    pub config: ContainerConfig,
    pub created_at: Timestamp,
    pub log_path: PathBuf,
}

/// `state.json`, written by the monitor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StateRecord {
    pub state: ContainerState,
    pub pid: Option<u32>,
}

impl StateRecord {
    pub fn created() -> Self {
        Self { state: ContainerState::Created, pid: None }
    }

    pub fn is_running(&self) -> bool {
        matches!(self.state, ContainerState::Running { .. })
    }

    pub fn is_exited(&self) -> bool {
        matches!(self.state, ContainerState::Exited { .. })
    }

    /// The end of a container of which nobody saw the end, as containerd reports it.
    pub fn lost(&self, now: Timestamp, message: &str) -> Self {
        let started_at = match self.state {
            ContainerState::Running { started_at } => started_at,
            _ => Timestamp::UNIX_EPOCH,
        };
        let state = ContainerState::Exited {
            started_at,
            finished_at: now,
            exit_code: 255,
            signal: 0,
            reason: "Unknown".into(),
            message: message.into(),
        };
        Self { state, pid: None }
    }
}

pub const SANDBOX: &str = "sandbox.json";
pub const MONITOR: &str = "monitor.json";
pub const CONTAINER: &str = "container.json";
pub const SPEC: &str = "spec.json";
pub const STATE: &str = "state.json";

/// Replaces `directory/name`.
pub fn write<T: Serialize>(directory: &Path, name: &str, value: &T) -> io::Result<()> {
    let temporary = directory.join(format!(".{name}.new"));
    fs::write(&temporary, serde_json::to_vec(value)?)?;
    fs::rename(&temporary, directory.join(name))
}

/// Reads `directory/name`; `None` when it is not there.
pub fn read<T: DeserializeOwned>(directory: &Path, name: &str) -> io::Result<Option<T>> {
    match fs::read(directory.join(name)) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
