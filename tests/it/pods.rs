//! Into pods and out of them: exec, logs, files, ports.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use crate::cluster::{Cluster, fetch};
use crate::image::import_busybox;

fn pod(cluster: &Cluster, name: &str, script: &str) {
    import_busybox(cluster);
    cluster.kubectl(&[
        "run",
        name,
        "--image=test.local/busybox:1",
        "--image-pull-policy=Never",
        "--command",
        "--",
        "sh",
        "-c",
        script,
    ]);
    cluster.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]);
}

const IDLE: &str = "trap 'exit 0' TERM; while true; do sleep 0.2; done";

#[test]
fn exec_passes_streams_and_exit_codes() {
    let cluster = Cluster::up();
    pod(&cluster, "box", IDLE);
    assert_eq!(cluster.kubectl(&["exec", "box", "--", "sh", "-c", "echo $HOSTNAME"]).trim(), "box");
    let failed = cluster.try_kubectl(&["exec", "box", "--", "sh", "-c", "echo oops >&2; exit 7"]);
    assert_eq!(failed.status.code(), Some(7));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("oops"));
    let mut command = cluster.command("1.36", "kubectl");
    command.args(["exec", "-i", "box", "--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let sent = "0123456789".repeat(50_000);
    let mut stdin = child.stdin.take().unwrap();
    let copy = sent.clone();
    let writer = std::thread::spawn(move || stdin.write_all(copy.as_bytes()));
    let mut back = String::new();
    child.stdout.take().unwrap().read_to_string(&mut back).unwrap();
    writer.join().unwrap().unwrap();
    assert!(child.wait().unwrap().success());
    assert!(back == sent, "{} bytes came back of {}", back.len(), sent.len());
}

#[test]
fn a_terminal_is_as_large_as_the_clients() {
    let cluster = Cluster::up();
    pod(&cluster, "box", IDLE);
    // `script` gives kubectl a terminal, whose size it passes on at once.
    let mut command = cluster.command("1.36", "kubectl");
    let kubectl = command.get_program().to_string_lossy().into_owned();
    let inside = format!("stty rows 33 cols 77; {kubectl} exec -it box -- stty size");
    let mut script = std::process::Command::new("script");
    // Its input stays open: at the end of it `script` hangs up.
    script.args(["-qec", &inside, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    script.envs(command.env("X", "").get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child = script.spawn().unwrap();
    let open = child.stdin.take();
    let mut shown = String::new();
    child.stdout.take().unwrap().read_to_string(&mut shown).unwrap();
    child.wait().unwrap();
    drop(open);
    assert!(shown.contains("33 77"), "{shown:?}");
}

#[test]
fn logs_are_followed_to_the_end() {
    let cluster = Cluster::up();
    pod(&cluster, "talker", "for i in $(seq 1 2000); do echo line $i; done; sleep 3; echo last");
    let mut command = cluster.command("1.36", "kubectl");
    let mut child = command.args(["logs", "-f", "talker"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let lines: Vec<String> = lines.take_while(|line| line != "last").collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(lines.len(), 2000);
    assert_eq!(cluster.kubectl(&["logs", "talker", "--tail=1"]).lines().count(), 1);
}

#[test]
fn files_are_copied_both_ways() {
    let cluster = Cluster::up();
    pod(&cluster, "box", IDLE);
    let (there, back) = (cluster.dir.path().join("there"), cluster.dir.path().join("back"));
    std::fs::write(&there, vec![7_u8; 300_000]).unwrap();
    cluster.kubectl(&["cp", there.to_str().unwrap(), "box:/tmp/file"]);
    cluster.kubectl(&["cp", "box:/tmp/file", back.to_str().unwrap()]);
    assert!(std::fs::read(&back).unwrap() == std::fs::read(&there).unwrap());
}

#[test]
fn ports_are_forwarded() {
    let cluster = Cluster::up();
    cluster.feed(&["create"], crate::walk::CONTROLLER);
    let pods = cluster.wait_for_pods("run=my-nginx", 2);
    let mut command = cluster.command("1.36", "kubectl");
    let mut child = command.args(["port-forward", &pods[0].0, ":80"]).stdout(Stdio::piped()).spawn().unwrap();
    // The reader stays until the end: kubectl would die of writing to nobody.
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    let port = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().to_owned();
    for _ in 0..3 {
        assert_eq!(fetch(&format!("127.0.0.1:{port}")).unwrap(), pods[0].0);
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn volumes_and_environment_come_from_the_api() {
    let cluster = Cluster::up();
    import_busybox(&cluster);
    cluster.kubectl(&["create", "configmap", "settings", "--from-literal=colour=blue"]);
    cluster.kubectl(&["create", "secret", "generic", "key", "--from-literal=word=xyz"]);
    cluster.feed(
        &["apply"],
        "
apiVersion: v1
kind: Pod
metadata: {name: reader, labels: {a: b}}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - name: prepare
    image: test.local/busybox:1
    imagePullPolicy: Never
    command: [sh, -c, 'echo prepared > /scratch/state']
    volumeMounts: [{name: work, mountPath: /scratch}]
  containers:
  - name: main
    image: test.local/busybox:1
    imagePullPolicy: Never
    command: [sh, -c, 'while true; do sleep 0.2; done']
    env:
    - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    volumeMounts:
    - {name: work, mountPath: /scratch}
    - {name: settings, mountPath: /settings}
    - {name: key, mountPath: /key}
  volumes:
  - {name: work, emptyDir: {}}
  - {name: settings, configMap: {name: settings}}
  - {name: key, secret: {secretName: key}}
",
    );
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/reader", "--timeout=60s"]);
    let read =
        |command: &str| cluster.kubectl(&["exec", "reader", "--", "sh", "-c", command]).trim().to_owned();
    assert_eq!(read("cat /scratch/state /key/word; echo $COLOUR"), "prepared\nxyzblue");
    assert!(!read("cat /var/run/secrets/kubernetes.io/serviceaccount/token").is_empty());
    cluster.kubectl(&["patch", "configmap", "settings", "-p", "{\"data\":{\"colour\":\"red\"}}"]);
    cluster.until("the file follows the config map", |_| read("cat /settings/colour") == "red");
}
