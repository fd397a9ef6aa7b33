//! Pods of several nodes: each node a network namespace, all on one bridge, with a real API server between them.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use client::{Caches, Client, DeleteOptions};
use containers::{PodIdentity, SandboxId, SandboxNetwork};
use env::Shutdown;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node as ApiNode;
use linux::net::{Address, AddressFlags, Bridge, Protocol, Socket, Veth, namespace};
use network::overlay::{Backend, Udp, Vxlan};
use network::{Config, Overlay, PodNetwork};
use serde_json::json;
use testkit::TestServer;
use tokio::sync::oneshot;

use crate::{fetch, inside, isolated, serve};

/// A node with one pod, working in its own namespace.
struct Node {
    netns: PathBuf,
    pod: PathBuf,
    addresses: Vec<IpAddr>,
    stop: Shutdown,
    thread: std::thread::JoinHandle<()>,
}

pub struct Lab {
    pub directory: PathBuf,
    pub server: TestServer,
    backend: Backend,
    six: bool,
}

fn parse<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().unwrap()
}

impl Lab {
    pub async fn new(directory: PathBuf, backend: Backend, six: bool) -> Self {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let lo = socket.link("lo").unwrap().unwrap();
        socket.set_up(lo.index).unwrap();
        socket.create_bridge(&Bridge { name: "lan", mac: [2, 0, 0, 0, 0, 1], mtu: 1500 }).unwrap();
        Self { directory, server: TestServer::start().await, backend, six }
    }

    fn addresses(&self, number: u8) -> Vec<IpNet> {
        let four = format!("192.0.2.{number}/24");
        let six = self.six.then(|| format!("fd00:2::{number}/64"));
        [Some(four), six].into_iter().flatten().map(|address| parse(&address)).collect()
    }

    fn ranges(&self, number: u8) -> Vec<String> {
        let four = format!("10.42.{number}.0/24");
        let six = self.six.then(|| format!("fd00:42:0:{number}::/64"));
        [Some(four), six].into_iter().flatten().collect()
    }

    fn config(&self, number: u8) -> Config {
        let mut cluster_cidrs = vec![parse("10.42.0.0/16")];
        cluster_cidrs.extend(self.six.then(|| parse::<IpNet>("fd00:42::/48")));
        Config {
            // They come with the Node.
            pod_cidrs: Vec::new(),
            cluster_cidrs,
            backend: self.backend.clone(),
            node_addresses: self.addresses(number).iter().map(IpNet::addr).collect(),
            subnet_file: Some(self.directory.join(format!("run{number}/subnet.env"))),
            ..Config::default()
        }
    }

    /// Plugs a namespace into the bridge.
    pub fn plug(&self, number: u8) -> PathBuf {
        let netns = self.directory.join(format!("node{number}"));
        namespace::create(&netns).unwrap();
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let master = socket.link("lan").unwrap().unwrap().index;
        let veth = Veth {
            name: &format!("port{number}"),
            mtu: 1500,
            master,
            peer_name: "eth0",
            peer_mac: [2, 0, 0, 0, 1, number],
            peer_namespace: std::fs::File::open(&netns).unwrap(),
        };
        socket.create_veth(&veth).unwrap();
        let addresses = self.addresses(number);
        inside(&netns, || {
            let mut socket = Socket::open(Protocol::Route).unwrap();
            for name in ["lo", "eth0"] {
                let link = socket.link(name).unwrap().unwrap().index;
                socket.set_up(link).unwrap();
            }
            let link = socket.link("eth0").unwrap().unwrap().index;
            for address in addresses {
                socket.add_address(&Address { link, address }, AddressFlags::default()).unwrap();
            }
        });
        netns
    }

