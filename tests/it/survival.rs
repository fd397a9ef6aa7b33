//! Ctrl-C, reset, snapshots, tokens.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cluster::{Cluster, binary, isolate};

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

/// The network without a cluster, so that only what the cluster adds counts. The directory is the caller's alone: who
/// looks for another's finds the process that looks for it.
fn before() -> BTreeSet<String> {
    isolate();
    traces(tempfile::tempdir().unwrap().path())
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

/// A machine that has nothing: the binary, what the kernel shows of itself, and the loopback device.
const BARE: &str = "ip link set lo up && mount --bind \"$1\" \"$1\" && cd \"$1\" && mkdir proc sys dev && \
                    mount --rbind /proc proc && mount --rbind /sys sys && mount --rbind /dev dev && \
                    exec chroot . /kobune up --demo --data-dir /data";

#[test]
fn the_binary_alone_walks_the_demo_without_a_network() {
    let root = tempfile::tempdir().unwrap();
    std::fs::copy(binary(), root.path().join("kobune")).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "sh", "-c", BARE, "sh"]).arg(root.path());
    let mut demo = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = Vec::new();
    for line in BufReader::new(demo.stderr.take().unwrap()).lines().map_while(Result::ok) {
        if line.contains("20 pods answered") {
            let pid = demo.id().to_string();
            assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        }
        said.push(line);
    }
    assert!(demo.wait().unwrap().success(), "{said:#?}");
    assert!(said.iter().any(|line| line.contains("20 pods answered")), "{said:#?}");
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
fn reset_keeps_its_hands_off_what_is_not_its_own() {
    isolate();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("thesis.txt"), "years of work").unwrap();
    let reset = |flags: &[&str]| {
        let mut command = Command::new(binary());
        command.arg("reset").args(flags).arg("--data-dir").arg(folder.path()).stdin(Stdio::null());
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, error) = reset(&["--yes"]);
    assert!(code == Some(2) && error.contains("holds no cluster"), "{error}");
    std::fs::remove_file(folder.path().join("thesis.txt")).unwrap();
    std::fs::create_dir(folder.path().join("server")).unwrap();
    let (code, error) = reset(&[]);
    assert!(code == Some(2) && error.contains("--yes"), "{error}");
    assert!(folder.path().join("server").exists());
    assert_eq!(reset(&["--yes"]).0, Some(0));
    assert!(!folder.path().exists());
}

#[test]
fn a_snapshot_brings_the_state_back() {
    let mut cluster = Cluster::start("server", &[], "");
    let file = |name: &str| cluster.dir.path().join(name).to_str().unwrap().to_owned();
    let (running, stopped, torn) = (file("running"), file("stopped"), file("torn"));
    cluster.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]);
    // Of the running server, through its door.
    let saved = cluster.kobune(&["snapshot", "save", &running, "--output", "json"]);
    let saved: serde_json::Value = serde_json::from_str(&saved).unwrap();
    assert!(saved["revision"].as_u64().unwrap() > 0, "{saved}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&running).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "a snapshot holds secrets");
    let refused = cluster.kubectl_fails(&["get", "--raw", "/kobune/snapshot", "--as=somebody"]);
    assert!(refused.contains("Forbidden"), "{refused}");
    cluster.kubectl(&["create", "configmap", "later"]);
    // A running server is not replaced under its own feet, and a cluster not by accident.
    let restore = |cluster: &Cluster, file: &str| {
        let mut command = Command::new(binary());
        command.args(["snapshot", "restore", file, "--data-dir"]).arg(cluster.data());
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, error) = restore(&cluster, &running);
    assert!(code == Some(1) && error.contains("stop the server"), "{error}");
    cluster.interrupt();
    cluster.kobune(&["snapshot", "save", &stopped]);
    let (code, error) = restore(&cluster, &running);
    assert!(code == Some(1) && error.contains("a cluster is in"), "{error}");
    for (file, later) in [(&running, false), (&stopped, true)] {
        cluster.interrupt();
        std::fs::remove_dir_all(cluster.data().join("server/store")).unwrap();
        let bytes = std::fs::read(file).unwrap();
        std::fs::write(&torn, &bytes[..bytes.len() - 1]).unwrap();
        let (code, error) = restore(&cluster, &torn);
        assert!(code == Some(1) && error.contains("use another snapshot"), "{error}");
        cluster.kobune(&["snapshot", "restore", file]);
        cluster.launch();
        cluster.kubectl(&["get", "configmap", "kept"]);
        assert_eq!(cluster.try_kubectl(&["get", "configmap", "later"]).status.success(), later);
    }
}

#[test]
fn tokens_are_made_listed_and_deleted() {
    let cluster = Cluster::start("server", &[], "");
    let token = cluster.kobune(&["token", "create", "--description", "for node 2"]);
    let [id, secret, hash] = token.trim().split('.').collect::<Vec<_>>().try_into().unwrap();
    assert!(id.len() == 6 && secret.len() == 16 && hash.len() == 64, "{token}");
    let who = |token: &str| {
        let mut command = cluster.command("1.36", "kubectl");
        let server = format!("--server=https://127.0.0.1:{}", cluster.port);
        command.args(["--kubeconfig=/dev/null", "--insecure-skip-tls-verify", &server, "--token", token]);
        let output = command.args(["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]).output();
        String::from_utf8_lossy(&output.unwrap().stdout).into_owned()
    };
    assert_eq!(who(&format!("{id}.{secret}")), format!("system:bootstrap:{id}"));
    let list = cluster.kobune(&["token", "list"]);
    assert!(list.contains(id) && list.contains("for node 2") && !list.contains(secret), "{list}");
    let made = cluster.kobune(&["token", "create", "--output", "json", "--ttl-hours", "1"]);
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    assert!(made["token"].as_str().unwrap().contains('.') && made["expires"].is_string(), "{made}");
    cluster.kobune(&["token", "delete", id]);
    assert_eq!(who(&format!("{id}.{secret}")), "");
    let list: serde_json::Value =
        serde_json::from_str(&cluster.kobune(&["token", "list", "--output", "json"])).unwrap();
    assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
}
