//! Containers: created, started, stopped, removed, measured.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use linux::cgroup::Cgroup;

use super::sandboxes::remove_all;
use super::{Container, Inner, Sandbox, io_error, other};
use crate::protocol::{Reply, Request};
use crate::record::{self, ContainerRecord, StateRecord};
use crate::spec::{self, ContainerSpec, Surroundings};
use crate::{
    ContainerConfig, ContainerId, ContainerState, ContainerStatus, Resources, RuntimeError, RuntimeEvent,
    SandboxId, Seccomp, Usage,
};

impl Inner {
    pub(super) async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        let sandbox = self.sandbox(sandbox)?;
        let image = self.config.images.find(&config.image_id).await;
        let image = image
            .map_err(|error| RuntimeError::Other {
                what: "look up the image".into(),
                cause: error.to_string(),
            })?
            .ok_or_else(|| RuntimeError::Start(format!("image {} not found", config.image_id)))?;
        let id = ContainerId(self.new_id());
        let directory = self.container_directory(&id);
        let spec = self.spec(&id, &directory, &sandbox, config, &image)?;
        super::make_private(&directory)?;
        let record = ContainerRecord {
            id: id.0.clone(),
            sandbox: sandbox.id.0.clone(),
            config: config.clone(),
            created_at: self.config.env.now(),
            log_path: sandbox.record.lock().config.log_directory.join(&config.log_path),
        };
        let state = StateRecord::created();
        // A directory without the last of these files was never finished and is removed at the next start.
        let written = record::write(&directory, record::SPEC, &spec)
            .and_then(|()| record::write(&directory, record::STATE, &state))
            .and_then(|()| record::write(&directory, record::CONTAINER, &record));
        if let Err(source) = written {
            remove_all(&directory)?;
            return Err(io_error("write the container's record", source));
        }
        self.tables.lock().containers.insert(id.clone(), Container::new(record, state));
        Ok(id)
    }

    fn spec(
        &self,
        id: &ContainerId,
        directory: &Path,
        sandbox: &Sandbox,
        config: &ContainerConfig,
        image: &images::Image,
    ) -> Result<ContainerSpec, RuntimeError> {
        let of = sandbox.record.lock().config.clone();
        let seccomp_file = match &config.security.seccomp {
            Seccomp::Localhost(path) => Some(std::fs::read_to_string(path).map_err(|error| {
                RuntimeError::Start(format!("failed to load seccomp profile {}: {error}", path.display()))
            })?),
            _ => None,
        };
        let shm = self.runtime_directory(&sandbox.id).join("shm");
        let around = Surroundings {
            id: &id.0,
            directory,
            cgroup: self
                .container_cgroup(&of.cgroup_parent, &sandbox.id, id)
                .path()
                .to_string_lossy()
                .into_owned(),
            shm: if of.host_ipc { PathBuf::from("/dev/shm") } else { shm },
            log_directory: &of.log_directory,
            seccomp_file,
            available_capabilities: linux::capability::own()
                .map_err(|error| other("read the capabilities", error))?,
        };
        spec::container(config, image, &of, around).map_err(RuntimeError::Start)
    }

    fn container_cgroup(&self, parent: &str, sandbox: &SandboxId, id: &ContainerId) -> Cgroup {
        self.pod_cgroup(parent, sandbox).child(&id.0)
    }

    fn cgroup_of(&self, container: &Container) -> Result<Cgroup, RuntimeError> {
        let sandbox = self.sandbox(&container.sandbox())?;
        let parent = sandbox.record.lock().config.cgroup_parent.clone();
        Ok(self.container_cgroup(&parent, &sandbox.id, &container.id))
    }

    pub(super) async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let container = self.container(id)?;
        let _changing = container.changing.lock().await;
        match container.current() {
            state if state.is_running() => return Ok(()),
            state if state.is_exited() => {
                return Err(RuntimeError::Start(format!("container {} has already ended", id.0)));
            }
            _ => {}
        }
        let sandbox = self.sandbox(&container.sandbox())?;
        let request = Request::Start { directory: self.container_directory(id) };
        match self.ask(&sandbox.id, &request, &[]).await? {
            (Reply::Started { pid, started_at }, ..) => {
                let running = StateRecord { state: ContainerState::Running { started_at }, pid: Some(pid) };
                // It may have ended before the answer was read; the end stays.
                container.state.send_if_modified(|state| {
                    let first = state.state == ContainerState::Created;
                    if first {
                        *state = running;
                    }
                    first
                });
                let pod = sandbox.pod();
                self.send(RuntimeEvent::Started { sandbox: sandbox.id.clone(), container: id.clone(), pod });
                Ok(())
            }
            (Reply::Failed { message }, ..) => {
                self.load_state(&container)?;
                Err(RuntimeError::Start(message))
            }
            (reply, ..) => Err(unexpected("start a container", &reply)),
        }
    }

    /// Takes over what the monitor wrote down.
    fn load_state(&self, container: &Container) -> Result<(), RuntimeError> {
        let state: Option<StateRecord> =
            record::read(&self.container_directory(&container.id), record::STATE)
                .map_err(|source| io_error("read the container's state", source))?;
        if let Some(state) = state {
            container.state.send_replace(state);
        }
        Ok(())
    }

    /// For a container whose monitor is gone: what the monitor wrote last, or that the end was not seen.
    pub(super) fn settle(&self, container: &Container) -> Result<(), RuntimeError> {
        self.load_state(container)?;
        let state = container.current();
        if state.is_running() {
            let lost = state.lost(self.config.env.now(), "the container's monitor is gone");
            record::write(&self.container_directory(&container.id), record::STATE, &lost)
                .map_err(|source| io_error("write the container's state", source))?;
            container.state.send_replace(lost);
            let sandbox = self.sandbox(&container.sandbox())?;
            let (pod, id) = (sandbox.pod(), container.id.clone());
            self.send(RuntimeEvent::Exited { sandbox: sandbox.id.clone(), container: id, pod });
        }
        Ok(())
    }

    pub(super) async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        let container = self.container(id)?;
        let mut state = container.state.subscribe();
        if !state.borrow_and_update().is_running() {
            return Ok(());
        }
        let sandbox = container.sandbox();
        if !grace.is_zero() {
            let signal = self.stop_signal(id)?;
            self.ask(&sandbox, &Request::Signal { container: id.0.clone(), signal }, &[]).await?;
            let ended = state.wait_for(|state| !state.is_running());
            if tokio::time::timeout(grace, ended).await.is_ok() {
                return Ok(());
            }
        }
        self.ask(&sandbox, &Request::Kill { container: id.0.clone() }, &[]).await?;
        let ended = state.wait_for(|state| !state.is_running());
        let limit = super::sandboxes::KILL_LIMIT * 2;
        match tokio::time::timeout(limit, ended).await {
            Ok(_) => Ok(()),
            Err(_) => Err(RuntimeError::Timeout(limit)),
        }
    }

    fn stop_signal(&self, id: &ContainerId) -> Result<i32, RuntimeError> {
        let spec: Option<ContainerSpec> = record::read(&self.container_directory(id), record::SPEC)
            .map_err(|source| io_error("read the container's specification", source))?;
        Ok(spec.map_or(linux::process::TERMINATE, |spec| spec.stop_signal))
    }

    pub(super) async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let container = match self.container(id) {
            Ok(container) => container,
            Err(RuntimeError::NoContainer(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let _changing = container.changing.lock().await;
        if container.current().is_running() {
            let cause = "it is running".into();
            return Err(RuntimeError::Other { what: format!("remove container {}", id.0), cause });
        }
        let directory = self.container_directory(id);
        let removed = tokio::task::spawn_blocking(move || remove_all(&directory)).await;
        removed.map_err(|error| io_error("remove a container", error.into()))??;
        self.tables.lock().containers.remove(id);
        Ok(())
    }

    pub(super) fn container_status(&self, container: &Container) -> ContainerStatus {
        let (record, state) = (container.record.lock(), container.current());
        ContainerStatus {
            id: container.id.clone(),
            sandbox: SandboxId(record.sandbox.clone()),
            config: record.config.clone(),
            state: state.state,
            created_at: record.created_at,
            log_path: record.log_path.clone(),
            pid: state.pid,
        }
    }

    pub(super) fn update_resources(
        &self,
        id: &ContainerId,
        resources: &Resources,
    ) -> Result<(), RuntimeError> {
        let container = self.container(id)?;
        let mut record = container.record.lock().clone();
        record.config.resources = resources.clone();
        let directory = self.container_directory(id);
        if container.current().is_running() {
            self.cgroup_of(&container)?
                .set_limits(&spec::limits(resources), false)
                .map_err(|error| other("update the container's limits", error))?;
        } else {
            let spec: Option<ContainerSpec> = record::read(&directory, record::SPEC)
                .map_err(|source| io_error("read the container's specification", source))?;
            if let Some(spec) = spec {
                let spec = ContainerSpec { resources: resources.clone(), ..spec };
                record::write(&directory, record::SPEC, &spec)
                    .map_err(|source| io_error("write the container's specification", source))?;
            }
        }
        record::write(&directory, record::CONTAINER, &record)
            .map_err(|source| io_error("write the container's record", source))?;
        *container.record.lock() = record;
        Ok(())
    }

    pub(super) async fn usage(&self, id: &ContainerId) -> Result<Usage, RuntimeError> {
        let container = self.container(id)?;
        if !container.current().is_running() {
            return Err(RuntimeError::NotRunning(id.0.clone()));
        }
        usage_of(self.cgroup_of(&container)?, "read the container's usage").await
    }

    pub(super) async fn total_usage(&self) -> Result<Usage, RuntimeError> {
        match self.cgroup_root() {
            root if root.exists() => usage_of(root, "read the usage of all containers").await,
            _nothing_was_started => Ok(Usage::default()),
        }
    }

    pub(super) async fn writable_layer_bytes(&self, id: &ContainerId) -> Result<u64, RuntimeError> {
        self.container(id)?;
        let layer = self.container_directory(id).join("u");
        let read = tokio::task::spawn_blocking(move || linux::facts::occupied_bytes(&layer));
        read.await.map_err(|error| io_error("read the size of the container's layer", error.into()))
    }

    pub(super) async fn reopen_log(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let container = self.container(id)?;
        let request = Request::ReopenLog { container: id.0.clone() };
        match self.ask(&container.sandbox(), &request, &[]).await?.0 {
            Reply::Ok => Ok(()),
            Reply::NotRunning => Err(RuntimeError::NotRunning(id.0.clone())),
            reply => Err(unexpected("reopen a log", &reply)),
        }
    }

    /// The container, when it runs.
    pub(super) fn running(&self, id: &ContainerId) -> Result<Arc<Container>, RuntimeError> {
        let container = self.container(id)?;
        if container.current().is_running() {
            Ok(container)
        } else {
            Err(RuntimeError::NotRunning(id.0.clone()))
        }
    }
}

pub(super) fn unexpected(what: &str, reply: &Reply) -> RuntimeError {
    let cause = match reply {
        Reply::Failed { message } => message.clone(),
        reply => format!("the monitor answered {reply:?}"),
    };
    RuntimeError::Other { what: what.into(), cause }
}

async fn usage_of(cgroup: Cgroup, what: &'static str) -> Result<Usage, RuntimeError> {
    let read = tokio::task::spawn_blocking(move || cgroup.usage());
    let usage =
        read.await.map_err(|error| io_error(what, error.into()))?.map_err(|error| other(what, error))?;
    Ok(Usage {
        cpu_nanoseconds: usage.cpu_nanoseconds,
        memory_usage_bytes: usage.memory_bytes,
        memory_working_set_bytes: usage.memory_working_set_bytes,
        memory_rss_bytes: usage.memory_rss_bytes,
        pids: usage.pids,
    })
}
