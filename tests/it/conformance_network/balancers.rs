//! Load balancers on three nodes, asked from beside them: the nodes' own addresses, and a pool's.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Lab, SERVER, front, pod, service};
use crate::cluster::{Cluster, fetch};

fn ingress(lab: &Lab, name: &str) -> Vec<String> {
    let found = lab.field(&format!("svc/{name}"), ".status.loadBalancer.ingress[*].ip");
    found.split_whitespace().map(str::to_owned).collect()
}

/// Who answers there, asked from this machine, which is none of the nodes.
fn who(at: &str) -> String {
    super::pods::try_fetch_path(at, "/hostname").unwrap_or_default()
}

#[test]
fn the_nodes_own_addresses_answer() {
    let lab = Lab::new(3);
    lab.create(&service("own", front(json!({"type": "LoadBalancer"}))));
    let nodes: Vec<String> = lab.nodes.iter().map(|(_, address)| address.clone()).collect();
    lab.until("it has the nodes' addresses", |lab| ingress(lab, "own") == nodes);
    let all: BTreeSet<String> = lab.backends.iter().map(|(name, _)| name.clone()).collect();
    for address in &nodes {
        let at = format!("{address}:80");
        lab.until(&format!("all answer at {at}"), |_| {
            let names: BTreeSet<String> = (0..20).map(|_| who(&at)).collect();
            names == all
        });
    }
    lab.cluster.kubectl(&["patch", "svc", "own", "-p", r#"{"spec":{"type":"ClusterIP"}}"#]);
    lab.until("nobody answers any more", |_| nodes.iter().all(|node| fetch(&format!("{node}:80")).is_err()));
    assert_eq!(ingress(&lab, "own"), Vec::<String>::new());
}

#[test]
fn an_address_of_the_pool_moves_when_its_node_dies() {
    let lab = Lab::on(Cluster::of_nodes(3, "loadBalancerPool: [10.44.0.200/30]\n"));
    // Only nodes with endpoints take part, so that the control plane's node does not.
    for number in [2, 3] {
        let extra = json!({"nodeName": format!("node-{number}")});
        lab.create(&pod(&format!("on-{number}"), json!({"app": "two"}), extra, SERVER));
    }
    lab.cluster.wait_for_pods("app=two", 2);
    let two = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "selector": {"app": "two"}});
    lab.create(&service("pool", front(two)));
    lab.until("it has an address", |lab| ingress(lab, "pool") == ["10.44.0.201"]);
    let at = "10.44.0.201:80";
    lab.until("one of the two answers", |_| who(at).starts_with("on-"));
    let first = who(at);
    let answers: BTreeSet<String> = (0..10).map(|_| who(at)).collect();
    assert_eq!(answers, [first.clone()].into(), "the node has the address and only its own endpoints");
    let holder = |lab: &Lab| {
        let lease = "leases.coordination.k8s.io/load-balancer-10-44-0-201";
        lab.cluster.kubectl(&["get", "-n", "kube-system", lease, "-o", "jsonpath={.spec.holderIdentity}"])
    };
    assert_eq!(holder(&lab), first.replace("on-", "node-"));
    stays_while_the_server_hangs(&lab, at, &first);
    assert_eq!(holder(&lab), first.replace("on-", "node-"));
    let second = if first == "on-2" { "on-3" } else { "on-2" };
    lab.cluster.kill_node(if first == "on-2" { 1 } else { 2 });
    lab.until("the other one answers", |_| who(at) == second);
    assert_eq!(holder(&lab), second.replace("on-", "node-"));
    // What the dead process left behind does not answer as well.
    let answers: BTreeSet<String> = (0..10).map(|_| who(at)).collect();
    assert_eq!(answers, [second.to_owned()].into());
}

/// For longer than an address lasts that is not renewed.
fn stays_while_the_server_hangs(lab: &Lab, at: &str, first: &str) {
    lab.cluster.signal_node(0, "-STOP");
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        assert_eq!(who(at), first, "after {:?}", start.elapsed());
        std::thread::sleep(Duration::from_millis(300));
    }
    lab.cluster.signal_node(0, "-CONT");
}
