//! Nothing is left behind.

use std::collections::BTreeSet;
use std::time::Duration;

use containers::Runtime;

use crate::Test;
use crate::world::{World, eventually};

pub const TESTS: &[Test] = &[
    ("nothing_is_left", |tokio| tokio.block_on(nothing_is_left())),
    ("a_sweep_without_records", |tokio| tokio.block_on(a_sweep_without_records())),
];

#[derive(Debug, PartialEq)]
struct Traces {
    mounts: BTreeSet<String>,
    cgroups: BTreeSet<String>,
    processes: usize,
}

/// What there is of an instance on the machine.
fn traces(data: &str, root: &str) -> Traces {
    let mounts = linux::mount::list().unwrap();
    let mounts = mounts.iter().map(|mount| mount.mount_point.display().to_string());
    let hierarchies = std::sync::Arc::new(linux::cgroup::Hierarchies::detect().unwrap());
    let root = linux::cgroup::Cgroup::new(&hierarchies, root);
    let directories = root.directories().into_iter().filter(|directory| directory.exists());
    let ours = |pid: u32| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.contains(data) || line.contains("31415926")
    };
    Traces {
        mounts: mounts.filter(|point| point.starts_with(data)).collect(),
        cgroups: directories.map(|directory| directory.display().to_string()).collect(),
        processes: linux::process::list()
            .unwrap()
            .iter()
            .filter(|info| info.state != 'Z' && ours(info.pid))
            .count(),
    }
}

const NONE: Traces = Traces { mounts: BTreeSet::new(), cgroups: BTreeSet::new(), processes: 0 };

async fn fill(world: &World) {
    for shared in [false, true] {
        let sandbox = world.sandbox_with(|config| config.share_process_namespace = shared).await;
        for name in ["a", "b"] {
            let id = world
                .container(&sandbox.id, &["sh", "-c", "sleep 31415926 & sleep 31415926"], |config| {
                    config.log_path = format!("{name}/0.log").into();
                })
                .await;
            world.runtime.start_container(&id).await.unwrap();
        }
    }
}

async fn nothing_is_left() {
    let world = World::new().await;
    let data = world.config.data_dir.display().to_string();
    let root = world.config.cgroup_root.clone();
    assert_eq!(traces(&data, &root), NONE);
    fill(&world).await;
    let full = traces(&data, &root);
    assert!(full.processes >= 7 && full.mounts.len() == 4 && !full.cgroups.is_empty(), "{full:?}");
    // Stopping keeps the records only.
    world.runtime.stop_all(false).await.unwrap();
    eventually(0, || traces(&data, &root).processes).await;
    assert!(traces(&data, &root).mounts.is_empty());
    assert_eq!(world.runtime.containers().await.unwrap().len(), 4);
    world.runtime.purge().await.unwrap();
    eventually(NONE, || traces(&data, &root)).await;
    assert!(
        !world.config.data_dir.join("run").exists() && !world.config.data_dir.join("containers").exists()
    );
}

async fn a_sweep_without_records() {
    let world = World::new().await;
    let data = world.config.data_dir.display().to_string();
    let root = world.config.cgroup_root.clone();
    fill(&world).await;
    let World { runtime, config, directory } = world;
    drop(runtime);
    tokio::time::sleep(Duration::from_millis(20)).await;
    containers::sweep(&config.data_dir, &config.cgroup_root).unwrap();
    eventually(NONE, || traces(&data, &root)).await;
    drop(directory);
}
