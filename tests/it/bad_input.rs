//! Bad input and bad surroundings get a clear error: what is wrong, and what to do.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cluster::{Cluster, binary, isolate, python_path};

/// Runs a command that must fail with an exit code; returns its errors.
fn fails_with(command: &mut Command, code: i32) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{command:?}: {text}");
    text
}

fn kobune(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments);
    command
}

/// `kobune COMMAND` fails with this exit code, and its error holds all of these texts.
#[track_caller]
fn refused(arguments: &[&str], code: i32, expected: &[&str]) {
    let error = fails_with(&mut kobune(arguments), code);
    for text in expected {
        assert!(error.contains(text), "{arguments:?} should say {text:?}:\n{error}");
    }
}

#[test]
fn wrong_usage_names_the_field_and_the_remedy() {
    isolate();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    refused(&["up", "--lisen", "127.0.0.1:1"], 2, &["--lisen", "--listen", "--help"]);
    refused(&["upp"], 2, &["upp", "up"]);
    refused(&["up", "--listen", "127.0.0.1:0", "--data-dir", data], 2, &["random port"]);
    refused(&["up", "--listen", "somewhere"], 2, &["--listen <HOST:PORT>", "somewhere"]);
    let nowhere = folder.path().join("nowhere.yaml");
    let nowhere = nowhere.to_str().unwrap();
    refused(&["up", "--config", nowhere], 2, &[nowhere, "No such file"]);
    let ranges = ["up", "--data-dir", data, "--cluster-cidr", "10.0.0.0/8"];
    refused(&ranges, 2, &["clusterCIDR 10.0.0.0/8", "serviceCIDR 10.43.0.0/16", "overlap"]);
    let config = folder.path().join("config.yaml");
    let path = config.to_str().unwrap();
    for (text, expected) in [
        ("nodeName: a\nclusterCidr: 10.0.0.0/16\n", ["line 2", "clusterCidr", "clusterCIDR"]),
        ("listen: 7443\n", ["line 1", "listen", "HOST:PORT"]),
        ("registries:\n  a:\n    plainHttp: perhaps\n", ["line 3", "plainHttp", "true or false"]),
        ("nodeName: [a\n", ["line 1", "nodeName", "["]),
    ] {
        std::fs::write(&config, text).unwrap();
        refused(&["up", "--data-dir", data, "--config", path], 2, &expected);
        refused(&["up", "--data-dir", data, "--config", path], 2, &[path]);
    }
    assert!(!Path::new(data).exists(), "wrong usage must leave nothing behind");
}

/// An address at which nobody listens.
fn free() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn a_start_that_cannot_be_says_what_to_do() {
    isolate();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refused(&["up", "--data-dir", data, "--listen", &address], 1, &[&address, "in use", "--listen"]);
    // The machine's own network is 10.1.1.0/24.
    let listen = free();
    let free = ["--listen", &listen, "--data-dir", data];
    let overlapping = [&["up", "--cluster-cidr", "10.1.0.0/16"], &free[..]].concat();
    refused(&overlapping, 1, &["10.1.0.0/16", "10.1.1.0/24", "--cluster-cidr"]);
    std::fs::write(folder.path().join("file"), "").unwrap();
    let file = folder.path().join("file/data");
    refused(&["up", "--listen", &listen, "--data-dir", file.to_str().unwrap()], 1, &["Not a directory"]);
    // As somebody else than root, with a program that they may read.
    let program = folder.path().join("kobune");
    std::fs::copy(binary(), &program).unwrap();
    for path in [folder.path(), &program] {
        std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    let error = fails_with(Command::new(&program).args(["up", "--data-dir", data]).uid(65_534), 1);
    assert!(error.contains("needs root") && error.contains("sudo"), "{error}");
    let error =
        fails_with(Command::new(&program).args(["reset", "--yes", "--data-dir", data]).uid(65_534), 1);
    assert!(error.contains("needs root"), "{error}");
}

#[test]
fn a_store_that_cannot_be_read_is_left_as_it_is() {
    let mut cluster = Cluster::start("server", &[], "");
    let data = cluster.data();
    let data = data.to_str().unwrap();
    let starts = ["server", "--listen", &free(), "--data-dir", data];
    refused(&starts, 1, &["in use by another process", "--data-dir"]);
    refused(&["reset", "--yes", "--data-dir", data], 1, &["in use by another process", "stop the server"]);
    cluster.interrupt();
    let database = cluster.data().join("server/store/store.db");
    let sqlite = |statement: &str| {
        let script =
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2]).fetchall()";
        let mut python = Command::new("python3");
        python.args(["-c", script]).arg(&database).arg(statement);
        assert!(python.status().unwrap().success());
    };
    let sound = std::fs::read(&database).unwrap();
    sqlite("PRAGMA user_version = 99");
    let newer = std::fs::read(&database).unwrap();
    let mut torn = sound.clone();
    let middle = torn.len() / 2;
    torn[middle..middle + 2000].fill(0xa5);
    for (bytes, expected) in [
        (newer, ["newer version", "format 99"]),
        (torn, ["damaged", "snapshot"]),
        (b"something else entirely".repeat(500), ["damaged", "snapshot"]),
    ] {
        std::fs::write(&database, &bytes).unwrap();
        refused(&starts, 1, &expected);
        assert!(std::fs::read(&database).unwrap() == bytes, "a refused start changed the store");
    }
    std::fs::write(&database, &sound).unwrap();
    cluster.launch();
}

