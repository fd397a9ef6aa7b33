//! Sandboxes: run, stopped, removed.

use std::path::Path;
use std::sync::Arc;

use linux::cgroup::Cgroup;

use super::{Inner, Sandbox, io_error, other, short};
use crate::protocol::Request;
use crate::record::{self, SandboxRecord};
use crate::spec::{self, SandboxSpec};
use crate::{Resources, RuntimeError, SandboxConfig, SandboxId, SandboxStatus};

/// So long the kernel has to end processes that were killed.
pub(super) const KILL_LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

impl Inner {
    pub(super) async fn run_sandbox(
        self: &Arc<Self>,
        config: &SandboxConfig,
    ) -> Result<SandboxStatus, RuntimeError> {
        let id = SandboxId(self.new_id());
        let record = SandboxRecord {
            id: id.0.clone(),
            config: config.clone(),
            created_at: self.config.env.now(),
            boot_id: self.boot_id.clone(),
            addresses: Vec::new(),
            network_namespace: (!config.host_network).then(|| self.runtime_directory(&id).join("net")),
            complete: false,
            stopped: false,
        };
        let directory = self.sandbox_directory(&id);
        super::make_private(&directory)?;
        self.save(&record)?;
        let sandbox = Sandbox::new(record, false);
        let _changing = sandbox.changing.lock().await;
        self.tables.lock().sandboxes.insert(id.clone(), sandbox.clone());
        match self.set_up(&sandbox).await {
            Ok(()) => Ok(self.sandbox_status(&sandbox)),
            Err(error) => {
                let taken_back = self.take_down(&sandbox).await.and_then(|()| self.forget_sandbox(&sandbox));
                if let Err(also) = taken_back {
                    tracing::warn!(sandbox = id.0, error = %also, "take back a sandbox that could not be set up");
                }
                Err(error)
            }
        }
    }

    async fn set_up(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<(), RuntimeError> {
        let mut record = sandbox.record.lock().clone();
        let pod = self.pod_cgroup(&record.config.cgroup_parent, &sandbox.id);
        let limits = pod_limits(&record.config.resources);
        let made = pod.create().and_then(|()| pod.set_limits(&limits, true));
        made.map_err(|error| other("make the pod's cgroup", error))?;
        super::make_private(&self.runtime_directory(&sandbox.id))?;
        self.spawn_monitor(&sandbox.id, &self.sandbox_spec(&record, &pod)).await?;
        self.subscribe(sandbox).await.map_err(|source| io_error("connect to the monitor", source))?;
        sandbox.alive.send_replace(true);
        if let (Some(network), Some(namespace)) = (&self.config.network, &record.network_namespace) {
            record.addresses = network.attach(&sandbox.id, &record.config.pod, namespace).await?;
        }
        record.complete = true;
        self.save(&record)?;
        *sandbox.record.lock() = record;
        Ok(())
    }

    pub(super) fn update_sandbox_resources(
        &self,
        id: &SandboxId,
        resources: &Resources,
    ) -> Result<(), RuntimeError> {
        let sandbox = self.sandbox(id)?;
        let mut record = sandbox.record.lock().clone();
        if record.config.resources == *resources || record.stopped {
            return Ok(());
        }
        self.pod_cgroup(&record.config.cgroup_parent, id)
            .set_limits(&pod_limits(resources), false)
            .map_err(|error| other("update the pod's limits", error))?;
        record.config.resources = resources.clone();
        self.save(&record)?;
        sandbox.record.lock().config.resources = resources.clone();
        Ok(())
    }

    fn sandbox_spec(&self, record: &SandboxRecord, pod: &Cgroup) -> SandboxSpec {
        let config = &record.config;
        let id = SandboxId(record.id.clone());
        let mut sysctls: Vec<(String, String)> = Vec::new();
        if !config.host_network {
            // As containerd and Docker: programs may listen below 1024 and ping without capabilities.
            sysctls.push(("net.ipv4.ip_unprivileged_port_start".into(), "0".into()));
            sysctls.push(("net.ipv4.ping_group_range".into(), "0 2147483647".into()));
        }
        sysctls.extend(config.sysctls.iter().map(|(name, value)| (name.clone(), value.clone())));
        SandboxSpec {
            socket: self.config.data_dir.join("run").join(format!("{}.sock", short(&id.0))),
            network_namespace: record.network_namespace.clone(),
            own_ipc: !config.host_ipc,
            hostname: (!config.host_network && !config.hostname.is_empty()).then(|| config.hostname.clone()),
            sysctls,
            shared_processes: config.share_process_namespace && !config.host_pid,
            shm: (!config.host_ipc).then(|| self.runtime_directory(&id).join("shm")),
            monitor_cgroup: self.cgroup_root().child("monitors").path().to_string_lossy().into_owned(),
            pause_cgroup: pod.child(&id.0).path().to_string_lossy().into_owned(),
            id: id.0,
        }
    }

    pub(super) async fn stop_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let sandbox = self.sandbox(id)?;
        let _changing = sandbox.changing.lock().await;
        if sandbox.record.lock().stopped {
            return Ok(());
        }
        self.take_down(&sandbox).await?;
        let mut record = sandbox.record.lock().clone();
        record.stopped = true;
        self.save(&record)?;
        *sandbox.record.lock() = record;
        Ok(())
    }

