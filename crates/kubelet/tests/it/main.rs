//! The kubelet as a whole, on a runtime and an API that are maps.

mod api;
mod machine;
mod server;

use std::sync::Arc;

use api::Api;
use env::{Env, Shutdown};
use kubelet::{Config, Dependencies, Kubelet, ServerConfig};
use machine::Machine;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

struct Node {
    api: Arc<Api>,
    machine: Arc<Machine>,
    root: tempfile::TempDir,
    shutdown: Shutdown,
    task: JoinHandle<()>,
}

impl Node {
    async fn new() -> Self {
        Self::on(Api::new(), Machine::new(), tempfile::tempdir().unwrap()).await
    }

    async fn on(api: Arc<Api>, machine: Arc<Machine>, root: tempfile::TempDir) -> Self {
        Self::with(api, machine, root, None).await
    }

    async fn with(
        api: Arc<Api>,
        machine: Arc<Machine>,
        root: tempfile::TempDir,
        server: Option<ServerConfig>,
    ) -> Self {
        Self::configured(api, machine, root, server, |_| {}).await
    }

    async fn configured(
        api: Arc<Api>,
        machine: Arc<Machine>,
        root: tempfile::TempDir,
        server: Option<ServerConfig>,
        adjust: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config = Config::new("n1");
        config.addresses = vec!["192.0.2.1".parse().unwrap()];
        config.root = root.path().join("kubelet");
        config.log_root = root.path().join("logs");
        adjust(&mut config);
        let dependencies = Dependencies {
            env: Env::system(),
            client: api.client(),
            runtime: machine.clone(),
            images: machine.clone(),
            services: None,
            nodes: None,
        };
        let kubelet = Kubelet::build(config, dependencies, server).unwrap();
        let shutdown = Shutdown::new();
        let (ready, registered) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(kubelet.run(ready, shutdown.clone()));
        registered.await.unwrap();
        Self { api, machine, root, shutdown, task }
    }

    /// Stops the kubelet; what runs on its machine goes on.
    async fn stop(&mut self) {
        self.shutdown.cancel();
        (&mut self.task).await.unwrap();
    }

    fn pod(&self, name: &str, spec: Value) {
        let mut spec = spec;
        spec["nodeName"] = json!("n1");
        self.api.set(
            "pods",
            json!({"metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "generation": 1},
                "spec": spec}),
        );
    }

    async fn phase(&self, name: &str, phase: &str) -> Value {
        let wanted = |pod: Option<&Value>| pod.is_some_and(|pod| pod["status"]["phase"] == phase);
        self.api.until("pods", name, wanted).await.unwrap()
    }

    async fn ready(&self, name: &str) -> Value {
        let wanted = |pod: Option<&Value>| pod.is_some_and(|pod| condition(pod, "Ready") == "True");
        self.api.until("pods", name, wanted).await.unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The memory file system must go before the directory it is mounted in.
        let _not_mounted = linux::mount::unmount_below(self.root.path());
    }
}

fn condition(pod: &Value, type_: &str) -> String {
    let list = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = list.iter().find(|condition| condition["type"] == type_);
    found.and_then(|condition| condition["status"].as_str()).unwrap_or_default().to_owned()
}

fn simple() -> Value {
    json!({"containers": [{"name": "a", "image": "img"}]})
}

