//! What nodes and pods use: `kubectl top`, and an autoscaler that follows it.

use std::process::Command;

use serde_json::Value;

use crate::cluster::{Cluster, binary};
use crate::image::import_busybox;

/// Keeps a processor busy as far as it is let.
const BUSY: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: busy}
spec:
  replicas: 1
  selector: {matchLabels: {app: busy}}
  template:
    metadata: {labels: {app: busy}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: spin
        image: test.local/busybox:1
        imagePullPolicy: Never
        command: [sh, -c, "while :; do :; done"]
        resources: {requests: {cpu: 50m, memory: 8Mi}, limits: {cpu: 200m}}
      - name: rest
        image: test.local/busybox:1
        imagePullPolicy: Never
        command: [sleep, "3600"]
        resources: {requests: {cpu: 10m}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: busy}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: busy}
  minReplicas: 1
  maxReplicas: 2
  metrics:
  - type: Resource
    resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}
"#;

/// The lines of a table without its header, in words.
fn rows(text: &str) -> Vec<Vec<String>> {
    text.lines().skip(1).map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

fn milli(word: &str) -> u64 {
    word.strip_suffix('m').and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// The same table from two kubectls and from the built-in one.
fn top_pods(cluster: &Cluster, clients: &mut [Command]) {
    for client in clients {
        let text = cluster.succeed(client.args(["top", "pods", "-l", "app=busy", "--containers"]));
        let rows = rows(&text);
        assert!(text.starts_with("POD") && rows.len() >= 2, "{text}");
        let spin = rows.iter().find(|row| row[1] == "spin").unwrap();
        let rest = rows.iter().find(|row| row[1] == "rest").unwrap();
        let (spin_cpu, rest_cpu) = (milli(&spin[2]), milli(&rest[2]));
        // The first moments of a container that sleeps from then on are not nothing.
        assert!((50..400).contains(&spin_cpu) && rest_cpu * 4 < spin_cpu, "{text}");
        assert!(spin[3].ends_with("Mi"), "{text}");
    }
}

#[test]
fn load_is_shown_and_followed() {
    let cluster = Cluster::up();
    import_busybox(&cluster);
    let node = cluster.kubectl(&["top", "nodes"]);
    let words = rows(&node);
    assert!(words.len() == 1 && words[0][2].ends_with('%') && words[0][3].ends_with("Mi"), "{node}");
    cluster.feed(&["apply"], BUSY);
    cluster.kubectl(&["rollout", "status", "deploy/busy", "--timeout=60s"]);
    cluster.until("the load is measured", |cluster| {
        let shown = cluster.try_kubectl(&["top", "pods", "-l", "app=busy"]);
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        shown.status.success() && rows(&text).iter().any(|row| milli(&row[1]) >= 50)
    });
    let mut own = Command::new(binary());
    own.arg("kubectl").env("KUBECONFIG", cluster.kubeconfig());
    top_pods(&cluster, &mut [cluster.command("1.36", "kubectl"), cluster.command("1.37", "kubectl"), own]);
    let everywhere = cluster.kubectl(&["top", "pods", "-A", "--sort-by=cpu"]);
    assert!(everywhere.contains("default") && everywhere.starts_with("NAMESPACE"), "{everywhere}");
    cluster.until("the autoscaler follows the load", |cluster| {
        cluster.json(&["get", "deploy", "busy"])["spec"]["replicas"] == 2
    });
    let autoscaler = cluster.json(&["get", "hpa", "busy"]);
    let used = &autoscaler["status"]["currentMetrics"][0]["resource"]["current"];
    assert!(used["averageUtilization"].as_i64().is_some_and(|used| used > 50), "{autoscaler}");
    only_who_may_view(&cluster);
}

/// Who may view a namespace may see what its pods use.
fn only_who_may_view(cluster: &Cluster) {
    cluster.kubectl(&["create", "serviceaccount", "looker"]);
    let asks = |verb: &[&str]| {
        let user = "--as=system:serviceaccount:default:looker";
        let output = cluster.try_kubectl(&[&["auth", "can-i"], verb, &["-n", "default", user]].concat());
        output.status.success()
    };
    assert!(!asks(&["list", "pods.metrics.k8s.io"]));
    let account = "--serviceaccount=default:looker";
    cluster.kubectl(&["create", "rolebinding", "looker", "--clusterrole=view", account]);
    cluster.until("the role is in force", |_| asks(&["list", "pods.metrics.k8s.io"]));
    let service: Value = cluster.json(&["get", "apiservice", "v1beta1.metrics.k8s.io"]);
    assert_eq!(service["status"]["conditions"][0]["status"], "True");
}

#[test]
fn each_node_is_measured() {
    let cluster = Cluster::start("up", &["--nodes", "2"], "");
    cluster.until("two nodes are ready", |cluster| {
        cluster.kubectl(&["get", "nodes", "--no-headers"]).matches(" Ready").count() == 2
    });
    cluster.until("both are measured", |cluster| {
        let shown = cluster.try_kubectl(&["top", "nodes", "--no-headers"]);
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        shown.status.success() && text.lines().count() == 2 && !text.contains("<unknown>")
    });
}
