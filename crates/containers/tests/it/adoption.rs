//! The managing process is killed, and another takes over.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use containers::{ContainerId, ContainerState, EmbeddedRuntime, Runtime, SandboxId};

use crate::Test;
use crate::world::{LIMIT, World, config, eventually, exit_of, plain_log, wait_exit, words};

pub const TESTS: &[Test] = &[
    ("adoption", |tokio| tokio.block_on(adoption())),
    ("killed_while_busy", |tokio| tokio.block_on(killed_while_busy())),
    ("lost_monitor", |tokio| tokio.block_on(lost_monitor())),
    ("another_boot", |tokio| tokio.block_on(another_boot())),
];

const MANAGER: &str = "kobune-test-manager";

pub fn is_manager() -> bool {
    std::env::args_os().next().is_some_and(|name| name == MANAGER)
}

/// Runs pods in the directory given until it is killed: one container that stays, one that ends soon; then more
/// and more, if told so.
pub fn manager_main() -> ! {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    tokio.block_on(async {
        let directory = Path::new(&arguments[0]);
        let runtime = EmbeddedRuntime::open(config(directory)).await.unwrap();
        let world = Manager { runtime, directory };
        let (sandbox, stays) = world.pod("i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done").await;
        let (_, ends) = world.pod("sleep 0.5; exit 42").await;
        println!("{} {} {}", sandbox.0, stays.0, ends.0);
        std::io::stdout().flush().unwrap();
        if arguments.len() > 1 {
            loop {
                let (sandbox, _) = world.pod("sleep 1000").await;
                world.runtime.remove_sandbox(&sandbox).await.unwrap();
            }
        }
        std::future::pending::<()>().await
    });
    std::process::exit(0)
}

struct Manager<'a> {
    runtime: EmbeddedRuntime,
    directory: &'a Path,
}

impl Manager<'_> {
    async fn pod(&self, script: &str) -> (SandboxId, ContainerId) {
        let sandbox = containers::SandboxConfig {
            hostname: "adopted".into(),
            log_directory: self.directory.join("logs").join(crate::world::uuid()),
            ..containers::SandboxConfig::default()
        };
        let sandbox = self.runtime.run_sandbox(&sandbox).await.unwrap().id;
        let container = containers::ContainerConfig {
            image_id: "busybox".into(),
            command: vec!["sh".into(), "-c".into(), script.into()],
            log_path: "0.log".into(),
            ..containers::ContainerConfig::default()
        };
        let container = self.runtime.create_container(&sandbox, &container).await.unwrap();
        self.runtime.start_container(&container).await.unwrap();
        (sandbox, container)
    }
}

fn start_manager(directory: &Path, busy: bool) -> (Child, Vec<String>) {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("/proc/self/exe");
    command.arg0(MANAGER).arg(directory).stdout(Stdio::piped());
    if busy {
        command.arg("busy");
    }
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, words(&line))
}

async fn adoption() {
    let directory = tempfile::tempdir().unwrap();
    let (mut manager, ids) = start_manager(directory.path(), false);
    assert_eq!(ids.len(), 3, "{ids:?}");
    let (sandbox, stays, ends) =
        (SandboxId(ids[0].clone()), ContainerId(ids[1].clone()), ContainerId(ids[2].clone()));
    manager.kill().unwrap();
    manager.wait().unwrap();
    // It ends while nobody manages it.
    let state = directory.path().join("data/containers/all").join(&ends.0).join("state.json");
    eventually(true, || std::fs::read_to_string(&state).unwrap().contains("Exited")).await;

    let world = World::at(directory).await;
    let runtime = &world.runtime;
    let before = runtime.container(&stays).await.unwrap();
    assert!(matches!(before.state, ContainerState::Running { .. }), "{before:?}");
    assert_eq!(exit_of(&runtime.container(&ends).await.unwrap()), (42, 0, "Error".into()));
    assert!(runtime.sandboxes().await.unwrap().iter().all(|sandbox| sandbox.ready));
    let lines = plain_log(&before.log_path).lines().count();
    eventually(true, || plain_log(&before.log_path).lines().count() > lines + 3).await;
    let logged = plain_log(&before.log_path);
    let expected: String = (1..=logged.lines().count()).map(|line| format!("{line}\n")).collect();
    assert_eq!(logged, expected, "no line is lost or doubled");
    let result = runtime.exec_sync(&stays, &words("hostname"), LIMIT).await.unwrap();
    assert_eq!(result.stdout, b"adopted\n");
    assert_eq!(runtime.container(&stays).await.unwrap().pid, before.pid);
    runtime.stop_container(&stays, Duration::ZERO).await.unwrap();
    assert_eq!(exit_of(&wait_exit(runtime, &stays).await).0, 137);
    runtime.remove_sandbox(&sandbox).await.unwrap();
    world.end().await;
}

