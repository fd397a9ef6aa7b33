//! A runtime of its own for each test, on a temporary directory and under its own cgroup.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use containers::{
    Config, ContainerConfig, ContainerId, ContainerState, ContainerStatus, EmbeddedRuntime, PodIdentity,
    Runtime, RuntimeError, SandboxConfig, SandboxId, SandboxStatus,
};
use images::{Credentials, Image, ImageConfig, ImageError, ImageService};

pub const LIMIT: Duration = Duration::from_secs(20);

/// Why the tests cannot run here.
pub fn why_not() -> Option<String> {
    if !linux::facts::is_root() {
        return Some("not root".into());
    }
    busybox().is_none().then(|| "no static busybox; install busybox-static".into())
}

fn busybox() -> Option<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"].into_iter().map(PathBuf::from).find(|path| path.exists())
}

/// One image, whose layers are directories.
pub struct Images(pub Image);

#[async_trait]
impl ImageService for Images {
    async fn pull(&self, name: &str, _: &[Credentials]) -> Result<Image, ImageError> {
        Err(ImageError::NotFound(name.into()))
    }
    async fn find(&self, name: &str) -> Result<Option<Image>, ImageError> {
        Ok((name == "busybox").then(|| self.0.clone()))
    }
    async fn list(&self) -> Result<Vec<Image>, ImageError> {
        Ok(vec![self.0.clone()])
    }
    async fn remove(&self, _: &str) -> Result<(), ImageError> {
        Ok(())
    }
}

pub struct World {
    pub directory: tempfile::TempDir,
    pub runtime: EmbeddedRuntime,
    pub config: Config,
}

impl World {
    pub async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self::at(directory).await
    }

    pub async fn at(directory: tempfile::TempDir) -> Self {
        let config = config(directory.path());
        let runtime = EmbeddedRuntime::open(config.clone()).await.unwrap();
        Self { directory, runtime, config }
    }

    pub async fn sandbox(&self) -> SandboxStatus {
        self.sandbox_with(|_| {}).await
    }

    pub async fn sandbox_with(&self, change: impl FnOnce(&mut SandboxConfig)) -> SandboxStatus {
        let uid = uuid();
        let mut config = SandboxConfig {
            pod: PodIdentity { namespace: "default".into(), name: "web".into(), uid: uid.clone() },
            hostname: "web-0".into(),
            log_directory: self.directory.path().join("logs").join(&uid),
            cgroup_parent: format!("burstable/pod{uid}"),
            ..SandboxConfig::default()
        };
        change(&mut config);
        self.runtime.run_sandbox(&config).await.unwrap()
    }

    /// A container that was created but not started.
    pub async fn container(
        &self,
        sandbox: &SandboxId,
        command: &[&str],
        change: impl FnOnce(&mut ContainerConfig),
    ) -> ContainerId {
        let mut config = ContainerConfig {
            name: "main".into(),
            image_id: "busybox".into(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            log_path: "main/0.log".into(),
            ..ContainerConfig::default()
        };
        change(&mut config);
        self.runtime.create_container(sandbox, &config).await.unwrap()
    }

    /// Runs a shell script as a container in a sandbox of its own until it ends.
    pub async fn run(
        &self,
        script: &str,
        change: impl FnOnce(&mut ContainerConfig),
    ) -> (ContainerStatus, String) {
        let sandbox = self.sandbox().await;
        let outcome = self.run_in(&sandbox.id, script, change).await;
        self.runtime.remove_sandbox(&sandbox.id).await.unwrap();
        outcome
    }

    pub async fn run_in(
        &self,
        sandbox: &SandboxId,
        script: &str,
        change: impl FnOnce(&mut ContainerConfig),
    ) -> (ContainerStatus, String) {
        let id = self.container(sandbox, &["sh", "-c", script], change).await;
        self.runtime.start_container(&id).await.unwrap();
        let status = self.wait_exit(&id).await;
        let log = plain_log(&status.log_path);
        (status, log)
    }

    pub async fn start(&self, sandbox: &SandboxId, command: &[&str]) -> ContainerId {
        let id = self.container(sandbox, command, |_| {}).await;
        self.runtime.start_container(&id).await.unwrap();
        id
    }

    /// Waits until a container has ended, woken by events.
    pub async fn wait_exit(&self, id: &ContainerId) -> ContainerStatus {
        wait_exit(&self.runtime, id).await
    }

    /// Removes everything.
    pub async fn end(self) {
        self.runtime.purge().await.unwrap();
    }
}

