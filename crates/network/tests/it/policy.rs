//! Network policies with packets: pods of one node, a real API server.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use client::{Caches, Client, DeleteOptions, Patch};
use containers::{PodIdentity, SandboxId, SandboxNetwork};
use env::Shutdown;
use k8s_openapi::api::core::v1::{Namespace, Pod as ApiPod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use linux::net::{Protocol, Socket, namespace};
use linux::nft::{self, Family};
use network::{Config, Gate, PodNetwork, Policies};
use serde_json::{Value, json};
use testkit::TestServer;

use crate::{inside, isolated};

struct Node {
    client: Client,
    network: PodNetwork,
    directory: PathBuf,
}

struct Pod {
    netns: PathBuf,
    address: IpAddr,
}

fn config() -> Config {
    Config {
        bridge: "kbtest0".into(),
        table: "kobune-test".into(),
        pod_cidrs: vec!["10.201.0.0/24".parse().unwrap()],
        cluster_cidrs: vec!["10.201.0.0/16".parse().unwrap()],
        ..Config::default()
    }
}

impl Node {
    /// A pod that is attached, and answers on two ports with its name.
    async fn pod(&self, number: u8, name: &'static str) -> Pod {
        let pods = self.client.namespaced::<ApiPod>("d");
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"nodeName": "here", "containers": [{"name": "c", "image": "i",
                "ports": [{"name": "second", "containerPort": 9090}]}]}});
        let uid = pods.create(&pod).await.unwrap().meta().uid.clone();
        let netns = self.directory.join(name);
        namespace::create(&netns).unwrap();
        let identity = PodIdentity { namespace: "d".into(), name: name.into(), uid };
        let id = SandboxId(format!("{number:02x}").repeat(32));
        let address = self.network.attach(&id, &identity, &netns).await.unwrap()[0];
        for port in [8080, 9090] {
            serve(&netns, SocketAddr::new(address, port), name);
        }
        let status = json!({"status": {"podIP": address, "podIPs": [{"ip": address}], "phase": "Running"}});
        pods.patch_status(name, Patch::Merge(status)).await.unwrap();
        Pod { netns, address }
    }

    async fn policy(&self, name: &str, spec: Value) {
        let body = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name}, "spec": spec});
        self.client.namespaced::<NetworkPolicy>("d").create(&body).await.unwrap();
    }

    async fn remove_policy(&self, name: &str) {
        let policies = self.client.namespaced::<NetworkPolicy>("d");
        policies.delete(name, &DeleteOptions::default()).await.unwrap();
    }
}

fn serve(netns: &Path, at: SocketAddr, name: &'static str) {
    let listener = inside(netns, || TcpListener::bind(at).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            stream.unwrap().write_all(name.as_bytes()).unwrap();
        }
    });
}

fn fetch(to: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_millis(300)).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn passes(from: &Pod, to: &Pod, port: u16) -> bool {
    let to = SocketAddr::new(to.address, port);
    inside(&from.netns, || fetch(to)).is_some()
}

/// Waits until the kernel has caught up.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..100 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not in time: {what}");
}

fn on_node(work: impl AsyncFnOnce(Node) + Send) {
    isolated(async |directory| {
        let server = TestServer::start().await;
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "d"}});
        server.client().cluster::<Namespace>().create(&namespace).await.unwrap();
        let network = PodNetwork::build(config()).unwrap();
        let (stop, table) = (Shutdown::new(), network.config().policy_table());
        let caches = Caches::new(server.client(), stop.clone());
        let (policies, gate): (Policies, Gate) = Policies::build(&table, "here", &caches);
        network.guard(gate);
        let running = tokio::spawn(policies.run(stop.clone()));
        work(Node { client: server.client(), network: network.clone(), directory }).await;
        stop.cancel();
        running.await.unwrap().unwrap();
        network.teardown().await.unwrap();
    });
}

fn table_exists() -> bool {
    let mut socket = Socket::open(Protocol::Netfilter).unwrap();
    nft::table_exists(&mut socket, Family::Inet, "kobune-test-policy").unwrap()
}

#[test]
fn a_denied_pod_is_out_of_reach_from_its_first_packet() {
    on_node(async |node| {
        let web = node.pod(1, "web").await;
        assert!(!table_exists(), "without policies there is nothing");
        node.policy("deny", json!({"podSelector": {"matchLabels": {"app": "db"}}})).await;
        // Whatever the order in which the policy and the pod become known here: once attached, it is out of reach.
        let db = node.pod(2, "db").await;
        for _ in 0..3 {
            assert!(!passes(&web, &db, 8080));
        }
        until("the other direction is not denied", || passes(&db, &web, 8080)).await;
        until("a pod reaches itself", || passes(&db, &db, 8080)).await;
        until("the machine probes its pods", || fetch(SocketAddr::new(db.address, 8080)).is_some()).await;
        node.remove_policy("deny").await;
        until("the pod is in reach", || passes(&web, &db, 8080)).await;
        until("no trace is left", || !table_exists()).await;
    });
}

#[test]
fn rules_allow_by_pod_port_name_and_block() {
    on_node(async |node| {
        let (web, other, db) =
            (node.pod(1, "web").await, node.pod(2, "other").await, node.pod(3, "db").await);
        let of = |app: &str| json!({"matchLabels": {"app": app}});
        let from_web = json!([{"podSelector": of("web")}]);
        node.policy(
            "p",
            json!({"podSelector": of("db"), "ingress": [{"from": from_web, "ports": [{"port": 8080}]}]}),
        )
        .await;
        let holds = || passes(&web, &db, 8080) && !passes(&web, &db, 9090) && !passes(&other, &db, 8080);
        until("the policy holds", holds).await;

        node.policy("named", json!({"podSelector": of("db"), "ingress": [{"ports": [{"port": "second"}]}]}))
            .await;
        let add_up = || passes(&other, &db, 9090) && passes(&web, &db, 8080) && !passes(&other, &db, 8080);
        until("policies add up", add_up).await;

        // The label decides, also when it comes later.
        let labels = json!({"metadata": {"labels": {"app": "web"}}});
        node.client.namespaced::<ApiPod>("d").patch("other", Patch::Merge(labels)).await.unwrap();
        until("a new label counts", || passes(&other, &db, 8080)).await;

        let block = json!({"cidr": "10.201.0.0/24", "except": [format!("{}/32", db.address)]});
        node.policy(
            "out",
            json!({"podSelector": of("web"), "policyTypes": ["Egress"],
            "egress": [{"to": [{"ipBlock": block}], "ports": [{"port": 8000, "endPort": 8100}]}]}),
        )
        .await;
        let kept = || passes(&web, &other, 8080) && !passes(&web, &db, 8080) && !passes(&web, &other, 9090);
        until("egress is kept", kept).await;
        until("answers pass", || passes(&db, &web, 8080)).await;
    });
}
