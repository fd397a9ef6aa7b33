//! Services against the kernel, in network namespaces of the test's own. Needs root; skips without.

mod api;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use client::Caches;
use containers::{PodIdentity, SandboxId, SandboxNetwork};
use env::Shutdown;
use linux::net::namespace;
use network::PodNetwork;
use proxy::{Config, Proxy};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use api::Api;

/// A node with its pod network and proxy, in a network namespace of its own.
struct Node {
    api: Api,
    network: PodNetwork,
    directory: PathBuf,
    shutdown: Shutdown,
    proxy: tokio::task::JoinHandle<()>,
}

fn on_node(work: impl AsyncFnOnce(&Node) + Send) {
    if !std::fs::read_to_string("/proc/self/status").unwrap().contains("Uid:\t0\t") {
        eprintln!("skipped: making network namespaces needs root");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    namespace::within_new(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let node = Node::start(path).await;
            work(&node).await;
            node.stop().await;
        });
    })
    .unwrap();
    for entry in directory.path().read_dir().unwrap() {
        namespace::remove(&entry.unwrap().path()).unwrap();
    }
}

fn config() -> Config {
    Config {
        table: "kobune-services".into(),
        node: "here".into(),
        cluster_cidrs: vec!["10.42.0.0/16".parse().unwrap(), "fd00:42::/48".parse().unwrap()],
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap(), "fd00:96::/112".parse().unwrap()],
    }
}

impl Node {
    async fn start(directory: PathBuf) -> Self {
        let network = PodNetwork::build(network::Config {
            pod_cidrs: vec!["10.42.0.0/24".parse().unwrap(), "fd00:42::/64".parse().unwrap()],
            cluster_cidrs: config().cluster_cidrs,
            service_cidrs: config().service_cidrs,
            ..network::Config::default()
        })
        .unwrap();
        network.prepare().await.unwrap();
        raise_loopback();
        let (api, shutdown) = (Api::default(), Shutdown::new());
        let caches = Caches::new(api.client(), shutdown.clone());
        let proxy = Proxy::build(config(), &caches).unwrap();
        let (ready, is_ready) = oneshot::channel();
        let stop = shutdown.clone();
        let proxy = tokio::spawn(async move { proxy.run(ready, stop).await.unwrap() });
        is_ready.await.unwrap();
        Self { api, network, directory, shutdown, proxy }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.proxy.await.unwrap();
        proxy::teardown(&config().table).unwrap();
        self.network.teardown().await.unwrap();
    }

    /// A pod with that number; its addresses end in it plus one.
    async fn pod(&self, number: u8) -> PathBuf {
        let netns = self.directory.join(format!("pod{number}"));
        namespace::create(&netns).unwrap();
        let id = SandboxId(format!("{number:02x}").repeat(32));
        let addresses = self.network.attach(&id, &PodIdentity::default(), &netns).await.unwrap();
        let addresses: Vec<Value> =
            addresses.iter().map(|address| json!({"ip": address.to_string()})).collect();
        self.api.put("pods", json!({"metadata": {"name": format!("pod{number}"), "namespace": "d"},
            "spec": {"nodeName": "here", "containers": []}, "status": {"phase": "Running", "podIPs": addresses}}));
        netns
    }

    fn service(&self, spec: Value) {
        self.api.put("services", json!({"metadata": {"name": "web", "namespace": "d"}, "spec": spec}));
    }

    fn endpoints(&self, ipv4: bool, addresses: &[&str]) {
        let endpoints: Vec<Value> =
            addresses.iter().map(|a| json!({"addresses": [a], "nodeName": "here"})).collect();
        let family = if ipv4 { "IPv4" } else { "IPv6" };
        self.api.put("endpointslices", json!({"metadata": {"name": format!("web-{family}"), "namespace": "d",
            "labels": {"kubernetes.io/service-name": "web"}}, "addressType": family, "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "echo", "port": 7, "protocol": "UDP"}]}));
    }

    /// Waits until the kernel has caught up: until `expected` is what `ask` sees.
    async fn eventually(&self, expected: &str, ask: impl Fn() -> String) {
        let mut seen = String::new();
        for _ in 0..200 {
            seen = ask();
            if seen == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("expected {expected:?}, saw {seen:?}");
    }
}

fn raise_loopback() {
    let mut socket = linux::net::Socket::open(linux::net::Protocol::Route).unwrap();
    let index = socket.link("lo").unwrap().unwrap().index;
    socket.set_up(index).unwrap();
}

fn inside<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> T {
    namespace::within(std::fs::File::open(netns).unwrap(), work).unwrap()
}

/// Answers every connection with the pod's name and the client's address.
fn serve_tcp(netns: &Path, name: &'static str) {
    let listeners = inside(netns, || ["0.0.0.0:8080", "[::]:8080"].map(bind_v6only));
    for listener in listeners {
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let from = stream.peer_addr().unwrap().ip();
                write!(stream, "{name} {from}").unwrap();
            }
        });
    }
}

fn bind_v6only(at: &str) -> TcpListener {
    let address: SocketAddr = at.parse().unwrap();
    let domain =
        if address.is_ipv4() { rustix::net::AddressFamily::INET } else { rustix::net::AddressFamily::INET6 };
    let socket = rustix::net::socket(domain, rustix::net::SocketType::STREAM, None).unwrap();
    if address.is_ipv6() {
        rustix::net::sockopt::set_ipv6_v6only(&socket, true).unwrap();
    }
    rustix::net::bind(&socket, &address).unwrap();
    rustix::net::listen(&socket, 16).unwrap();
    socket.into()
}

fn serve_udp(netns: &Path, name: &'static str) {
    let socket = inside(netns, || UdpSocket::bind("0.0.0.0:7").unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(name.as_bytes(), from).unwrap();
        }
    });
}