pub async fn wait_exit(runtime: &EmbeddedRuntime, id: &ContainerId) -> ContainerStatus {
    let mut events = runtime.events();
    let waiting = async {
        loop {
            let status = runtime.container(id).await.unwrap();
            if matches!(status.state, ContainerState::Exited { .. }) {
                return status;
            }
            events.recv().await.unwrap();
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.expect("the container ends in time")
}

pub fn config(directory: &Path) -> Config {
    let layers = layers(directory);
    let image = Image {
        id: "sha256:busybox".into(),
        layers,
        config: ImageConfig { command: vec!["sh".into()], ..ImageConfig::default() },
        ..Image::default()
    };
    let name = directory.file_name().unwrap().to_string_lossy().replace('.', "");
    Config {
        data_dir: directory.join("data"),
        cgroup_root: format!("/kobune-test-{name}"),
        images: Arc::new(Images(image)),
        network: None,
        helper: "/proc/self/exe".into(),
        env: env::Env::system(),
    }
}

/// Two layers: programs, and files on top of them.
fn layers(directory: &Path) -> Vec<PathBuf> {
    let (low, high) = (directory.join("layers/low"), directory.join("layers/high"));
    if low.exists() {
        return vec![low, high];
    }
    fs::create_dir_all(low.join("bin")).unwrap();
    fs::create_dir_all(low.join("tmp")).unwrap();
    fs::create_dir_all(high.join("etc")).unwrap();
    fs::copy(busybox().unwrap(), low.join("bin/busybox")).unwrap();
    let list = Command::new(busybox().unwrap()).arg("--list").output().unwrap();
    for name in String::from_utf8(list.stdout).unwrap().lines().filter(|name| *name != "busybox") {
        symlink("busybox", low.join("bin").join(name)).unwrap();
    }
    fs::write(high.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/var/www:/bin/sh\n")
        .unwrap();
    fs::write(high.join("etc/group"), "root:x:0:\nweb:x:33:\nvideo:x:44:web\n").unwrap();
    vec![low, high]
}

pub fn uuid() -> String {
    env::Env::system().uuid()
}

/// The lines of a log without their heads.
pub fn plain_log(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned() + "\n").collect()
}

/// The lines of a log, each with its stream.
pub fn log_by_stream(path: &Path) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in fs::read_to_string(path).unwrap_or_default().lines() {
        let fields: Vec<&str> = line.splitn(4, ' ').collect();
        found.entry(fields[1].to_owned()).or_default().push(format!("{} {}", fields[2], fields[3]));
    }
    found
}

pub fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

pub fn exit_of(status: &ContainerStatus) -> (i32, i32, String) {
    match &status.state {
        ContainerState::Exited { exit_code, signal, reason, .. } => (*exit_code, *signal, reason.clone()),
        other => panic!("not ended: {other:?}"),
    }
}

/// Repeats a check on something that has no event to wait for, e.g. the kernel freeing a namespace.
pub async fn eventually<T: PartialEq + std::fmt::Debug>(expected: T, look: impl Fn() -> T) {
    for _ in 0..200 {
        if look() == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(look(), expected);
}

pub fn start_error(outcome: Result<(), RuntimeError>) -> String {
    match outcome {
        Err(RuntimeError::Start(message)) => message,
        other => panic!("expected a start error, got {other:?}"),
    }
}
