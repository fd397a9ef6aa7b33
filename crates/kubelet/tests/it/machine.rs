//! A runtime and an image service in maps. Containers run until they are told to end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use containers::*;
use images::{Credentials, Image, ImageError, ImageService};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc, oneshot};

/// See the module's documentation.
pub struct Machine {
    pub sandboxes: Mutex<BTreeMap<SandboxId, SandboxStatus>>,
    pub containers: Mutex<BTreeMap<ContainerId, ContainerStatus>>,
    pub images: Mutex<BTreeMap<String, Image>>,
    /// Exit code of every command that is run in a container.
    pub exec_code: Mutex<i32>,
    pub calls: Mutex<Vec<String>>,
    events: broadcast::Sender<RuntimeEvent>,
    counter: AtomicU64,
}

impl Machine {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            sandboxes: Mutex::default(),
            containers: Mutex::default(),
            images: Mutex::default(),
            exec_code: Mutex::new(0),
            calls: Mutex::default(),
            events: broadcast::Sender::new(256),
            counter: AtomicU64::new(0),
        })
    }

    fn id(&self) -> String {
        format!("{:064x}", self.counter.fetch_add(1, Ordering::Relaxed))
    }

    fn called(&self, what: impl Into<String>) {
        self.calls.lock().push(what.into());
    }

    /// Ends the newest running container of a name, leaving a last word.
    pub fn end(&self, name: &str, exit_code: i32, word: &str) {
        let mut containers = self.containers.lock();
        let running = |status: &&mut ContainerStatus| {
            status.config.name == name && matches!(status.state, ContainerState::Running { .. })
        };
        let status = containers.values_mut().rev().find(running).expect("it runs");
        if let Some(file) = status.config.annotations.get("kobune.io/termination-message-file") {
            std::fs::write(file, word).unwrap();
        }
        let event = finish(status, exit_code);
        drop(containers);
        self.happened(event);
    }

    fn happened(&self, mut event: RuntimeEvent) {
        if let RuntimeEvent::Exited { sandbox, pod, .. } = &mut event {
            *pod = self.sandboxes.lock()[sandbox].config.pod.clone();
        }
        let _nobody_listens = self.events.send(event);
    }
}

fn finish(status: &mut ContainerStatus, exit_code: i32) -> RuntimeEvent {
    let ContainerState::Running { started_at } = status.state else { panic!("it does not run") };
    status.state = ContainerState::Exited {
        started_at,
        finished_at: Timestamp::now(),
        exit_code,
        signal: 0,
        reason: if exit_code == 0 { "Completed" } else { "Error" }.to_owned(),
        message: String::new(),
    };
    RuntimeEvent::Exited {
        sandbox: status.sandbox.clone(),
        container: status.id.clone(),
        pod: PodIdentity::default(),
    }
}

#[async_trait]
impl Runtime for Machine {
    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<SandboxStatus, RuntimeError> {
        self.called(format!("sandbox {}", config.pod.name));
        let status = SandboxStatus {
            id: SandboxId(self.id()),
            config: config.clone(),
            ready: true,
            created_at: Timestamp::now(),
            addresses: vec!["127.0.0.1".parse().unwrap()],
            network_namespace: None,
        };
        self.sandboxes.lock().insert(status.id.clone(), status.clone());
        Ok(status)
    }

