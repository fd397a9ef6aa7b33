//! The walk of the article: nodes, nginx × 2, × 20, a page from every pod.

use crate::cluster::{Cluster, fetch};

pub const CONTROLLER: &str = "
apiVersion: v1
kind: ReplicationController
metadata: {name: my-nginx}
spec:
  replicas: 2
  selector: {run: my-nginx}
  template:
    metadata: {labels: {run: my-nginx}}
    spec:
      containers:
      - name: my-nginx
        image: kobune.local/web:latest
        imagePullPolicy: IfNotPresent
        ports: [{containerPort: 80}]
";

#[test]
fn two_replicas_become_twenty_and_each_answers() {
    let cluster = Cluster::up();
    for version in ["1.36", "1.37"] {
        let text = cluster.succeed(cluster.command(version, "kubectl").arg("version"));
        assert!(text.contains("Server Version: v1.36"), "{text}");
        let nodes = cluster.succeed(cluster.command(version, "kubectl").args(["get", "nodes"]));
        assert!(nodes.contains(" Ready "), "{nodes}");
    }
    assert!(cluster.feed(&["create"], CONTROLLER).contains("replicationcontroller/my-nginx created"));
    cluster.wait_for_pods("run=my-nginx", 2);
    assert!(cluster.kubectl(&["get", "rc", "my-nginx"]).contains("my-nginx   2         2         2"));
    cluster.kubectl(&["scale", "--replicas=20", "rc", "my-nginx"]);
    for (name, address) in cluster.wait_for_pods("run=my-nginx", 20) {
        assert_eq!(fetch(&format!("{address}:80")).unwrap(), name);
    }
}

#[test]
fn services_reach_pods_by_address_port_and_name() {
    let cluster = Cluster::up();
    cluster.feed(&["create"], CONTROLLER);
    let pods = cluster.wait_for_pods("run=my-nginx", 2);
    cluster.kubectl(&["expose", "rc", "my-nginx", "--port=80"]);
    cluster.kubectl(&["expose", "rc", "my-nginx", "--port=80", "--name=outside", "--type=NodePort"]);
    let field = |name: &str, path: &str| {
        cluster.kubectl(&["get", "svc", name, "-o", &format!("jsonpath={{{path}}}")])
    };
    let address = field("my-nginx", ".spec.clusterIP");
    let port = field("outside", ".spec.ports[0].nodePort");
    for target in [format!("{address}:80"), format!("127.0.0.1:{port}")] {
        let mut answer = String::new();
        cluster.until(&format!("{target} answers"), |_| {
            fetch(&target).map(|text| answer = text).is_ok() && !answer.is_empty()
        });
        assert!(pods.iter().any(|(name, _)| *name == answer), "{answer}");
    }
    crate::image::import_busybox(&cluster);
    cluster.kubectl(&[
        "run",
        "asker",
        "--image=test.local/busybox:1",
        "--image-pull-policy=Never",
        "--restart=Never",
        "--command",
        "--",
        "sleep",
        "3600",
    ]);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/asker", "--timeout=60s"]);
    let answer =
        cluster.kubectl(&["exec", "asker", "--", "wget", "-q", "-O", "-", "http://my-nginx.default"]);
    assert!(pods.iter().any(|(name, _)| *name == answer.trim()), "{answer}");
    let known = cluster.kubectl(&["exec", "asker", "--", "nslookup", "my-nginx.default.svc.cluster.local"]);
    assert!(known.contains(&address), "{known}");
}

#[test]
fn the_demonstration_shows_twenty_answers() {
    let cluster = Cluster::start("up", &["--demo"], "");
    cluster.until("the demonstration is through", |cluster| cluster.log().contains("20 pods answered"));
    assert_eq!(cluster.ready_pods("run=my-nginx").len(), 20);
}