/// A file system in memory of a bounded size; unmounted in the end.
struct Small(tempfile::TempDir);

impl Small {
    fn new(size: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("kobune-").tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(dir.path());
        assert!(mount.status().unwrap().success());
        Self(dir)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status().unwrap();
        assert!(unmounted.success() || std::thread::panicking());
    }
}

#[test]
fn a_full_disk_is_told_and_survived() {
    isolate();
    let tiny = Small::new("100k");
    let data = tiny.0.path().join("data");
    let data = data.to_str().unwrap();
    refused(&["up", "--listen", &free(), "--data-dir", data], 1, &["No space left", "--data-dir"]);
    drop(tiny);
    let small = Small::new("900m");
    let mut cluster = Cluster::prepare("server", &[], "");
    cluster.place(&small.0.path().join("data"));
    cluster.launch();
    cluster.kubectl(&["create", "configmap", "before", "--from-literal=a=b"]);
    let filler = small.0.path().join("filler");
    let mut fill = Command::new("dd");
    fill.args(["if=/dev/zero", "bs=64k", &format!("of={}", filler.display())]).stderr(Stdio::null());
    assert!(!fill.status().unwrap().success(), "the disk should be full");
    let big = format!("--from-literal=a={}", "x".repeat(100_000));
    let mut refusal = String::new();
    cluster.until("a write is refused", |cluster| {
        let name = format!("extra-{}", std::fs::metadata(cluster.data()).map_or(0, |_| rand_name()));
        let output = cluster.try_kubectl(&["create", "configmap", &name, &big]);
        refusal = String::from_utf8_lossy(&output.stderr).into_owned();
        !output.status.success()
    });
    assert!(refusal.contains("no space left") && refusal.contains("free some space"), "{refusal}");
    // What was there is still served.
    assert_eq!(cluster.kubectl(&["get", "configmap", "before", "-o", "jsonpath={.data.a}"]), "b");
    std::fs::remove_file(&filler).unwrap();
    cluster.until("writes work again", |cluster| {
        cluster.try_kubectl(&["create", "configmap", "after"]).status.success()
    });
    cluster.kill();
    cluster.launch();
    cluster.kubectl(&["get", "configmap", "before", "after"]);
    // The disk itself is not the program's: it stays mounted when everything else is removed.
    cluster.interrupt();
    cluster.kobune(&["reset", "--yes"]);
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(mounts.contains(small.0.path().to_str().unwrap()), "{mounts}");
}

