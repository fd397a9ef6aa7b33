//! Several nodes on one machine: `kobune up --nodes`.

use std::collections::BTreeSet;
use std::process::Command;

use crate::cluster::{Cluster, fetch};

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 6
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
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80}]
";

/// The nodes that pods of a selector are on.
fn nodes(cluster: &Cluster, selector: &str) -> BTreeSet<String> {
    let list = cluster.json(&["get", "pods", "-l", selector]);
    let name = |pod: &serde_json::Value| pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
    list["items"].as_array().unwrap().iter().map(name).collect()
}

#[test]
fn three_nodes_join_and_pods_answer_across_them() {
    let cluster = Cluster::start("up", &["--nodes", "3"], "");
    cluster.until("three nodes are ready", |cluster| {
        cluster.kubectl(&["get", "nodes", "--no-headers"]).matches(" Ready").count() == 3
    });
    cluster.feed(&["apply"], WEB);
    let pods = cluster.wait_for_pods("app=web", 6);
    assert_eq!(nodes(&cluster, "app=web"), ["node-1", "node-2", "node-3"].map(str::to_owned).into());
    let all: BTreeSet<String> = pods.iter().map(|(name, _)| name.clone()).collect();
    for (name, address) in &pods {
        assert_eq!(fetch(&format!("{address}:80")).unwrap(), *name);
    }
    // By the Service, from this machine, which is none of the nodes.
    let service = cluster.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"]);
    let answers: BTreeSet<String> =
        (0..40).map(|_| fetch(&format!("{service}:80")).unwrap_or_else(|e| e.to_string())).collect();
    assert!(answers.is_subset(&all) && answers.len() > 1, "{answers:?}");
    // Logs come from the kubelet of another machine, which asks the API server who may see them.
    for (name, _) in &pods {
        cluster.kubectl(&["logs", name]);
    }
    let requests = cluster.json(&["get", "certificatesigningrequests"]);
    let issued = |item: &&serde_json::Value| !item["status"]["certificate"].is_null();
    assert_eq!(requests["items"].as_array().unwrap().iter().filter(issued).count(), 4);
}

/// What is mounted below the directories of the nodes, as the namespace shows it that `nsenter` enters by `entry`.
fn mounts(cluster: &Cluster, entry: &[String]) -> Vec<String> {
    let output = Command::new("nsenter").args(entry).args(["cat", "/proc/self/mounts"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let below = format!("{}/nodes/node-", cluster.data().display());
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    lines.lines().filter(|line| line.contains(&below)).map(str::to_owned).collect()
}

#[test]
fn a_node_mounts_for_itself_and_its_pods_outlive_a_kill() {
    let mut cluster = Cluster::start("up", &["--nodes", "2"], "");
    cluster.feed(&["apply"], WEB);
    let pods = cluster.wait_for_pods("app=web", 6);
    let inside = [format!("--mount={}/nodes/run/node-2.mounts", cluster.data().display())];
    let shown = mounts(&cluster, &inside);
    assert!(shown.iter().any(|line| line.contains("/nodes/node-2/")), "{shown:#?}");
    assert!(!shown.iter().any(|line| line.contains("/nodes/node-1/")), "{shown:#?}");
    assert_eq!(mounts(&cluster, &[]), [""; 0]);
    cluster.kill();
    cluster.launch();
    cluster.until("two nodes are ready", |cluster| {
        cluster.kubectl(&["get", "nodes", "--no-headers"]).matches(" Ready").count() == 2
    });
    assert_eq!(cluster.wait_for_pods("app=web", 6), pods);
    for (name, address) in &pods {
        assert_eq!(fetch(&format!("{address}:80")).unwrap(), *name);
    }
    let restarts = "jsonpath={.items[*].status.containerStatuses[*].restartCount}";
    assert_eq!(cluster.kubectl(&["get", "pods", "-l", "app=web", "-o", restarts]), "0 0 0 0 0 0");
    assert_eq!(cluster.interrupt(), Some(0), "{}", cluster.log());
    let own = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!own.contains(&*cluster.data().to_string_lossy()), "{own}");
}

#[test]
fn a_wrong_token_is_refused_with_the_remedy() {
    let cluster = Cluster::start("server", &[], "");
    let url = format!("https://127.0.0.1:{}", cluster.port);
    let token = cluster.kobune(&["token", "create"]);
    let (bootstrap, hash) = token.trim().rsplit_once('.').unwrap();
    let other = cluster.dir.path().join("other");
    let agent = |token: &str| {
        let mut command = std::process::Command::new(crate::cluster::binary());
        command.args(["agent", "--server", &url, "--token", token, "--node-name", "other"]);
        let output = command.arg("--data-dir").arg(&other).output().unwrap();
        assert!(output.status.code().is_some_and(|code| code > 0), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(agent("nonsense").contains("kobune token create"));
    let strange = agent(&format!("{bootstrap}.{}", "0".repeat(64)));
    assert!(strange.contains("is not the cluster that the token is for"), "{strange}");
    let used_up = agent(&format!("aaaaaa.0123456789abcdef.{hash}"));
    assert!(used_up.contains("Unauthorized") && used_up.contains("kobune token create"), "{used_up}");
    assert!(!other.join("agent/client.crt").exists());
}