fn fetch(to: &str) -> String {
    let attempt = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&to.parse().unwrap(), Duration::from_millis(300))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    attempt().unwrap_or_else(|error| format!("{:?}", error.kind()))
}

fn http() -> Value {
    json!({"type": "NodePort", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00:96::7"],
        "ports": [{"name": "http", "port": 80, "nodePort": 30080}]})
}

#[test]
fn cluster_addresses_and_node_ports_reach_pods_from_everywhere() {
    on_node(async |node| {
        let (client, server) = (node.pod(1).await, node.pod(2).await);
        serve_tcp(&server, "b");
        node.service(http());
        node.endpoints(true, &["10.42.0.3"]);
        node.endpoints(false, &["fd00:42::3"]);
        node.eventually("b 10.42.0.2", || inside(&client, || fetch("10.96.0.7:80"))).await;
        node.eventually("b fd00:42::2", || inside(&client, || fetch("[fd00:96::7]:80"))).await;
        assert_eq!(inside(&client, || fetch("10.42.0.1:30080")), "b 10.42.0.2", "a pod keeps its address");
        assert_eq!(fetch("10.96.0.7:80"), "b 10.42.0.1");
        assert_eq!(fetch("10.42.0.1:30080"), "b 10.42.0.1");
        assert_eq!(
            fetch("127.0.0.1:30080"),
            "b 10.42.0.1",
            "a node port answers on the loopback address, too"
        );
        assert_eq!(inside(&server, || fetch("10.96.0.7:80")), "b 10.42.0.1", "a pod reaches itself");
        assert_eq!(fetch("10.96.0.99:80"), "ConnectionRefused", "an address that no Service has");
        node.endpoints(true, &[]);
        node.eventually("ConnectionRefused", || inside(&client, || fetch("10.96.0.7:80"))).await;
        assert_eq!(fetch("10.42.0.1:30080"), "ConnectionRefused");
        node.api.remove("services", "web");
        node.eventually("ConnectionRefused", || fetch("[fd00:96::7]:80")).await;
    });
}

#[test]
fn connections_are_spread_unless_clients_stick() {
    on_node(async |node| {
        let (a, b) = (node.pod(1).await, node.pod(2).await);
        serve_tcp(&a, "a");
        serve_tcp(&b, "b");
        node.service(http());
        node.endpoints(true, &["10.42.0.2", "10.42.0.3"]);
        node.eventually("a 10.42.0.1", || fetch("10.96.0.7:80")).await;
        let ask = || fetch("10.96.0.7:80").chars().next().unwrap();
        let answers: String = (0..60).map(|_| ask()).collect();
        let count = answers.matches('a').count();
        assert!((10..50).contains(&count), "{answers}");

        let mut sticky = http();
        sticky["sessionAffinity"] = "ClientIP".into();
        node.service(sticky);
        node.eventually("one", || {
            let answers: String = (0..12).map(|_| ask()).collect();
            if ["a".repeat(12), "b".repeat(12)].contains(&answers) { "one".into() } else { answers }
        })
        .await;
        let other = if ask() == 'a' { "10.42.0.3" } else { "10.42.0.2" };
        node.endpoints(true, &[other]);
        let expected = if other == "10.42.0.3" { "b 10.42.0.1" } else { "a 10.42.0.1" };
        node.eventually(expected, || fetch("10.96.0.7:80")).await;
    });
}

#[test]
fn udp_clients_follow_when_an_endpoint_goes() {
    on_node(async |node| {
        let (a, b) = (node.pod(1).await, node.pod(2).await);
        serve_udp(&a, "a");
        serve_udp(&b, "b");
        node.service(
            json!({"clusterIP": "10.96.0.7", "ports": [{"name": "echo", "port": 7, "protocol": "UDP"}]}),
        );
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let ask = || {
            let mut buffer = [0; 16];
            let sent = socket.send_to(b"?", "10.96.0.7:7").and_then(|_| socket.recv(&mut buffer));
            sent.map_or_else(
                |error| format!("{:?}", error.kind()),
                |n| String::from_utf8_lossy(&buffer[..n]).into_owned(),
            )
        };
        node.endpoints(true, &["10.42.0.2"]);
        node.eventually("a", ask).await;
        node.endpoints(true, &["10.42.0.3"]);
        node.eventually("b", ask).await;
    });
}

