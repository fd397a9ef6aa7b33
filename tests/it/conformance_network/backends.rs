//! The ways between nodes: each backend carries everything, with the right MTU, and writes down what it does.

use std::path::Path;

use serde_json::json;

use super::{Lab, front, nodes, pods, service};
use crate::cluster::Cluster;

#[test]
fn each_backend_carries_everything() {
    for (kind, mtu) in [("host-gw", 1500), ("vxlan", 1450), ("udp", 1472)] {
        let lab = Lab::on(Cluster::of_nodes(3, &format!("backend: {{type: {kind}}}\n")));
        pods::http_between_pods(&lab);
        nodes::every_pod_reaches_services(&lab);
        large_answers(&lab);
        described(&lab, mtu);
    }
}

/// IPv6 beside IPv4, through the same tunnels.
#[test]
fn both_families_cross_nodes() {
    let flags = [
        "--nodes",
        "2",
        "--cluster-cidr",
        "10.42.0.0/16,fd42::/48",
        "--service-cidr",
        "10.43.0.0/16,fd43::/112",
    ];
    let cluster = Cluster::start("up", &flags, "");
    cluster.until("two nodes are ready", |cluster| {
        cluster.kubectl(&["get", "nodes", "--no-headers"]).matches(" Ready").count() == 2
    });
    let mut lab = Lab::on(cluster);
    let second = |lab: &Lab, name: &str| lab.field(&format!("pod/{name}"), ".status.podIPs[1].ip");
    let addresses: Vec<String> = lab.backends.iter().map(|(name, _)| second(&lab, name)).collect();
    for (backend, address) in lab.backends.iter_mut().zip(addresses) {
        assert!(address.starts_with("fd42:"), "{address}");
        backend.1 = format!("[{address}]");
    }
    pods::http_between_pods(&lab);
    lab.create(&service("both", front(json!({"ipFamilyPolicy": "RequireDualStack"}))));
    let at = lab.field("svc/both", ".spec.clusterIPs[1]");
    for (from, _) in &lab.backends {
        lab.until_all_answer_to(from, &format!("[{at}]"));
    }
    let found = lab.ask("nslookup -type=aaaa both.default.svc.cluster.local");
    assert!(found.contains(&format!("Address: {at}")), "{found}");
}

/// Packets of the full size pass.
fn large_answers(lab: &Lab) {
    let (first, _) = &lab.backends[0];
    for (name, address) in &lab.backends {
        lab.ask_in(name, "dd if=/dev/zero of=/tmp/large bs=1024 count=512");
        let length =
            lab.ask_in(first, &format!("timeout 20 wget -q -O - http://{address}:8080/large | wc -c"));
        assert_eq!(length, (512 * 1024).to_string(), "from {name}");
    }
}

/// Each node has its own file, since the machine's one `/run/flannel` is not enough for several nodes.
fn described(lab: &Lab, mtu: u32) {
    for (node, data) in lab.nodes.iter().zip(lab.cluster.node_data()) {
        let text = std::fs::read_to_string(data.join("run/subnet.env")).unwrap();
        let range = lab.field(&format!("node/{}", node.0), ".spec.podCIDR");
        let subnet = range.replace(".0/", ".1/");
        let expected = format!(
            "FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET={subnet}\nFLANNEL_MTU={mtu}\nFLANNEL_IPMASQ=true\n"
        );
        assert_eq!(text, expected, "{}", node.0);
    }
    let (name, _) = &lab.backends[0];
    assert_eq!(lab.ask_in(name, "cat /sys/class/net/eth0/mtu"), mtu.to_string());
    assert!(!Path::new("/run/flannel/subnet.env").exists(), "the machine itself is no node");
}
