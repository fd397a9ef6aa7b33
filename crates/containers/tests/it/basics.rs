//! Containers run, end, are limited and are removed.

use std::time::{Duration, Instant};

use containers::{ContainerState, Resources, Runtime, RuntimeEvent};
use tokio::runtime::Runtime as Tokio;

use crate::Test;
use crate::world::{World, exit_of, log_by_stream, plain_log, start_error, words};

pub const TESTS: &[Test] = &[
    ("run_and_remove", |tokio| tokio.block_on(run_and_remove())),
    ("exit_codes_and_signals", |tokio| tokio.block_on(exit_codes_and_signals())),
    ("bad_commands", |tokio| tokio.block_on(bad_commands())),
    ("out_of_memory", |tokio| tokio.block_on(out_of_memory())),
    ("stop_with_grace", |tokio| tokio.block_on(stop_with_grace())),
    ("usage_and_update", |tokio| tokio.block_on(usage_and_update())),
    ("what_containers_share", |tokio| tokio.block_on(what_containers_share())),
    ("shared_processes", |tokio| tokio.block_on(shared_processes())),
    ("mounts", |tokio| tokio.block_on(mounts())),
    ("latency", latency),
];

async fn run_and_remove() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    assert!(sandbox.ready);
    assert_eq!(sandbox.id.0.len(), 64);
    let mut events = world.runtime.events();
    let script = "echo hello $A; echo oops >&2; hostname; cat /etc/hostname; pwd; echo $HOSTNAME; id -u";
    let (status, log) = world
        .run_in(&sandbox.id, script, |config| {
            config.environment.push(("A".into(), "world".into()));
            config.working_directory = "/made/for/me".into();
        })
        .await;
    assert_eq!(exit_of(&status), (0, 0, "Completed".into()));
    let streams = log_by_stream(&status.log_path);
    assert!(streams["stderr"].contains(&"F oops".to_owned()), "{streams:?}");
    assert_eq!(streams["stdout"], ["F hello world", "F web-0", "F /made/for/me", "F web-0", "F 0"], "{log}");
    assert!(matches!(events.recv().await, Ok(RuntimeEvent::Started { .. })));
    assert!(matches!(events.recv().await, Ok(RuntimeEvent::Exited { .. })));
    world.runtime.remove_container(&status.id).await.unwrap();
    world.runtime.remove_container(&status.id).await.unwrap();
    assert!(world.runtime.containers().await.unwrap().is_empty());
    assert!(status.log_path.exists());
    world.runtime.stop_sandbox(&sandbox.id).await.unwrap();
    world.runtime.stop_sandbox(&sandbox.id).await.unwrap();
    assert!(!world.runtime.sandboxes().await.unwrap()[0].ready);
    world.runtime.remove_sandbox(&sandbox.id).await.unwrap();
    world.runtime.remove_sandbox(&sandbox.id).await.unwrap();
    world.end().await;
}

async fn exit_codes_and_signals() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    for (script, expected) in [
        ("exit 7", (7, 0, "Error")),
        ("kill -9 $$; sleep 9", (0, 0, "Completed")),
        ("exit 0", (0, 0, "Completed")),
    ] {
        // Process 1 of a namespace cannot be killed from within, so the second script runs a child that is.
        let script = script.replace("kill -9 $$; sleep 9", "sh -c 'kill -9 $$'; test $? = 137");
        let (status, _) = world.run_in(&sandbox.id, &script, |_| {}).await;
        assert_eq!(exit_of(&status), (expected.0, expected.1, expected.2.to_owned()), "{script}");
    }
    let id = world.start(&sandbox.id, &["sleep", "1000"]).await;
    world.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    assert_eq!(exit_of(&world.wait_exit(&id).await), (137, 9, "Error".into()));
    world.end().await;
}

