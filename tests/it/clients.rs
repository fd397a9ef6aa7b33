//! helm, and the client libraries of Python and JavaScript.

use std::process::Command;

use crate::cluster::{Cluster, node_path, python_path};

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

const JAVASCRIPT: &str = "
import * as k8s from '@kubernetes/client-node';
const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const namespace = 'default';
const list = await core.listNamespacedConfigMap({ namespace });
const seen = new Promise((done, failed) => {
  const at = { resourceVersion: list.metadata.resourceVersion };
  const each = (type, object) => {
    if (object.metadata.name === 'js' && type === 'MODIFIED') done(`${type} ${JSON.stringify(object.data)}`);
  };
  new k8s.Watch(config).watch(`/api/v1/namespaces/${namespace}/configmaps`, at, each, failed).catch(failed);
});
await core.createNamespacedConfigMap({ namespace, body: { metadata: { name: 'js' }, data: { a: '1' } } });
const merge = k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.MergePatch);
await core.patchNamespacedConfigMap({ name: 'js', namespace, body: { data: { b: '2' } } }, merge);
console.log(await seen);
const names = (await core.listNamespace()).items.map((item) => item.metadata.name);
if (!names.includes('kube-system')) throw new Error(names.join());
await core.deleteNamespacedConfigMap({ name: 'js', namespace });
const missing = await core.readNamespacedConfigMap({ name: 'js', namespace }).catch((error) => error.code);
console.log(missing);
process.exit(0);
";

#[test]
fn the_javascript_library_lists_watches_and_patches() {
    let cluster = Cluster::up();
    let mut node = Command::new("node");
    node.args(["--input-type=module", "-e", JAVASCRIPT]).current_dir(node_path());
    node.env("KUBECONFIG", cluster.kubeconfig());
    assert_eq!(cluster.succeed(&mut node).trim(), "MODIFIED {\"a\":\"1\",\"b\":\"2\"}\n404");
}