    /// A node that joins: its Node object has a range, and its one pod is attached as soon as that is known.
    async fn join(&self, number: u8) -> Node {
        let netns = self.plug(number);
        let ranges = self.ranges(number);
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("n{number}")},
            "spec": {"podCIDR": ranges[0], "podCIDRs": ranges}});
        let nodes = self.server.client().cluster::<ApiNode>();
        nodes.create(&node).await.unwrap();
        let (config, client, stop) = (self.config(number), self.server.client(), Shutdown::new());
        let pod = self.directory.join(format!("pods{number}/pod"));
        let (attached, addresses) = oneshot::channel();
        let (at, path, until) = (netns.clone(), pod.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let file = std::fs::File::open(&at).unwrap();
            namespace::within(file, || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(run_node(number, config, client, path, attached, until));
            })
            .unwrap();
        });
        Node { netns, pod, addresses: addresses.await.unwrap(), stop, thread }
    }

    /// Waits until something is so; how long that took.
    pub async fn until(&self, what: &str, is_so: impl Fn() -> bool) -> Duration {
        let start = Instant::now();
        while !is_so() {
            assert!(start.elapsed() < Duration::from_secs(20), "not in time: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        start.elapsed()
    }
}

async fn run_node(
    number: u8,
    config: Config,
    client: Client,
    pod: PathBuf,
    attached: oneshot::Sender<Vec<IpAddr>>,
    stop: Shutdown,
) {
    let network = PodNetwork::build(config.clone()).unwrap();
    let caches = Caches::new(client, stop.clone());
    let overlay = Overlay::build(network.clone(), &format!("n{number}"), &caches).unwrap();
    let (ready, is_ready) = oneshot::channel();
    let overlay = tokio::spawn(overlay.run(ready, stop.clone()));
    namespace::create(&pod).unwrap();
    let id = SandboxId(format!("{number:02x}").repeat(32));
    let addresses = network.attach(&id, &PodIdentity::default(), &pod).await.unwrap();
    is_ready.await.unwrap();
    attached.send(addresses).unwrap();
    stop.cancelled().await;
    overlay.await.unwrap();
    network.teardown().await.unwrap();
}

impl Node {
    fn stop(self) {
        self.stop.cancel();
        self.thread.join().unwrap();
        let left = inside(&self.netns, || {
            let mut socket = Socket::open(Protocol::Route).unwrap();
            let links = socket.links().unwrap().into_iter().map(|link| link.name).collect::<Vec<_>>();
            (links, socket.routes().unwrap().iter().filter(|route| route.protocol == 75).count())
        });
        assert!(!left.0.iter().any(|name| name.starts_with("flannel")), "{left:?}");
        assert_eq!(left.1, 0);
    }

    fn link(&self, name: &str) -> Option<u32> {
        inside(&self.netns, || {
            Socket::open(Protocol::Route).unwrap().link(name).unwrap().map(|link| link.index)
        })
    }

    fn reaches(&self, range: &str) -> bool {
        let range: IpNet = parse(range);
        inside(&self.netns, || {
            let routes = Socket::open(Protocol::Route).unwrap().routes().unwrap();
            routes.iter().any(|route| route.destination == range)
        })
    }
}

/// Whether a pod gets through to an address of another, and is seen as itself there.
fn check_reach(from: &Path, own: IpAddr, to: &Path, address: IpAddr) {
    let (at, thread) = serve(to, address);
    assert_eq!(inside(from, || fetch(at)), own.to_string(), "a pod sees the other pod's own address");
    thread.join().unwrap();
}

/// Large packets get through, too.
fn check_bulk(from: &Path, to: &Path, address: IpAddr) {
    const BYTES: usize = 2_000_000;
    let listener = inside(to, || TcpListener::bind((address, 0)).unwrap());
    let at: SocketAddr = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let mut all = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut all).unwrap()
    });
    inside(from, || {
        let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(5)).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(&vec![7; BYTES]).unwrap();
    });
    assert_eq!(thread.join().unwrap(), BYTES);
}