async fn bad_commands() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    for (command, expected) in [
        ("foo", r#"exec: "foo": executable file not found in $PATH"#),
        ("/foo", r#"exec: "/foo": stat /foo: no such file or directory"#),
        ("/etc/passwd", r#"exec: "/etc/passwd": permission denied"#),
        ("/etc", r#"exec: "/etc": permission denied"#),
    ] {
        let id = world.container(&sandbox.id, &[command], |_| {}).await;
        let message = start_error(world.runtime.start_container(&id).await);
        assert!(message.ends_with(expected), "{message}");
        let status = world.runtime.container(&id).await.unwrap();
        assert_eq!(exit_of(&status), (128, 0, "StartError".into()));
    }
    let id = world.container(&sandbox.id, &["true"], |config| config.image_id = "busybox".into()).await;
    world.runtime.start_container(&id).await.unwrap();
    world.end().await;
}

async fn out_of_memory() {
    let world = World::new().await;
    let (status, _) = world
        .run("tail /dev/zero", |config| {
            config.resources = Resources { memory_limit_bytes: 32 << 20, ..Resources::default() };
        })
        .await;
    let (_, _, reason) = exit_of(&status);
    assert_eq!(reason, "OOMKilled");
    world.end().await;
}

async fn stop_with_grace() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    let polite = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.1; done";
    let id = world.start(&sandbox.id, &["sh", "-c", polite]).await;
    let log = world.runtime.container(&id).await.unwrap().log_path;
    crate::world::eventually("ready\n".to_owned(), || plain_log(&log)).await;
    let started = Instant::now();
    world.runtime.stop_container(&id, Duration::from_secs(10)).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(exit_of(&world.wait_exit(&id).await), (3, 0, "Error".into()));
    assert_eq!(plain_log(&log), "ready\nbye\n");

    // Process 1 without a handler does not notice TERM.
    let id = world.start(&sandbox.id, &["sleep", "1000"]).await;
    let started = Instant::now();
    world.runtime.stop_container(&id, Duration::from_millis(300)).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert_eq!(exit_of(&world.wait_exit(&id).await).0, 137);
    world.runtime.stop_container(&id, Duration::from_secs(1)).await.unwrap();
    world.end().await;
}

async fn usage_and_update() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    let script = "dd if=/dev/zero of=/big bs=1M count=8 2>/dev/null; echo done; sleep 1000";
    let id = world.start(&sandbox.id, &["sh", "-c", script]).await;
    let log = world.runtime.container(&id).await.unwrap().log_path;
    crate::world::eventually("done\n".to_owned(), || plain_log(&log)).await;
    let usage = world.runtime.usage(&id).await.unwrap();
    assert!(world.runtime.writable_layer_bytes(&id).await.unwrap() >= 8 << 20);
    let total = world.runtime.total_usage().await.unwrap();
    assert!(
        total.cpu_nanoseconds >= usage.cpu_nanoseconds && total.pids >= usage.pids,
        "{total:?} {usage:?}"
    );
    assert!(usage.cpu_nanoseconds > 0 && usage.memory_usage_bytes > 0 && usage.pids > 0, "{usage:?}");
    assert!(usage.memory_working_set_bytes <= usage.memory_usage_bytes, "{usage:?}");
    let resources = Resources { memory_limit_bytes: 64 << 20, cpu_quota_us: 50_000, ..Resources::default() };
    world.runtime.update_resources(&id, &resources).await.unwrap();
    let limit =
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max";
    let command = ["sh".into(), "-c".into(), limit.into()];
    let read = world.runtime.exec_sync(&id, &command, crate::world::LIMIT).await.unwrap();
    assert_eq!(String::from_utf8(read.stdout).unwrap().trim(), (64 << 20).to_string());
    let config = world.runtime.container(&id).await.unwrap().config;
    assert_eq!(config.resources, resources);
    world.end().await;
}

async fn what_containers_share() {
    let world = World::new().await;
    let one = world.sandbox().await;
    let other = world.sandbox().await;
    let look = "for ns in net ipc uts; do readlink /proc/self/ns/$ns; done";
    let (_, first) = world.run_in(&one.id, look, |config| config.log_path = "a/0.log".into()).await;
    let (_, second) = world.run_in(&one.id, look, |config| config.log_path = "b/0.log".into()).await;
    let (_, foreign) = world.run_in(&other.id, look, |_| {}).await;
    assert_eq!(first, second);
    assert!(first.lines().zip(foreign.lines()).all(|(ours, theirs)| ours != theirs), "{first}{foreign}");
    assert_eq!(first.lines().count(), 3);
    let (_, _) = world.run_in(&one.id, "echo shared > /dev/shm/file", |_| {}).await;
    let (_, log) = world
        .run_in(&one.id, "cat /dev/shm/file; ls /proc | grep -c '^[0-9]'", |config| {
            config.log_path = "c/0.log".into()
        })
        .await;
    assert!(log.starts_with("shared\n"), "{log}");
    world.end().await;
}

async fn shared_processes() {
    let world = World::new().await;
    let sandbox = world.sandbox_with(|config| config.share_process_namespace = true).await;
    let sleeper = world.start(&sandbox.id, &["sleep", "1234"]).await;
    let (_, log) =
        world.run_in(&sandbox.id, "ps; echo $$", |config| config.log_path = "b/0.log".into()).await;
    assert!(log.contains("sleep 1234") && log.contains("kobune-monitor"), "{log}");
    // What the main process leaves behind goes with it, though the namespace stays.
    let (_, log) = world
        .run_in(&sandbox.id, "sleep 4321 & echo started", |config| config.log_path = "c/0.log".into())
        .await;
    assert_eq!(log, "started\n");
    let (_, log) = world.run_in(&sandbox.id, "ps", |config| config.log_path = "d/0.log".into()).await;
    assert!(log.contains("sleep 1234") && !log.contains("sleep 4321"), "{log}");
    let exec =
        world.runtime.exec_sync(&sleeper, &words("readlink /proc/1/ns/pid"), crate::world::LIMIT).await;
    assert_ne!(exec.unwrap().exit_code, 127);
    world.end().await;
}

async fn mounts() {
    let world = World::new().await;
    let source = world.directory.path().join("volume");
    std::fs::create_dir_all(&source).unwrap();
    std::fs::write(source.join("file"), "content\n").unwrap();
    let mount = |host: &std::path::Path, path: &str, read_only| containers::Mount {
        host_path: host.to_owned(),
        container_path: path.into(),
        read_only,
        ..containers::Mount::default()
    };
    let script = "cat /data/file /etc/one; touch /data/new; echo $?; touch /ro/x 2>/dev/null; echo $?; \
                  touch /data/inner/y 2>/dev/null; echo $?";
    let (_, log) = world
        .run(script, |config| {
            config.mounts = vec![
                mount(&world.directory.path().join("missing"), "/data/inner", true),
                mount(&source, "/data", false),
                mount(&source, "/ro", true),
                mount(&source.join("file"), "/etc/one", true),
            ];
        })
        .await;
    assert_eq!(log, "content\ncontent\n0\n1\n1\n");
    assert!(source.join("new").exists());
    world.end().await;
}

fn latency(tokio: &Tokio) {
    tokio.block_on(async {
        let world = World::new().await;
        let mut times = Vec::new();
        let mut parts = Vec::new();
        for _ in 0..20 {
            let started = Instant::now();
            let sandbox = world.sandbox().await;
            let ready = started.elapsed();
            let id = world.start(&sandbox.id, &["sleep", "1000"]).await;
            times.push(started.elapsed());
            parts.push(ready);
            assert!(matches!(
                world.runtime.container(&id).await.unwrap().state,
                ContainerState::Running { .. }
            ));
        }
        times.sort();
        parts.sort();
        println!(
            "  sandbox and container: p50 {:.1?}, max {:.1?}; sandbox p50 {:.1?}",
            times[10], times[19], parts[10]
        );
        let monitors: Vec<u32> = linux::process::list()
            .unwrap()
            .iter()
            .filter(|info| info.parent == std::process::id())
            .map(|info| info.pid)
            .collect();
        let private = |pid: &u32| -> u64 {
            let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            text.lines()
                .filter(|line| line.starts_with("Private_"))
                .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
                .sum()
        };
        let all: Vec<u64> = monitors.iter().map(private).collect();
        println!(
            "  private memory of {} monitors: {} KiB each",
            all.len(),
            all.iter().sum::<u64>() / all.len().max(1) as u64
        );
        let started = Instant::now();
        futures::future::join_all((0..20).map(|_| async {
            let sandbox = world.sandbox().await;
            world.start(&sandbox.id, &["sleep", "1000"]).await
        }))
        .await;
        println!("  20 pods at once: {:.1?}", started.elapsed());
        let id = &world.runtime.containers().await.unwrap()[0].id;
        let started = Instant::now();
        for _ in 0..20 {
            world.runtime.exec_sync(id, &words("true"), crate::world::LIMIT).await.unwrap();
        }
        println!("  a command: {:.1?}", started.elapsed() / 20);
        let started = Instant::now();
        world.runtime.stop_all(true).await.unwrap();
        println!("  stopping and removing all: {:.1?}", started.elapsed());
        world.end().await;
    });
}