#[test]
fn host_ports_and_outside_clients() {
    on_node(async |node| {
        let (server, outside) = (node.pod(1).await, node.directory.join("outside"));
        serve_tcp(&server, "a");
        // A neighbour of the node that is not in the cluster.
        namespace::create(&outside).unwrap();
        let neighbour = PodNetwork::build(network::Config {
            bridge: "lan0".into(),
            table: "lan".into(),
            pod_cidrs: vec!["192.0.2.0/24".parse().unwrap()],
            cluster_cidrs: vec!["192.0.2.0/24".parse().unwrap()],
            ..network::Config::default()
        })
        .unwrap();
        neighbour.attach(&SandboxId("ff".repeat(32)), &PodIdentity::default(), &outside).await.unwrap();
        // The neighbour comes with its own address.
        let mut netfilter = linux::net::Socket::open(linux::net::Protocol::Netfilter).unwrap();
        linux::nft::delete_table(&mut netfilter, linux::nft::Family::Inet, "lan").unwrap();
        node.api.put(
            "pods",
            json!({"metadata": {"name": "p", "namespace": "d"}, "spec": {"nodeName": "here", "containers": [
            {"name": "c", "ports": [{"containerPort": 8080, "hostPort": 8888}]}]},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.42.0.2"}]}}),
        );
        node.eventually("a 192.0.2.2", || inside(&outside, || fetch("192.0.2.1:8888"))).await;
        node.service(http());
        node.endpoints(true, &["10.42.0.2"]);
        node.eventually("a 10.42.0.1", || inside(&outside, || fetch("192.0.2.1:30080"))).await;
        let mut local = http();
        local["externalTrafficPolicy"] = "Local".into();
        node.service(local);
        node.eventually("a 192.0.2.2", || inside(&outside, || fetch("192.0.2.1:30080"))).await;
        for (ranges, expected) in [("192.0.2.0/24", "a 10.42.0.1"), ("198.51.100.0/24", "TimedOut")] {
            let mut balanced = http();
            balanced["type"] = "LoadBalancer".into();
            balanced["loadBalancerSourceRanges"] = json!([ranges]);
            node.api.put(
                "services",
                json!({"metadata": {"name": "web", "namespace": "d"}, "spec": balanced,
                "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}}}),
            );
            node.eventually(expected, || inside(&outside, || fetch("203.0.113.7:80"))).await;
        }
        node.api.remove("pods", "p");
        node.eventually("ConnectionRefused", || inside(&outside, || fetch("192.0.2.1:8888"))).await;
        neighbour.teardown().await.unwrap();
    });
}

#[test]
fn an_endpoint_may_be_the_machine_itself() {
    on_node(async |node| {
        let client = node.pod(1).await;
        let listener = TcpListener::bind("10.42.0.1:8080").unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let from = stream.peer_addr().unwrap().ip();
                write!(stream, "host {from}").unwrap();
            }
        });
        node.service(http());
        node.endpoints(true, &["10.42.0.1"]);
        node.eventually("host 10.42.0.2", || inside(&client, || fetch("10.96.0.7:80"))).await;
        assert_eq!(fetch("10.96.0.7:80"), "host 10.42.0.1");
    });
}

/// Prints how long ten thousand Services take; nothing is asserted about time.
#[test]
fn ten_thousand_services() {
    on_node(async |node| {
        for number in 0..10_000u32 {
            let name = format!("s{number}");
            let address = std::net::Ipv4Addr::from(u32::from(std::net::Ipv4Addr::new(10, 96, 1, 0)) + number);
            node.api.put("endpointslices", json!({"metadata": {"name": name, "namespace": "d",
                "labels": {"kubernetes.io/service-name": name}}, "addressType": "IPv4",
                "endpoints": [{"addresses": ["10.42.0.2"]}, {"addresses": ["10.42.0.3"]}], "ports": [{"name": "", "port": 8080}]}));
            node.api.put(
                "services",
                json!({"metadata": {"name": name, "namespace": "d"},
                "spec": {"clusterIP": address.to_string(), "ports": [{"port": 80}]}}),
            );
        }
        let server = node.pod(1).await;
        serve_tcp(&server, "a");
        let before = std::time::Instant::now();
        node.service(http());
        node.endpoints(true, &["10.42.0.2"]);
        for _ in 0..3000 {
            if fetch("10.96.0.7:80").starts_with('a') {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(fetch("10.96.0.7:80"), "a 10.42.0.1");
        eprintln!("10,000 Services and one more after {:?}", before.elapsed());
    });
}