fn check_backend(backend: Backend, six: bool, mtu: u32) {
    isolated(async |directory| {
        let lab = Lab::new(directory, backend, six).await;
        let nodes = [lab.join(1).await, lab.join(2).await, lab.join(3).await];
        for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 1)] {
            let (from, to) = (&nodes[from], &nodes[to]);
            for family in 0..from.addresses.len() {
                let range =
                    IpNet::new(to.addresses[family], if family == 0 { 24 } else { 64 }).unwrap().trunc();
                let took = lab.until("the route is there", || from.reaches(&range.to_string())).await;
                assert!(took < Duration::from_secs(5), "{took:?}");
                check_reach(&from.pod, from.addresses[family], &to.pod, to.addresses[family]);
                check_bulk(&from.pod, &to.pod, to.addresses[family]);
                // The machine itself reaches the other's pod as the gateway of its own.
                let (at, thread) = serve(&to.pod, to.addresses[family]);
                let seen: IpAddr = parse(&inside(&from.netns, || fetch(at)));
                let own = IpNet::new(from.addresses[family], if family == 0 { 24 } else { 64 }).unwrap();
                assert!(own.contains(&seen), "{seen}");
                thread.join().unwrap();
            }
        }
        let inner = inside(&nodes[0].pod, || {
            Socket::open(Protocol::Route).unwrap().link("eth0").unwrap().unwrap().mtu
        });
        assert_eq!(inner, mtu);
        let file = std::fs::read_to_string(lab.directory.join("run1/subnet.env")).unwrap();
        assert!(
            file.contains("FLANNEL_SUBNET=10.42.1.1/24\n") && file.contains(&format!("FLANNEL_MTU={mtu}\n"))
        );
        nodes.into_iter().for_each(Node::stop);
    });
}

#[test]
fn pods_reach_each_other_by_vxlan() {
    check_backend(Backend::default(), false, 1450);
}

#[test]
fn pods_reach_each_other_by_vxlan_in_both_families() {
    check_backend(Backend::default(), true, 1430);
}

#[test]
fn pods_reach_each_other_by_vxlan_with_direct_routing() {
    check_backend(Backend::Vxlan(Vxlan { direct_routing: true, ..Vxlan::default() }), true, 1430);
}

#[test]
fn pods_reach_each_other_by_host_gw() {
    check_backend(Backend::HostGw, true, 1500);
}

#[test]
fn pods_reach_each_other_by_udp() {
    check_backend(Backend::Udp(Udp::default()), true, 1452);
}

#[test]
fn nodes_that_go_move_or_break_are_followed_within_a_second() {
    isolated(async |directory| {
        let lab = Lab::new(directory, Backend::default(), false).await;
        let (one, two) = (lab.join(1).await, lab.join(2).await);
        lab.until("the route is there", || one.reaches("10.42.2.0/24")).await;
        check_reach(&one.pod, one.addresses[0], &two.pod, two.addresses[0]);

        // Somebody removes the device.
        let index = one.link("flannel.1").unwrap();
        inside(&one.netns, || Socket::open(Protocol::Route).unwrap().delete_link(index).unwrap());
        let mended = || one.link("flannel.1").is_some_and(|new| new != index) && one.reaches("10.42.2.0/24");
        let took = lab.until("the device is there again", mended).await;
        assert!(took < Duration::from_secs(1), "{took:?}");
        check_reach(&one.pod, one.addresses[0], &two.pod, two.addresses[0]);

        // The node says another address, and later the old one again.
        let nodes = lab.server.client().cluster::<ApiNode>();
        let say = |address: &str| {
            let patch = json!({"metadata": {"annotations": {"flannel.alpha.coreos.com/public-ip-overwrite": address}}});
            client::Patch::Merge(patch)
        };
        let forwards_to = |address: &str| -> bool {
            let address: IpAddr = parse(address);
            inside(&one.netns, || {
                let found = Socket::open(Protocol::Route).unwrap().forwardings().unwrap();
                found.iter().all(|forwarding| forwarding.to == address)
            })
        };
        for address in ["192.0.2.77", "192.0.2.2"] {
            nodes.patch("n2", say(address)).await.unwrap();
            let took = lab.until("the address is followed", || forwards_to(address)).await;
            assert!(took < Duration::from_secs(1), "{took:?}");
        }
        check_reach(&one.pod, one.addresses[0], &two.pod, two.addresses[0]);

        nodes.delete("n2", &DeleteOptions::default()).await.unwrap();
        let took = lab.until("the node is forgotten", || !one.reaches("10.42.2.0/24")).await;
        assert!(took < Duration::from_secs(1), "{took:?}");
        assert_eq!(one.link("flannel.1"), None, "without other nodes there is no device");
        one.stop();
        two.stop();
    });
}