    /// Ends everything that runs in a sandbox and takes back what was made for it. The record stays.
    async fn take_down(&self, sandbox: &Arc<Sandbox>) -> Result<(), RuntimeError> {
        let mut alive = sandbox.alive.subscribe();
        if *alive.borrow_and_update() {
            match self.ask(&sandbox.id, &Request::Stop, &[]).await {
                // The end of its connection says that the monitor is gone, and its record is complete.
                Ok(_) => drop(alive.wait_for(|alive| !alive).await),
                Err(error) => {
                    tracing::warn!(sandbox = sandbox.id.0, %error, "stop a monitor");
                }
            }
        }
        self.bury(sandbox).await?;
        let namespace = sandbox.record.lock().network_namespace.clone();
        if let (Some(network), Some(namespace)) = (&self.config.network, &namespace) {
            network.detach(&sandbox.id, namespace).await?;
        }
        let directory = self.runtime_directory(&sandbox.id);
        remove_mounts(&directory).map_err(|error| other("remove the sandbox's mounts", error))?;
        let socket = self.config.data_dir.join("run").join(format!("{}.sock", short(&sandbox.id.0)));
        remove_all(&directory)?;
        remove_all(&socket)
    }

    /// Ends what may be left of a sandbox without a monitor, and records the ends nobody saw.
    pub(super) async fn bury(&self, sandbox: &Arc<Sandbox>) -> Result<(), RuntimeError> {
        let containers = self.containers_of(&sandbox.id);
        let pod = self.pod_cgroup(&sandbox.record.lock().config.cgroup_parent, &sandbox.id);
        let groups: Vec<Cgroup> = containers
            .iter()
            .map(|container| pod.child(&container.id.0))
            .chain([pod.child(&sandbox.id.0)])
            .filter(Cgroup::exists)
            .collect();
        if !groups.is_empty() {
            let killed = tokio::task::spawn_blocking(move || {
                groups.iter().map(|group| group.destroy(KILL_LIMIT)).find(Result::is_err).unwrap_or(Ok(()))
            });
            let killed = killed.await.map_err(|error| io_error("end a pod's processes", error.into()))?;
            killed.map_err(|error| other("end a pod's processes", error))?;
        }
        for container in containers {
            self.settle(&container)?;
        }
        // Another sandbox of the same pod may still be using it, or the pod's limits are set by somebody else.
        if !pod.remove_if_unused() {
            tracing::debug!(pod = %pod.path().display(), "the pod's cgroup stays");
        }
        Ok(())
    }

    pub(super) async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let sandbox = match self.sandbox(id) {
            Ok(sandbox) => sandbox,
            Err(RuntimeError::NoSandbox(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        self.stop_sandbox(id).await?;
        for container in self.containers_of(id) {
            self.remove_container(&container.id).await?;
        }
        let _changing = sandbox.changing.lock().await;
        self.forget_sandbox(&sandbox)
    }

    fn forget_sandbox(&self, sandbox: &Sandbox) -> Result<(), RuntimeError> {
        remove_all(&self.sandbox_directory(&sandbox.id))?;
        self.tables.lock().sandboxes.remove(&sandbox.id);
        Ok(())
    }

    pub(super) fn sandbox_status(&self, sandbox: &Sandbox) -> SandboxStatus {
        let record = sandbox.record.lock();
        SandboxStatus {
            id: sandbox.id.clone(),
            config: record.config.clone(),
            ready: record.complete && !record.stopped && *sandbox.alive.borrow(),
            created_at: record.created_at,
            addresses: record.addresses.clone(),
            network_namespace: record.network_namespace.clone(),
        }
    }

    pub(super) fn save(&self, sandbox: &SandboxRecord) -> Result<(), RuntimeError> {
        let directory = self.sandbox_directory(&SandboxId(sandbox.id.clone()));
        record::write(&directory, record::SANDBOX, sandbox)
            .map_err(|source| io_error("write the sandbox's record", source))
    }
}

/// The pod as a whole is not ended because one of its containers ran out of memory.
fn pod_limits(resources: &Resources) -> linux::cgroup::Limits {
    linux::cgroup::Limits { oom_group: false, ..spec::limits(resources) }
}

/// Takes the namespace and the shared memory of a sandbox away.
pub(super) fn remove_mounts(directory: &Path) -> linux::Result<()> {
    linux::namespace::remove_bound(&directory.join("net"))?;
    linux::mount::unmount(&directory.join("shm"))
}

/// Removes a file or a directory with what is in it, if it is there.
pub(super) fn remove_all(path: &Path) -> Result<(), RuntimeError> {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io_error(format!("remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}
