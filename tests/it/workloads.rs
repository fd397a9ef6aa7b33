//! Deployments, apply, watches, deletion.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::cluster::Cluster;

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: kobune.local/web:latest
        imagePullPolicy: IfNotPresent
        readinessProbe: {httpGet: {path: /, port: 80}, periodSeconds: 1}
";

// conformance: [sig-apps] Deployment deployment should support rollover
// conformance: [sig-apps] Deployment RollingUpdateDeployment should delete old pods and create new ones
#[test]
fn a_deployment_rolls_out_and_back() {
    let cluster = Cluster::up();
    cluster.feed(&["apply"], DEPLOYMENT);
    cluster.kubectl(&["rollout", "status", "deploy/web", "--timeout=60s"]);
    cluster.kubectl(&["set", "env", "deploy/web", "COLOUR=blue"]);
    cluster.kubectl(&["rollout", "status", "deploy/web", "--timeout=60s"]);
    let environment = "jsonpath={.items[*].spec.containers[0].env[0].value}";
    cluster.until("only new pods are left", |cluster| {
        cluster.kubectl(&["get", "pods", "-l", "app=web", "-o", environment]) == "blue blue blue"
    });
    cluster.kubectl(&["rollout", "undo", "deploy/web"]);
    cluster.kubectl(&["rollout", "status", "deploy/web", "--timeout=60s"]);
    let history = cluster.kubectl(&["rollout", "history", "deploy/web"]);
    assert!(history.contains("\n2 ") && history.contains("\n3 "), "{history}");
    let described = cluster.kubectl(&["describe", "deploy", "web"]);
    assert!(
        described.contains("NewReplicaSetAvailable") && described.contains("ScalingReplicaSet"),
        "{described}"
    );
}

#[test]
fn a_selector_that_does_not_match_its_template_is_refused() {
    let cluster = Cluster::up();
    let path = cluster.dir.path().join("bad.yaml");
    std::fs::write(&path, DEPLOYMENT.replace("matchLabels: {app: web}", "matchLabels: {app: other}"))
        .unwrap();
    let error = cluster.kubectl_fails(&["apply", "-f", path.to_str().unwrap()]);
    assert!(error.contains("`selector` does not match template `labels`"), "{error}");
}

#[test]
fn apply_twice_changes_nothing_and_diff_shows_what_would() {
    let cluster = Cluster::up();
    for flags in [&["apply"][..], &["apply", "--server-side", "--force-conflicts"]] {
        cluster.feed(flags, DEPLOYMENT);
        let before = cluster.json(&["get", "deploy", "web"])["metadata"]["generation"].clone();
        cluster.feed(flags, DEPLOYMENT);
        assert_eq!(cluster.json(&["get", "deploy", "web"])["metadata"]["generation"], before);
    }
    let path = cluster.dir.path().join("changed.yaml");
    std::fs::write(&path, DEPLOYMENT.replace("replicas: 3", "replicas: 5")).unwrap();
    let diff = cluster.try_kubectl(&["diff", "-f", path.to_str().unwrap()]);
    assert_eq!(diff.status.code(), Some(1), "{}", String::from_utf8_lossy(&diff.stderr));
    let text = String::from_utf8_lossy(&diff.stdout).into_owned();
    assert!(text.contains("-  replicas: 3") && text.contains("+  replicas: 5"), "{text}");
    let explained = cluster.kubectl(&["explain", "deployment.spec.strategy"]);
    assert!(explained.contains("rollingUpdate"), "{explained}");
}

#[test]
fn a_watch_sees_pods_come() {
    let cluster = Cluster::up();
    let mut watch = cluster.command("1.36", "kubectl");
    let mut watch = watch.args(["get", "pods", "-w", "--no-headers"]).stdout(Stdio::piped()).spawn().unwrap();
    cluster.feed(&["create"], crate::walk::CONTROLLER);
    let lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let running = lines.map_while(Result::ok).find(|line| line.contains("Running"));
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert!(running.is_some());
}

// conformance: [sig-api-machinery] Garbage collector should delete RS created by deployment when not orphaning
// conformance: [sig-api-machinery] Garbage collector should orphan RS created by deployment when deleteOptions.PropagationPolicy is Orphan
#[test]
fn dependents_follow_the_propagation_policy() {
    let cluster = Cluster::up();
    for (policy, left) in [("background", false), ("foreground", false), ("orphan", true)] {
        cluster.feed(&["apply"], DEPLOYMENT);
        cluster.kubectl(&["rollout", "status", "deploy/web", "--timeout=60s"]);
        cluster.kubectl(&["delete", "deploy", "web", &format!("--cascade={policy}")]);
        let sets = |cluster: &Cluster| cluster.kubectl(&["get", "rs", "-o", "name"]);
        if left {
            let kept = cluster.json(&["get", "rs", "-l", "app=web"]);
            assert_eq!(kept["items"].as_array().map(Vec::len), Some(1));
            cluster.until("the orphan has no owner", |cluster| {
                cluster.json(&["get", "rs", "-l", "app=web"])["items"][0]["metadata"]["ownerReferences"]
                    .is_null()
            });
        } else {
            cluster.until("the replica sets are gone", |cluster| sets(cluster).is_empty());
            cluster.until("the pods are gone", |cluster| {
                cluster.kubectl(&["get", "pods", "-o", "name"]).is_empty()
            });
        }
    }
}

// conformance: [sig-api-machinery] Namespaces [Serial] should ensure that all pods are removed when a namespace is deleted
// conformance: [sig-api-machinery] Namespaces [Serial] should ensure that all services are removed when a namespace is deleted
#[test]
fn a_namespace_takes_everything_along() {
    let cluster = Cluster::up();
    cluster.kubectl(&["create", "namespace", "team"]);
    cluster.feed(&["apply", "-n", "team"], DEPLOYMENT);
    cluster.kubectl(&["-n", "team", "rollout", "status", "deploy/web", "--timeout=60s"]);
    cluster.kubectl(&["-n", "team", "expose", "deploy", "web", "--port=80"]);
    cluster.kubectl(&["delete", "namespace", "team", "--timeout=60s"]);
    let error = cluster.kubectl_fails(&["get", "namespace", "team"]);
    assert!(error.contains("NotFound"), "{error}");
    assert_eq!(cluster.kubectl(&["get", "all", "-n", "team", "-o", "name"]), "");
}