    async fn stop_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.called("stop sandbox");
        let pod = {
            let mut sandboxes = self.sandboxes.lock();
            let status = sandboxes.get_mut(id).ok_or_else(|| RuntimeError::NoSandbox(id.0.clone()))?;
            status.ready = false;
            status.config.pod.clone()
        };
        let _nobody_listens = self.events.send(RuntimeEvent::SandboxStopped { sandbox: id.clone(), pod });
        Ok(())
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.sandboxes.lock().remove(id);
        Ok(())
    }

    async fn sandboxes(&self) -> Result<Vec<SandboxStatus>, RuntimeError> {
        Ok(self.sandboxes.lock().values().cloned().collect())
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        self.called(format!("create {}", config.name));
        let id = ContainerId(self.id());
        let log_path = self.sandboxes.lock()[sandbox].config.log_directory.join(&config.log_path);
        std::fs::create_dir_all(log_path.parent().unwrap()).unwrap();
        std::fs::write(&log_path, "2026-11-21T05:00:00Z stdout F hello\n").unwrap();
        let status = ContainerStatus {
            id: id.clone(),
            sandbox: sandbox.clone(),
            config: config.clone(),
            state: ContainerState::Created,
            created_at: Timestamp::now(),
            log_path,
            pid: None,
        };
        self.containers.lock().insert(id.clone(), status);
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let mut containers = self.containers.lock();
        let status = containers.get_mut(id).expect("it was created");
        if status.config.command.first().is_some_and(|command| command == "nope") {
            return Err(RuntimeError::Start("exec: \"nope\": executable file not found in $PATH".into()));
        }
        self.calls.lock().push(format!("start {}", status.config.name));
        status.state = ContainerState::Running { started_at: Timestamp::now() };
        Ok(())
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        let event = {
            let mut containers = self.containers.lock();
            let status = containers.get_mut(id).ok_or_else(|| RuntimeError::NoContainer(id.0.clone()))?;
            self.calls.lock().push(format!("stop {} {}s", status.config.name, grace.as_secs()));
            matches!(status.state, ContainerState::Running { .. }).then(|| finish(status, 143))
        };
        if let Some(event) = event {
            self.happened(event);
        }
        Ok(())
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.containers.lock().remove(id);
        Ok(())
    }

    async fn containers(&self) -> Result<Vec<ContainerStatus>, RuntimeError> {
        Ok(self.containers.lock().values().cloned().collect())
    }

    async fn container(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError> {
        self.containers.lock().get(id).cloned().ok_or_else(|| RuntimeError::NoContainer(id.0.clone()))
    }

    async fn update_sandbox_resources(
        &self,
        _: &SandboxId,
        resources: &Resources,
    ) -> Result<(), RuntimeError> {
        self.called(format!("resize the pod to {} shares", resources.cpu_shares));
        Ok(())
    }

    async fn update_resources(&self, _: &ContainerId, resources: &Resources) -> Result<(), RuntimeError> {
        self.called(format!("resize to {} shares", resources.cpu_shares));
        Ok(())
    }

    async fn usage(&self, _: &ContainerId) -> Result<Usage, RuntimeError> {
        Ok(Usage { cpu_nanoseconds: 1_500_000_000, memory_working_set_bytes: 4096, ..Usage::default() })
    }

    async fn total_usage(&self) -> Result<Usage, RuntimeError> {
        Ok(Usage { cpu_nanoseconds: 7_000_000_000, memory_working_set_bytes: 1 << 20, ..Usage::default() })
    }

    async fn writable_layer_bytes(&self, _: &ContainerId) -> Result<u64, RuntimeError> {
        self.called("look at the layer".to_owned());
        Ok(512)
    }

    async fn reopen_log(&self, _: &ContainerId) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn exec_sync(
        &self,
        _: &ContainerId,
        _: &[String],
        _: Duration,
    ) -> Result<ExecResult, RuntimeError> {
        Ok(ExecResult { exit_code: *self.exec_code.lock(), stdout: b"said".to_vec(), stderr: Vec::new() })
    }

    async fn exec(&self, _: &ContainerId, _: &StreamRequest) -> Result<Streams, RuntimeError> {
        let (exit, exit_seen) = oneshot::channel();
        exit.send(0).unwrap();
        Ok(Streams { stdin: None, stdout: None, stderr: None, resize: mpsc::channel(1).0, exit: exit_seen })
    }

    async fn attach(&self, id: &ContainerId, request: &StreamRequest) -> Result<Streams, RuntimeError> {
        self.exec(id, request).await
    }

    async fn port_forward(&self, _: &SandboxId, port: u16) -> Result<Box<dyn Duplex>, RuntimeError> {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
        stream
            .map(|stream| Box::new(stream) as Box<dyn Duplex>)
            .map_err(|source| RuntimeError::Io { what: "connect".into(), source })
    }

    fn events(&self) -> broadcast::Receiver<RuntimeEvent> {
        self.events.subscribe()
    }

    fn version(&self) -> (String, String) {
        ("kobune".into(), "0.1.0".into())
    }
}

#[async_trait]
impl ImageService for Machine {
    async fn pull(&self, name: &str, _: &[Credentials]) -> Result<Image, ImageError> {
        self.called(format!("pull {name}"));
        if name.contains("missing") {
            return Err(ImageError::NotFound(name.into()));
        }
        let image = Image {
            id: format!("sha256:{name}"),
            tags: vec![name.into()],
            digests: vec![format!("{name}@sha256:1")],
            size_bytes: 5,
            layers: vec![PathBuf::from("/layer")],
            ..Image::default()
        };
        self.images.lock().insert(name.into(), image.clone());
        Ok(image)
    }

    async fn find(&self, name: &str) -> Result<Option<Image>, ImageError> {
        let images = self.images.lock();
        Ok(images
            .values()
            .find(|image| image.id == name || image.tags.iter().any(|tag| tag == name))
            .cloned())
    }

    async fn list(&self) -> Result<Vec<Image>, ImageError> {
        Ok(self.images.lock().values().cloned().collect())
    }

    async fn remove(&self, name: &str) -> Result<(), ImageError> {
        self.images.lock().retain(|_, image| image.id != name);
        Ok(())
    }
}