/// A number that was not given out before.
fn rand_name() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[test]
fn the_doctor_says_what_is_missing() {
    isolate();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    let output = kobune(&["doctor", "--data-dir", data, "--output", "json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let probes: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    for name in
        ["overlayfs", "cgroup memory", "inotify instances", "open files", "clock", "packet forwarding"]
    {
        assert!(probes.iter().any(|probe| probe["name"] == name), "{name}: {probes:?}");
    }
    assert!(!Path::new(data).exists(), "looking leaves nothing behind");
    for line in [
        "add table inet strict",
        "add chain inet strict forward { type filter hook forward priority 0; policy drop; }",
    ] {
        assert!(Command::new("nft").arg(line).status().unwrap().success());
    }
    let output = kobune(&["doctor", "--data-dir", data]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("dropped by default in inet strict forward"), "{text}");
    // A kernel without control groups, as far as this process can see.
    let hidden = |command: &str| {
        let script = format!(
            "mount -t tmpfs none /sys/fs/cgroup && exec {} {command} --data-dir {data} --listen {}",
            binary().display(),
            free()
        );
        let mut run = Command::new("unshare");
        run.args(["--mount", "sh", "-c", &script]);
        run
    };
    let output = hidden("doctor").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("MISSING  control groups") && text.contains("-> mount cgroup2"), "{text}");
    let error = fails_with(&mut hidden("up"), 1);
    assert!(error.contains("cgroup") && error.contains("kobune doctor"), "{error}");
}

/// Requests that no command of kubectl sends.
const REQUESTS: &str = "
import json, ssl, sys, urllib.request, urllib.error
from kubernetes import client, config
config.load_kube_config()
api = client.ApiClient()
def ask(method, path, body, kind, auth=True):
    c = api.configuration
    context = ssl.create_default_context(cafile=c.ssl_ca_cert)
    if auth:
        context.load_cert_chain(c.cert_file, c.key_file)
    request = urllib.request.Request(c.host + path, data=body, method=method, headers={'Content-Type': kind})
    try:
        return json.load(urllib.request.urlopen(request, context=context))
    except urllib.error.HTTPError as error:
        return json.load(error)
maps = '/api/v1/namespaces/default/configmaps'
big = json.dumps({'apiVersion': 'v1', 'kind': 'ConfigMap', 'metadata': {'name': 'big'}, 'data': {'a': 'x' * 10_000_000}})
for name, answer in {
    'big': ask('POST', maps, big.encode(), 'application/json'),
    'type': ask('POST', maps, b'{}', 'text/plain'),
    'syntax': ask('POST', maps, b'{', 'application/json'),
    'anonymous': ask('GET', maps, None, 'application/json', auth=False),
    'method': ask('PUT', maps, b'{}', 'application/json'),
}.items():
    print(name, answer['kind'], answer['status'], answer['code'], answer['reason'], answer['message'])
";

fn requests(cluster: &Cluster) {
    let mut python = Command::new("python3");
    python.args(["-c", REQUESTS]).env("PYTHONPATH", python_path()).env("KUBECONFIG", cluster.kubeconfig());
    let answers = cluster.succeed(&mut python);
    for expected in [
        "big Status Failure 413 RequestEntityTooLarge Request entity too large: limit is 3145728",
        "type Status Failure 415 UnsupportedMediaType ",
        "syntax Status Failure 400 BadRequest ",
        "anonymous Status Failure 403 Forbidden configmaps is forbidden: User \"system:anonymous\" cannot list",
        "method Status Failure 405 MethodNotAllowed ",
    ] {
        assert!(answers.contains(expected), "{expected}\n{answers}");
    }
}

#[test]
fn the_api_names_the_fault() {
    let cluster = Cluster::up();
    let apply = |text: &str| {
        let path = cluster.dir.path().join("bad.yaml");
        std::fs::write(&path, text).unwrap();
        cluster.kubectl_fails(&["apply", "-f", path.to_str().unwrap()])
    };
    let error = apply("{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containerz: []}}");
    assert!(error.contains("unknown field \"spec.containerz\""), "{error}");
    let error =
        apply("{apiVersion: v1, kind: Pod, metadata: {name: A}, spec: {containers: [{name: a, image: b}]}}");
    assert!(error.contains("metadata.name: Invalid value: \"A\""), "{error}");
    let error = cluster.kubectl_fails(&[
        "get",
        "pods",
        "--token=nonsense",
        "--kubeconfig=/dev/null",
        "--insecure-skip-tls-verify",
        &format!("--server=https://127.0.0.1:{}", cluster.port),
    ]);
    assert!(error.contains("Unauthorized") || error.contains("logged in"), "{error}");
    let anonymous = cluster.kubectl_fails(&["get", "pods", "--as=nobody"]);
    assert!(anonymous.contains("User \"nobody\" cannot list resource \"pods\""), "{anonymous}");
    requests(&cluster);
    cluster.kubectl(&["run", "lost", "--image=localhost:1/none:1"]);
    cluster.until("the pod says that its image cannot be pulled", |cluster| {
        let reason = "jsonpath={.status.containerStatuses[0].state.waiting.reason}";
        ["ErrImagePull", "ImagePullBackOff"]
            .contains(&cluster.kubectl(&["get", "pod", "lost", "-o", reason]).as_str())
    });
    let events = cluster.kubectl(&["get", "events", "--field-selector=involvedObject.name=lost"]);
    assert!(events.contains("Failed to pull image") && events.contains("localhost:1"), "{events}");
}
