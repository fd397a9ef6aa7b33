//! The `[sig-cli]` behaviours with the real kubectl, all on one cluster.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::cluster::{Cluster, fetch};

const WEB: &str = "kobune.local/web:latest";

fn controller(name: &str, labels: &str, port: u16) -> String {
    format!(
        "
apiVersion: v1
kind: ReplicationController
metadata: {{name: {name}, labels: {{{labels}}}}}
spec:
  replicas: 1
  selector: {{{labels}}}
  template:
    metadata: {{labels: {{{labels}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{{name: {name}, image: '{WEB}', imagePullPolicy: IfNotPresent, ports: [{{name: web, containerPort: {port}}}]}}]
"
    )
}

fn contains_all(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

// conformance: [sig-cli] Kubectl client Kubectl api-versions should check if v1 is in available api versions
fn api_versions(cluster: &Cluster) {
    assert!(cluster.kubectl(&["api-versions"]).lines().any(|line| line == "v1"));
}

// conformance: [sig-cli] Kubectl client Kubectl cluster-info should check if Kubernetes control plane services is included in cluster-info
fn cluster_info(cluster: &Cluster) {
    contains_all(&cluster.kubectl(&["cluster-info"]), &["Kubernetes control plane", "is running at"]);
}

// conformance: [sig-cli] Kubectl client Kubectl version should check is all data is printed
fn version(cluster: &Cluster) {
    contains_all(&cluster.kubectl(&["version"]), &["Client Version: v1.", "Server Version: v1.36."]);
    let version = cluster.json(&["version"]);
    for side in ["clientVersion", "serverVersion"] {
        for field in
            ["major", "minor", "gitVersion", "gitCommit", "buildDate", "goVersion", "compiler", "platform"]
        {
            assert!(version[side][field].is_string(), "{side} {field}: {version}");
        }
    }
}

// conformance: [sig-cli] Kubectl client Kubectl describe should check if kubectl describe prints relevant information for rc and pods
fn describe(cluster: &Cluster) {
    cluster.feed(&["create"], &controller("agnhost-primary", "app: agnhost, role: primary", 6379));
    let service = "{apiVersion: v1, kind: Service, metadata: {name: agnhost-primary, labels: {app: agnhost}},
        spec: {ports: [{port: 6379, targetPort: web}], selector: {app: agnhost, role: primary}}}";
    cluster.feed(&["create"], service);
    let pods = cluster.wait_for_pods("app=agnhost", 1);
    let pod = [
        "Name:",
        "Namespace:",
        "Node:",
        "Labels:",
        "app=agnhost",
        "role=primary",
        "Annotations:",
        "Status:",
        "Running",
        "IP:",
        "Controlled By:",
        "ReplicationController/agnhost-primary",
        "Image:",
        WEB,
        "State:",
        "QoS Class:",
        "BestEffort",
    ];
    contains_all(&cluster.kubectl(&["describe", "pod", &pods[0].0]), &pod);
    let node = cluster.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]);
    let rc = [
        "Name:",
        "agnhost-primary",
        "Namespace:",
        "Selector:",
        "app=agnhost,role=primary",
        "Labels:",
        "Annotations:",
        "Replicas:",
        "1 current",
        "1 desired",
        "Pods Status:",
        "1 Running",
        "0 Waiting",
        "0 Succeeded",
        "0 Failed",
        "Pod Template:",
        "Image:",
        WEB,
        "Events:",
    ];
    contains_all(&cluster.kubectl(&["describe", "rc", "agnhost-primary"]), &rc);
    let service = [
        "Name:",
        "agnhost-primary",
        "Namespace:",
        "Labels:",
        "app=agnhost",
        "Annotations:",
        "Selector:",
        "app=agnhost,role=primary",
        "Type:",
        "ClusterIP",
        "IP:",
        "Port:",
        "<unset>",
        "6379/TCP",
        "Endpoints:",
        "Session Affinity:",
        "None",
    ];
    contains_all(&cluster.kubectl(&["describe", "service", "agnhost-primary"]), &service);
    let about = [
        "Name:",
        "Labels:",
        "Annotations:",
        "CreationTimestamp:",
        "Conditions:",
        "Type",
        "Status",
        "LastHeartbeatTime",
        "LastTransitionTime",
        "Reason",
        "Message",
        "Addresses:",
        "Capacity:",
        "Version",
        "Kernel Version:",
        "Kubelet Version:",
        "Container Runtime Version:",
    ];
    contains_all(&cluster.kubectl(&["describe", "node", &node]), &about);
    let namespace =
        ["Name:", "default", "Labels:", "Annotations:", "Status:", "Active", "quota", "LimitRange"];
    contains_all(&cluster.kubectl(&["describe", "namespace", "default"]), &namespace);
}

/// Where the endpoints of a Service lead: addresses with ports.
fn endpoints(cluster: &Cluster, service: &str) -> Vec<String> {
    let list =
        cluster.json(&["get", "endpointslices", "-l", &format!("kubernetes.io/service-name={service}")]);
    let slices = list["items"].as_array().unwrap();
    let of_slice = |slice: &Value| -> Vec<String> {
        let port = slice["ports"][0]["port"].clone();
        let endpoints = slice["endpoints"].as_array().cloned().unwrap_or_default();
        endpoints.iter().map(|one| format!("{}:{port}", one["addresses"][0].as_str().unwrap())).collect()
    };
    slices.iter().flat_map(of_slice).collect()
}

// conformance: [sig-cli] Kubectl client Kubectl expose should create services for rc
fn expose(cluster: &Cluster) {
    let pods = cluster.wait_for_pods("app=agnhost", 1);
    cluster.kubectl(&["expose", "rc", "agnhost-primary", "--name=rm2", "--port=1234", "--target-port=6379"]);
    cluster.kubectl(&["expose", "service", "rm2", "--name=rm3", "--port=2345", "--target-port=6379"]);
    for (name, port) in [("rm2", 1234), ("rm3", 2345)] {
        let service = cluster.json(&["get", "service", name]);
        assert_eq!(service["spec"]["ports"][0]["port"], port);
        assert_eq!(service["spec"]["ports"][0]["targetPort"], 6379);
        let expected = [format!("{}:6379", pods[0].1)];
        cluster.until("the endpoints are known", |cluster| endpoints(cluster, name) == expected);
    }
}

// conformance: [sig-cli] Kubectl client Kubectl patch should add annotations for pods in rc
fn patch(cluster: &Cluster) {
    for (name, _) in cluster.wait_for_pods("app=agnhost", 1) {
        cluster.kubectl(&["patch", "pod", &name, "-p", r#"{"metadata":{"annotations":{"x":"y"}}}"#]);
        assert_eq!(cluster.kubectl(&["get", "pod", &name, "-o", "jsonpath={.metadata.annotations.x}"]), "y");
    }
    cluster.kubectl(&["delete", "rc,service", "-l", "app=agnhost"]);
    cluster.kubectl(&["delete", "service", "rm2", "rm3", "--ignore-not-found"]);
}

// conformance: [sig-cli] Kubectl client Kubectl diff should check if kubectl diff finds a difference for Deployments
fn diff(cluster: &Cluster) {
    let manifest = |image: &str| {
        format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: httpd-deployment}}, spec: {{replicas: 1,
            selector: {{matchLabels: {{app: httpd}}}}, template: {{metadata: {{labels: {{app: httpd}}}},
            spec: {{containers: [{{name: httpd, image: '{image}', ports: [{{containerPort: 80}}]}}]}}}}}}}}"
        )
    };
    cluster.feed(&["create"], &manifest(WEB));
    let path = cluster.dir.path().join("diff.yaml");
    std::fs::write(&path, manifest("registry.k8s.io/e2e-test-images/busybox:1")).unwrap();
    let output = cluster.try_kubectl(&["diff", "-f", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (old, new) = (format!("image: {WEB}"), "image: registry.k8s.io/e2e-test-images/busybox:1");
    assert!(text.lines().any(|line| line.starts_with('-') && line.ends_with(&old)), "{text}");
    assert!(text.lines().any(|line| line.starts_with('+') && line.ends_with(new)), "{text}");
    cluster.kubectl(&["delete", "deployment", "httpd-deployment"]);
}

fn run(cluster: &Cluster, name: &str) {
    cluster.kubectl(&[
        "run",
        name,
        &format!("--image={WEB}"),
        "--image-pull-policy=IfNotPresent",
        &format!("--labels=run={name}"),
    ]);
    cluster.wait_for_pods(&format!("run={name}"), 1);
}

fn image_of(cluster: &Cluster, pod: &str) -> String {
    cluster.kubectl(&["get", "pod", pod, "-o", "jsonpath={.spec.containers[0].image}"])
}

// conformance: [sig-cli] Kubectl client Kubectl label should update the label on a resource
fn label(cluster: &Cluster) {
    run(cluster, "pause");
    cluster.kubectl(&["label", "pods", "pause", "testing-label=testing-label-value"]);
    contains_all(
        &cluster.kubectl(&["get", "pod", "pause", "-L", "testing-label"]),
        &["TESTING-LABEL", "testing-label-value"],
    );
    let selected = |cluster: &Cluster| {
        cluster.kubectl(&["get", "pods", "-l", "testing-label=testing-label-value", "-o", "name"])
    };
    assert_eq!(selected(cluster).trim(), "pod/pause");
    cluster.kubectl(&["label", "pods", "pause", "testing-label-"]);
    assert!(
        !cluster.kubectl(&["get", "pod", "pause", "-L", "testing-label"]).contains("testing-label-value")
    );
    assert_eq!(selected(cluster), "");
    cluster.kubectl(&["delete", "pod", "pause", "--now"]);
}

// conformance: [sig-cli] Kubectl client Kubectl run pod should create a pod from an image when restart is Never
fn run_never(cluster: &Cluster) {
    cluster.kubectl(&[
        "run",
        "e2e-test-httpd-pod",
        "--restart=Never",
        "--pod-running-timeout=2m0s",
        &format!("--image={WEB}"),
    ]);
    let pod = cluster.json(&["get", "pod", "e2e-test-httpd-pod"]);
    assert_eq!(pod["spec"]["containers"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&pod["spec"]["containers"][0]["image"], &pod["spec"]["restartPolicy"]),
        (&WEB.into(), &"Never".into())
    );
    cluster.kubectl(&["delete", "pod", "e2e-test-httpd-pod", "--now"]);
}

// conformance: [sig-cli] Kubectl client Kubectl server-side dry-run should check if kubectl can dry-run update Pods
fn dry_run(cluster: &Cluster) {
    run(cluster, "e2e-test-dry");
    let patch = r#"{"spec":{"containers":[{"name":"e2e-test-dry","image":"test.local/busybox:1"}]}}"#;
    let shown =
        cluster.kubectl(&["patch", "pod", "e2e-test-dry", "-p", patch, "--dry-run=server", "-o", "yaml"]);
    assert!(shown.contains("image: test.local/busybox:1"), "{shown}");
    assert_eq!(image_of(cluster, "e2e-test-dry"), WEB);
    cluster.kubectl(&["delete", "pod", "e2e-test-dry", "--now"]);
}

// conformance: [sig-cli] Kubectl client Kubectl replace should update a single-container pod's image
fn replace(cluster: &Cluster) {
    run(cluster, "e2e-test-replaced");
    let text = cluster.kubectl(&["get", "pod", "e2e-test-replaced", "-o", "json"]);
    cluster.feed(&["replace"], &text.replace(WEB, "test.local/busybox:1"));
    assert_eq!(image_of(cluster, "e2e-test-replaced"), "test.local/busybox:1");
    let uid =
        |cluster: &Cluster| cluster.json(&["get", "pod", "e2e-test-replaced"])["metadata"]["uid"].clone();
    let before = uid(cluster);
    cluster.feed(&["replace", "--force", "--grace-period=0"], &text);
    assert_ne!(uid(cluster), before);
    assert_eq!(image_of(cluster, "e2e-test-replaced"), WEB);
    cluster.kubectl(&["delete", "pod", "e2e-test-replaced", "--now"]);
}

/// A `kubectl proxy` and the line that it prints first.
fn proxy(cluster: &Cluster, argument: &str) -> (Child, String) {
    let mut command = cluster.command("1.36", "kubectl");
    let mut child = command.args(["proxy", argument]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, line)
}

fn versions(mut stream: impl Read + Write) -> Value {
    write!(stream, "GET /api/ HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str::<Value>(body).unwrap_or_else(|error| panic!("{error}: {answer}"))["versions"]
        .clone()
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

// conformance: [sig-cli] Kubectl client Proxy server should support proxy with --port 0
fn proxy_on_a_port(cluster: &Cluster) {
    let (child, line) = proxy(cluster, "--port=0");
    let address = line.trim().rsplit(' ').next().unwrap();
    assert_eq!(versions(TcpStream::connect(address).unwrap()), serde_json::json!(["v1"]));
    end(child);
}

// conformance: [sig-cli] Kubectl client Proxy server should support --unix-socket=/path
fn proxy_on_a_socket(cluster: &Cluster) {
    let path = cluster.dir.path().join("proxy.sock");
    let (child, line) = proxy(cluster, &format!("--unix-socket={}", path.display()));
    assert!(line.contains("Starting to serve on") && Path::new(&path).exists(), "{line}");
    assert_eq!(versions(UnixStream::connect(&path).unwrap()), serde_json::json!(["v1"]));
    end(child);
}

fn demo(replicas: u32) -> String {
    controller("update-demo-nautilus", "name: update-demo, version: nautilus", 80)
        .replace("replicas: 1", &format!("replicas: {replicas}"))
}

fn demo_runs(cluster: &Cluster, count: usize) {
    for (name, address) in cluster.wait_for_pods("name=update-demo", count) {
        assert_eq!(image_of(cluster, &name), WEB);
        assert_eq!(fetch(&format!("{address}:80")).unwrap(), name);
    }
}

// conformance: [sig-cli] Kubectl client Update Demo should create and stop a replication controller
// conformance: [sig-cli] Kubectl client Update Demo should scale a replication controller
fn update_demo(cluster: &Cluster) {
    cluster.feed(&["create"], &demo(2));
    demo_runs(cluster, 2);
    for count in [1, 2] {
        let replicas = format!("--replicas={count}");
        cluster.kubectl(&["scale", "rc", "update-demo-nautilus", &replicas, "--timeout=5m"]);
        demo_runs(cluster, count);
    }
    cluster.feed(&["delete", "--grace-period=0", "--force"], &demo(2));
    cluster.until("nothing is left", |cluster| {
        cluster.kubectl(&["get", "rc,pods", "-l", "name=update-demo", "-o", "name"]).is_empty()
    });
}

// conformance: [sig-cli] Kubectl logs logs should be able to retrieve and filter logs
fn logs(cluster: &Cluster) {
    let script = "i=0; while [ $i -lt 100 ]; do echo line $i; i=$((i+1)); sleep 0.2; done; sleep 60";
    cluster.kubectl(&[
        "run",
        "logs-generator",
        "--image=test.local/busybox:1",
        "--restart=Never",
        "--",
        "sh",
        "-c",
        script,
    ]);
    cluster.until("there are lines", |cluster| {
        let output = cluster.try_kubectl(&["logs", "logs-generator"]);
        String::from_utf8_lossy(&output.stdout).lines().count() > 20
    });
    let log = |flags: &[&str]| {
        cluster.kubectl(&[&["logs", "logs-generator", "-c", "logs-generator"], flags].concat())
    };
    assert!(log(&[]).starts_with("line 0\nline 1\n"));
    let last = log(&["--tail=1"]);
    assert!(last.starts_with("line ") && last.lines().count() == 1, "{last}");
    assert_eq!(log(&["--limit-bytes=1"]), "l");
    let timed = log(&["--tail=1", "--timestamps"]);
    let (time, text) = timed.split_once(' ').unwrap();
    assert!(time.ends_with('Z') && time.contains('T') && text.starts_with("line "), "{timed}");
    let (recent, all) = (log(&["--since=1s"]), log(&["--since=24h"]));
    assert!(recent.lines().count() < 10, "{recent}");
    assert!(all.starts_with("line 0\n"), "{all}");
    cluster.kubectl(&["delete", "pod", "logs-generator", "--now"]);
}

#[test]
fn kubectl_does_what_the_list_asks() {
    let cluster = Cluster::up();
    crate::image::import_busybox(&cluster);
    api_versions(&cluster);
    cluster_info(&cluster);
    version(&cluster);
    describe(&cluster);
    expose(&cluster);
    patch(&cluster);
    diff(&cluster);
    label(&cluster);
    run_never(&cluster);
    dry_run(&cluster);
    replace(&cluster);
    proxy_on_a_port(&cluster);
    proxy_on_a_socket(&cluster);
    update_demo(&cluster);
    logs(&cluster);
}
