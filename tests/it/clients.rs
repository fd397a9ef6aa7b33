//! helm and the Python client library.

use std::process::Command;

use crate::cluster::{Cluster, python_path};

fn write_chart(folder: &std::path::Path) {
    std::fs::create_dir_all(folder.join("templates")).unwrap();
    let files = [
        ("Chart.yaml", "apiVersion: v2\nname: web\nversion: 0.1.0\n"),
        ("values.yaml", "replicas: 1\n"),
        (
            "templates/all.yaml",
            "
apiVersion: v1
kind: ConfigMap
metadata: {name: '{{ .Release.Name }}-settings'}
data: {replicas: '{{ .Values.replicas }}'}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: '{{ .Release.Name }}'}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: '{{ .Release.Name }}'}}
  template:
    metadata: {labels: {app: '{{ .Release.Name }}'}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: web, image: 'kobune.local/web:latest', imagePullPolicy: IfNotPresent}]
",
        ),
    ];
    for (name, text) in files {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

#[test]
fn helm_installs_upgrades_rolls_back_and_uninstalls() {
    let cluster = Cluster::up();
    let chart = cluster.dir.path().join("chart");
    write_chart(&chart);
    let chart = chart.to_str().unwrap();
    let helm = |arguments: &[&str]| cluster.succeed(cluster.command("1.36", "helm").args(arguments));
    helm(&["install", "demo", chart, "--wait", "--timeout", "60s"]);
    assert_eq!(cluster.ready_pods("app=demo").len(), 1);
    helm(&["upgrade", "demo", chart, "--set", "replicas=3", "--wait", "--timeout", "60s"]);
    cluster.wait_for_pods("app=demo", 3);
    helm(&["rollback", "demo", "1", "--wait", "--timeout", "60s"]);
    cluster.wait_for_pods("app=demo", 1);
    helm(&["uninstall", "demo", "--wait"]);
    cluster.until("nothing is left", |cluster| cluster.ready_pods("app=demo").is_empty());
    assert!(cluster.kubectl_fails(&["get", "configmap", "demo-settings"]).contains("NotFound"));
}

const SCRIPT: &str = "
from kubernetes import client, config, watch
config.load_kube_config()
core = client.CoreV1Api()
core.create_namespaced_config_map('default', {'metadata': {'name': 'py'}, 'data': {'a': '1'}})
core.patch_namespaced_config_map('py', 'default', {'data': {'b': '2'}})
found = core.read_namespaced_config_map('py', 'default').data
assert found == {'a': '1', 'b': '2'}, found
names = [item.metadata.name for item in core.list_namespace().items]
assert 'kube-system' in names, names
for event in watch.Watch().stream(core.list_namespaced_config_map, 'default', timeout_seconds=20):
    if event['object'].metadata.name == 'py':
        print('seen', event['type'])
        break
";

#[test]
fn the_python_library_lists_watches_and_patches() {
    let cluster = Cluster::up();
    let mut python = Command::new("python3");
    python.args(["-c", SCRIPT]).env("PYTHONPATH", python_path()).env("KUBECONFIG", cluster.kubeconfig());
    assert_eq!(cluster.succeed(&mut python).trim(), "seen ADDED");
}