#[tokio::test]
async fn the_node_registers() {
    let node = Node::new().await;
    let object = node.api.find("nodes", "", "n1").unwrap();
    assert_eq!(object["metadata"]["labels"]["kubernetes.io/hostname"], "n1");
    assert_eq!(object["status"]["nodeInfo"]["kubeletVersion"], "v1.36.0+kobune");
    assert_eq!(object["status"]["nodeInfo"]["containerRuntimeVersion"], "kobune://0.1.0");
    assert_eq!(object["status"]["capacity"]["pods"], "110");
    assert_eq!(object["status"]["conditions"][3]["status"], "True");
    let lease = |lease: Option<&Value>| lease.is_some_and(|lease| lease["spec"]["holderIdentity"] == "n1");
    let api = node.api.clone();
    let wait = async {
        loop {
            if lease(api.find("leases", "kube-node-lease", "n1").as_ref()) {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), wait).await.unwrap();
}

#[tokio::test]
async fn a_pod_runs_and_goes() {
    let node = Node::new().await;
    let begun = std::time::Instant::now();
    node.pod("web", simple());
    let pod = node.ready("web").await;
    assert!(begun.elapsed() < std::time::Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(pod["status"]["podIP"], "127.0.0.1");
    assert_eq!(pod["status"]["qosClass"], "BestEffort");
    assert_eq!(pod["status"]["containerStatuses"][0]["imageID"], "img@sha256:1");
    assert_eq!(*node.machine.calls.lock(), ["sandbox web", "pull img", "create a", "start a"]);
    let container = node.machine.containers.lock().values().next().unwrap().clone();
    let targets: Vec<_> =
        container.config.mounts.iter().map(|mount| mount.container_path.display().to_string()).collect();
    assert_eq!(targets, ["/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/dev/termination-log"]);
    node.api.begin_delete("web", 3);
    node.api.until("pods", "web", |pod| pod.is_none()).await;
    assert!(node.machine.calls.lock().contains(&"stop a 3s".to_owned()));
    assert!(node.machine.containers.lock().is_empty() && node.machine.sandboxes.lock().is_empty());
    assert!(!node.root.path().join("kubelet/pods/uid-web").exists());
    assert!(!node.root.path().join("logs/default_web_uid-web").exists());
}

#[tokio::test]
async fn a_restarted_kubelet_touches_nothing() {
    let mut node = Node::new().await;
    node.pod("web", simple());
    let before = node.ready("web").await;
    node.stop().await;
    node.machine.calls.lock().clear();
    let again = Node::on(node.api.clone(), node.machine.clone(), tempfile::tempdir().unwrap()).await;
    // Something that happens later shows that the pod has been looked at.
    again.machine.end("a", 1, "last words");
    let restarted = |pod: Option<&Value>| {
        pod.is_some_and(|pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1)
    };
    let after = again.api.until("pods", "web", restarted).await.unwrap();
    assert_eq!(*again.machine.calls.lock(), ["create a", "start a"]);
    assert_eq!(before["status"]["startTime"], after["status"]["startTime"]);
    let last = &after["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!((last["exitCode"].as_i64(), last["message"].as_str()), (Some(1), Some("last words")));
}

#[tokio::test]
async fn a_pod_that_runs_to_its_end() {
    let node = Node::new().await;
    node.pod("job", json!({"containers": [{"name": "a", "image": "img"}], "restartPolicy": "Never"}));
    node.ready("job").await;
    node.machine.end("a", 0, "");
    let pod = node.phase("job", "Succeeded").await;
    let state = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(state["reason"], "Completed");
}

#[tokio::test]
async fn volumes_follow_their_sources() {
    let node = Node::new().await;
    node.pod(
        "web",
        json!({
        "containers": [{"name": "a", "image": "img", "volumeMounts": [{"name": "m", "mountPath": "/m"}]}],
        "volumes": [{"name": "m", "configMap": {"name": "map"}}]}),
    );
    let events = node.api.clone();
    let failed = async {
        loop {
            if events.all("events").iter().any(|event| event["reason"] == "FailedMount") {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), failed).await.unwrap();
    let map =
        |value: &str| json!({"metadata": {"name": "map", "namespace": "default"}, "data": {"k": value}});
    node.api.set("configmaps", map("1"));
    node.ready("web").await;
    let file = node.root.path().join("kubelet/memory/uid-web/m/k");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "1");
    node.api.set("configmaps", map("2"));
    let changed = async {
        while std::fs::read_to_string(&file).unwrap() != "2" {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), changed).await.unwrap();
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let node = Node::new().await;
    node.pod("bad", json!({"containers": [{"name": "a", "image": "img", "command": ["nope"]}]}));
    node.pod("noimage", json!({"containers": [{"name": "a", "image": "missing"}]}));
    let waits = |reason: &'static str| {
        move |pod: Option<&Value>| {
            pod.is_some_and(|pod| {
                pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == reason
            })
        }
    };
    node.api.until("pods", "bad", waits("CrashLoopBackOff")).await;
    let pod = node.api.until("pods", "noimage", waits("ErrImagePull")).await.unwrap();
    assert_eq!(pod["status"]["phase"], "Pending");
    node.api.until("pods", "noimage", waits("ImagePullBackOff")).await;
}

#[tokio::test]
async fn a_failing_liveness_probe_restarts() {
    let node = Node::new().await;
    let probe = json!({"exec": {"command": ["x"]}, "periodSeconds": 1, "failureThreshold": 1});
    node.pod("web", json!({"containers": [{"name": "a", "image": "img", "livenessProbe": probe}]}));
    node.ready("web").await;
    *node.machine.exec_code.lock() = 1;
    let restarted = |pod: Option<&Value>| {
        pod.is_some_and(|pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1)
    };
    node.api.until("pods", "web", restarted).await;
    assert!(node.api.all("events").iter().any(|event| event["reason"] == "Killing"));
}

#[tokio::test]
async fn pods_that_do_not_fit_are_turned_away() {
    let node = Node::new().await;
    let asks = json!({"requests": {"cpu": "100000"}});
    node.pod("big", json!({"containers": [{"name": "a", "image": "img", "resources": asks}]}));
    let pod = node.phase("big", "Failed").await;
    assert_eq!(pod["status"]["reason"], "OutOfcpu");
}

#[tokio::test]
async fn orphans_are_removed_at_start() {
    let mut node = Node::new().await;
    node.pod("web", simple());
    node.ready("web").await;
    let pod = node.api.find("pods", "default", "web").unwrap();
    assert_eq!(pod["metadata"]["uid"], "uid-web");
    node.stop().await;
    let fresh = Node::on(Api::new(), node.machine.clone(), tempfile::tempdir().unwrap()).await;
    let gone = async {
        while !fresh.machine.containers.lock().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), gone).await.unwrap();
}
