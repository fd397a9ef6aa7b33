//! Load balancers' addresses on a link: one node has each, and another one when that leaves.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use client::{Caches, Patch};
use env::{Env, Shutdown};
use k8s_openapi::api::core::v1::Service;
use linux::net::{Address, AddressFlags, Protocol, Socket, namespace};
use network::{Announcer, AnnouncerConfig, Backend};
use serde_json::json;

use crate::overlay::Lab;
use crate::{fetch, inside, isolated, serve};

const ADDRESS: &str = "192.0.2.200";

struct Node {
    netns: PathBuf,
    stop: Shutdown,
    thread: std::thread::JoinHandle<()>,
}

fn start(lab: &Lab, number: u8) -> Node {
    let (netns, client, stop) = (lab.plug(number), lab.server.client(), Shutdown::new());
    let (path, until) = (netns.clone(), stop.clone());
    let config = AnnouncerConfig {
        pool: vec!["192.0.2.192/27".parse().unwrap()],
        node: format!("n{number}"),
        node_addresses: vec![format!("192.0.2.{number}").parse().unwrap()],
    };
    let thread = std::thread::spawn(move || {
        namespace::within(std::fs::File::open(path).unwrap(), || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let caches = Caches::new(client, Shutdown::new());
                let announcer = Announcer::build(config, &caches, Env::system()).unwrap();
                announcer.run(until).await.unwrap();
            });
        })
        .unwrap();
    });
    Node { netns, stop, thread }
}

fn has(netns: &Path) -> bool {
    let address: IpAddr = ADDRESS.parse().unwrap();
    inside(netns, || {
        let all = Socket::open(Protocol::Route).unwrap().addresses().unwrap();
        all.iter().any(|found| found.address.addr() == address)
    })
}

#[test]
fn one_node_answers_for_an_address_and_another_when_it_leaves() {
    isolated(async |directory| {
        let lab = Lab::new(directory, Backend::HostGw, false).await;
        // This side of the link is the client.
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let link = socket.link("lan").unwrap().unwrap().index;
        let own = Address { link, address: "192.0.2.254/24".parse().unwrap() };
        socket.add_address(&own, AddressFlags::default()).unwrap();
        let nodes = [start(&lab, 1), start(&lab, 2)];
        let services = lab.server.client().namespaced::<Service>("d");
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "d"},
            "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}});
        services.create(&service).await.unwrap();
        let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": ADDRESS}]}}});
        services.patch_status("s", Patch::Merge(status)).await.unwrap();
        let holders = || nodes.iter().filter(|node| has(&node.netns)).count();
        lab.until("a node has the address", || holders() == 1).await;
        let (first, second) = if has(&nodes[0].netns) { (0, 1) } else { (1, 0) };
        let (at, thread) = serve(&nodes[first].netns, ADDRESS.parse().unwrap());
        assert_eq!(fetch(at), "192.0.2.254");
        thread.join().unwrap();
        nodes[first].stop.cancel();
        lab.until("the other one has it", || has(&nodes[second].netns) && !has(&nodes[first].netns)).await;
        // The client's neighbour is another one at once.
        let (at, thread) = serve(&nodes[second].netns, ADDRESS.parse().unwrap());
        assert_eq!(fetch(at), "192.0.2.254");
        thread.join().unwrap();
        nodes[second].stop.cancel();
        let netns = nodes[second].netns.clone();
        nodes.into_iter().for_each(|node| node.thread.join().unwrap());
        assert!(!has(&netns), "what is held is given up at the end");
    });
}