/// Killed at whatever moment, it leaves nothing that cannot be taken over or taken away.
async fn killed_while_busy() {
    let mut directory = tempfile::tempdir().unwrap();
    for round in 0..8u64 {
        let (mut manager, ids) = start_manager(directory.path(), true);
        assert_eq!(ids.len(), 3, "{ids:?}");
        tokio::time::sleep(Duration::from_millis(7 * round)).await;
        manager.kill().unwrap();
        manager.wait().unwrap();
        let world = World::at(directory).await;
        let status = world.runtime.container(&ContainerId(ids[1].clone())).await.unwrap();
        assert!(matches!(status.state, ContainerState::Running { .. }), "{status:?}");
        world.runtime.stop_all(true).await.unwrap();
        assert!(world.runtime.sandboxes().await.unwrap().is_empty());
        assert!(world.runtime.containers().await.unwrap().is_empty());
        assert!(!world.runtime.cgroup().exists());
        directory = world.directory;
    }
    World::at(directory).await.end().await;
}

async fn lost_monitor() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    let id = world.start(&sandbox.id, &["sleep", "1000"]).await;
    let pid = world.runtime.container(&id).await.unwrap().pid.unwrap();
    let monitor = linux::process::info(pid).unwrap().parent;
    let mut events = world.runtime.events();
    linux::process::kill(monitor).unwrap();
    let status = world.wait_exit(&id).await;
    assert_eq!(exit_of(&status), (255, 0, "Unknown".into()));
    eventually(true, || linux::process::info(pid).is_none_or(|info| info.state == 'Z')).await;
    let stopped = async {
        while !matches!(events.recv().await.unwrap(), containers::RuntimeEvent::SandboxStopped { .. }) {}
    };
    tokio::time::timeout(LIMIT, stopped).await.unwrap();
    assert!(!world.runtime.sandboxes().await.unwrap()[0].ready);
    world.runtime.remove_sandbox(&sandbox.id).await.unwrap();
    world.end().await;
}

/// After a restart of the machine nothing runs and nothing is mounted; the records say so.
async fn another_boot() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    let id = world.start(&sandbox.id, &["sleep", "1000"]).await;
    world.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    world.runtime.stop_sandbox(&sandbox.id).await.unwrap();
    // What the files of a machine look like that lost power.
    let directory = world.directory.path().join("data/containers");
    let record = directory.join("sandboxes").join(&sandbox.id.0).join("sandbox.json");
    let text = std::fs::read_to_string(&record).unwrap();
    let boot = linux::facts::boot_id().unwrap();
    let text = text.replace(&boot, "another-boot").replace(r#""stopped":true"#, r#""stopped":false"#);
    std::fs::write(&record, text).unwrap();
    let state = r#"{"state":{"Running":{"started_at":"2026-01-01T00:00:00Z"}},"pid":1}"#;
    std::fs::write(directory.join("all").join(&id.0).join("state.json"), state).unwrap();
    let again = EmbeddedRuntime::open(world.config.clone()).await.unwrap();
    assert_eq!(exit_of(&again.container(&id).await.unwrap()), (255, 0, "Unknown".into()));
    assert!(!again.sandboxes().await.unwrap()[0].ready);
    again.remove_sandbox(&sandbox.id).await.unwrap();
    again.purge().await.unwrap();
}
