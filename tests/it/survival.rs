//! `kill -9`, Ctrl-C and reset.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::cluster::{Cluster, isolate};

fn containers(cluster: &Cluster) -> BTreeSet<(String, String, i64)> {
    let list = cluster.json(&["get", "pods", "-l", "run=my-nginx"]);
    let one = |pod: &serde_json::Value| {
        let status = &pod["status"]["containerStatuses"][0];
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        (
            text(&pod["metadata"]["name"]),
            text(&status["containerID"]),
            status["restartCount"].as_i64().unwrap_or(-1),
        )
    };
    list["items"].as_array().unwrap().iter().map(one).collect()
}

#[test]
fn killed_at_any_moment_it_loses_nothing_and_adopts_its_pods() {
    let mut cluster = Cluster::start("server", &[], "");
    cluster.feed(&["create"], crate::walk::CONTROLLER);
    cluster.wait_for_pods("run=my-nginx", 2);
    let before = containers(&cluster);
    let mut acknowledged = Vec::new();
    for round in 0..5 {
        for index in 0..10 {
            let name = format!("write-{round}-{index}");
            cluster.kubectl(&["create", "configmap", &name, "--from-literal=a=b"]);
            acknowledged.push(name);
        }
        // A write is under way when the process dies; it may or may not be there afterwards.
        let mut late = cluster.command("1.36", "kubectl");
        let mut late = late.args(["create", "configmap", &format!("late-{round}")]).spawn().unwrap();
        cluster.kill();
        late.wait().unwrap();
        cluster.launch();
    }
    let names = cluster.kubectl(&["get", "configmaps", "-o", "name"]);
    for name in acknowledged {
        assert!(names.contains(&format!("configmap/{name}\n")), "{name} is lost");
    }
    assert_eq!(containers(&cluster), before);
    for (name, address) in cluster.wait_for_pods("run=my-nginx", 2) {
        assert_eq!(crate::cluster::fetch(&format!("{address}:80")).unwrap(), name);
    }
}

/// What the machine shows of a cluster: links and tables of its network, and whatever else names its data directory.
fn traces(data: &Path) -> BTreeSet<String> {
    let lines = |command: &str, arguments: &[&str]| {
        let output = Command::new(command).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let name = data.to_str().unwrap();
    let mut traces = BTreeSet::new();
    let links = lines("ip", &["-o", "link"])
        .into_iter()
        .filter_map(|line| line.split(": ").nth(1).map(str::to_owned));
    traces.extend(links.map(|name| format!("link {name}")));
    traces.extend(lines("nft", &["list", "tables"]));
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    traces.extend(mounts.lines().filter(|line| line.contains(name)).map(|line| format!("mount {line}")));
    let cgroups = lines("find", &["/sys/fs/cgroup", "-maxdepth", "3", "-name", &instance(name)]);
    traces.extend(cgroups.into_iter().map(|path| format!("cgroup {path}")));
    // What init has not reaped yet is no process any more.
    let processes = lines("pgrep", &["-af", name]).into_iter().filter(|line| !line.contains("defunct"));
    traces.extend(processes.map(|line| format!("process {line}")));
    traces
}

/// What the cgroups of a data directory are called: FNV-1a of its path.
fn instance(data: &str) -> String {
    let step = |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    format!("kobune{:08x}", data.bytes().fold(0x811c_9dc5_u32, step))
}

/// The network without a cluster, so that only what the cluster adds counts.
fn before() -> BTreeSet<String> {
    isolate();
    traces(Path::new("/nowhere"))
}

/// Starts a cluster with two pods, which must show in each way that [`traces`] looks.
fn shown(command: &'static str) -> Cluster {
    let cluster = Cluster::start(command, &[], "");
    cluster.feed(&["create"], crate::walk::CONTROLLER);
    cluster.wait_for_pods("run=my-nginx", 2);
    let traces = traces(&cluster.data());
    for kind in ["link kb", "table ", "mount ", "cgroup ", "process "] {
        assert!(traces.iter().any(|trace| trace.starts_with(kind)), "{kind}: {traces:#?}");
    }
    cluster
}

#[test]
fn an_interrupt_leaves_nothing_behind() {
    let before = before();
    let mut cluster = shown("up");
    assert_eq!(cluster.interrupt(), Some(0), "{}", cluster.log());
    assert_eq!(traces(&cluster.data()), before);
}

#[test]
fn reset_removes_what_a_killed_server_left() {
    let before = before();
    let mut cluster = shown("server");
    cluster.kill();
    cluster.kobune(&["reset", "--yes"]);
    assert_eq!(traces(&cluster.data()), before);
    assert!(!cluster.data().exists());
}

#[test]
fn a_snapshot_brings_the_state_back() {
    let mut cluster = Cluster::start("server", &[], "");
    cluster.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]);
    cluster.interrupt();
    let file = cluster.dir.path().join("snapshot");
    cluster.kobune(&["snapshot", "save", file.to_str().unwrap()]);
    std::fs::remove_dir_all(cluster.data().join("server/store")).unwrap();
    cluster.kobune(&["snapshot", "restore", file.to_str().unwrap()]);
    cluster.launch();
    cluster.kubectl(&["get", "configmap", "kept"]);
}
