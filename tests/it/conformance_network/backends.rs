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

/// Two nodes; the backends' addresses are replaced by those of IPv6.
fn with_ipv6(flags: &[&str]) -> Lab {
    let cluster = Cluster::start("up", &[&["--nodes", "2"], flags].concat(), "");
    cluster.until("two nodes are ready", |cluster| {
        cluster.kubectl(&["get", "nodes", "--no-headers"]).matches(" Ready").count() == 2
    });
    let mut lab = Lab::on(cluster);
    let last = |lab: &Lab, name: &str| lab.field(&format!("pod/{name}"), ".status.podIPs[-1:].ip");
    let addresses: Vec<String> = lab.backends.iter().map(|(name, _)| last(&lab, name)).collect();
    for (backend, address) in lab.backends.iter_mut().zip(addresses) {
        assert!(address.starts_with("fd42:"), "{address}");
        backend.1 = format!("[{address}]");
    }
    lab
}

fn service_answers(lab: &Lab, policy: &str) {
    lab.create(&service("six", front(json!({"ipFamilyPolicy": policy}))));
    let at = lab.field("svc/six", ".spec.clusterIPs[-1:]");
    for (from, _) in &lab.backends {
        lab.until_all_answer_to(from, &format!("[{at}]"));
    }
    let found = lab.ask("nslookup -type=aaaa six.default.svc.cluster.local");
    assert!(found.contains(&format!("Address: {at}")), "{found}");
}

/// IPv6 beside IPv4, through the same tunnels.
#[test]
fn both_families_cross_nodes() {
    let clusters = ["--cluster-cidr", "10.42.0.0/16,fd42::/48"];
    let lab = with_ipv6(&[&clusters[..], &["--service-cidr", "10.43.0.0/16,fd43::/112"]].concat());
    pods::http_between_pods(&lab);
    service_answers(&lab, "RequireDualStack");
}

/// Nodes, pods and Services without IPv4.
#[test]
fn ipv6_is_enough() {
    let ranges =
        ["--cluster-cidr", "fd42::/48", "--service-cidr", "fd43::/112", "--nodes-cidr", "fd44::/120"];
    let lab = with_ipv6(&ranges);
    pods::http_between_pods(&lab);
    service_answers(&lab, "SingleStack");
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
