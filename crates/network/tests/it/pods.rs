//! The pods of one node.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use containers::{PodIdentity, SandboxId, SandboxNetwork};
use linux::net::{Protocol, Socket, namespace};
use linux::nft::{self, Family};
use network::{Config, PodNetwork};

use crate::{fetch, isolated, serve};

fn config() -> Config {
    Config {
        bridge: "kbtest0".into(),
        table: "kobune-test".into(),
        pod_cidrs: vec!["10.201.0.0/24".parse().unwrap(), "fd42:201::/64".parse().unwrap()],
        cluster_cidrs: vec!["10.201.0.0/16".parse().unwrap(), "fd42:201::/48".parse().unwrap()],
        service_cidrs: vec!["10.202.0.0/16".parse().unwrap()],
        local_addresses: vec!["10.202.0.10".parse().unwrap()],
        mtu: Some(1400),
        ..Config::default()
    }
}

fn sandbox(number: u8) -> SandboxId {
    SandboxId(format!("{number:02x}").repeat(32))
}

async fn attach(network: &PodNetwork, directory: &Path, number: u8) -> (PathBuf, Vec<IpAddr>) {
    let netns = directory.join(format!("pod{number}"));
    namespace::create(&netns).unwrap();
    let addresses = network.attach(&sandbox(number), &PodIdentity::default(), &netns).await.unwrap();
    (netns, addresses)
}

#[test]
fn pods_reach_each_other_and_the_machine_in_both_families() {
    isolated(async |directory| {
        let network = PodNetwork::build(config()).unwrap();
        let (first, a) = attach(&network, &directory, 1).await;
        let (second, b) = attach(&network, &directory, 2).await;
        assert_eq!(a, ["10.201.0.2".parse::<IpAddr>().unwrap(), "fd42:201::2".parse().unwrap()]);
        for (family, address) in b.iter().enumerate() {
            let (at, thread) = serve(&second, *address);
            let file = std::fs::File::open(&first).unwrap();
            let seen = namespace::within(&file, || fetch(at)).unwrap();
            assert_eq!(seen, a[family].to_string(), "a pod sees the other pod's own address");
            thread.join().unwrap();
            let (at, thread) = serve(&second, *address);
            assert_eq!(fetch(at), network.gateways()[family].to_string());
            thread.join().unwrap();
        }
        let again = network.attach(&sandbox(1), &PodIdentity::default(), &first).await.unwrap();
        assert_eq!(again, a, "attaching again changes nothing");
        network.teardown().await.unwrap();
    });
}

#[test]
fn a_restart_adopts_what_runs_and_removes_the_rest() {
    isolated(async |directory| {
        let network = PodNetwork::build(config()).unwrap();
        let (first, a) = attach(&network, &directory, 1).await;
        let _gone = attach(&network, &directory, 2).await;
        drop(network);
        let network = PodNetwork::build(config()).expect("our own leftovers are no overlap");
        network.adopt(&[(sandbox(1), first.clone(), a.clone())]).await.unwrap();
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let veths = socket.links().unwrap().iter().filter(|link| link.kind == "veth").count();
        assert_eq!(veths, 1);
        let (_, c) = attach(&network, &directory, 3).await;
        assert_eq!(c[0].to_string(), "10.201.0.3");
        let (at, thread) = serve(&first, a[0]);
        assert_eq!(fetch(at), "10.201.0.1");
        thread.join().unwrap();
        network.teardown().await.unwrap();
    });
}

#[test]
fn teardown_leaves_no_trace() {
    isolated(async |directory| {
        let network = PodNetwork::build(config()).unwrap();
        let before = Instant::now();
        for number in 1..=5 {
            attach(&network, &directory, number).await;
        }
        eprintln!("five pods attached in {:?}", before.elapsed());
        network.detach(&sandbox(5), &directory.join("pod5")).await.unwrap();
        network.detach(&sandbox(5), &directory.join("pod5")).await.unwrap();
        network.prepare().await.unwrap();
        network.teardown().await.unwrap();
        network.teardown().await.unwrap();
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let names: Vec<_> =
            socket.links().unwrap().into_iter().filter(|link| !link.kind.is_empty()).collect();
        assert!(names.iter().all(|link| link.kind != "veth" && link.kind != "bridge"), "{names:?}");
        let mut netfilter = Socket::open(Protocol::Netfilter).unwrap();
        assert_eq!(nft::tables(&mut netfilter, Family::Inet).unwrap(), Vec::<String>::new());
    });
}

#[test]
fn an_overlap_with_the_machine_is_refused() {
    isolated(async |_| {
        let other = PodNetwork::build(Config { bridge: "kbother0".into(), ..config() }).unwrap();
        other.prepare().await.unwrap();
        let refused = PodNetwork::build(config()).err().unwrap().to_string();
        assert!(refused.contains("overlaps route 10.201.0.0/24 (kbother0)"), "{refused}");
        other.teardown().await.unwrap();
    });
}
