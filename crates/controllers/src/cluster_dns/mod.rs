//! Where the Service `kube-dns` leads: every node runs the cluster's DNS server on the first address of its range.
//!
//! The Service keeps traffic on its node (`internalTrafficPolicy: Local`), so a pod asks the server beside it. The
//! Service itself is made with the cluster.

use std::collections::BTreeMap;
use std::net::IpAddr;

use client::{Cache, Caches, Patch, target_of};
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use machinery::{Key, Object};
use parking_lot::Mutex;
use reconcile::plan::named_key;
use reconcile::{Action, Controller, Input, Plan};
use serde_json::{Value, json};

use crate::node_ipam::node_ranges;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-dns";

/// The controller. Its two keys are the slices, one per address family.
pub struct ClusterDns {
    nodes: Cache,
    slices: Cache,
}

impl ClusterDns {
    pub fn new(caches: &Caches) -> Self {
        Self { nodes: caches.of::<Node>(), slices: caches.of::<EndpointSlice>() }
    }

    /// Where the servers are, as (node, address) pairs in order.
    fn servers(&self, family: &str) -> Vec<(String, String)> {
        let fits = |address: &IpAddr| address.is_ipv6() == (family == "IPv6");
        let of_node = |node: &std::sync::Arc<Object>| {
            let name = node.meta().name.to_string();
            let addresses = node_ranges(node).into_iter().map(gateway).filter(fits);
            addresses.map(move |address| (name.clone(), address.to_string())).collect::<Vec<_>>()
        };
        let mut servers: Vec<_> = self.nodes.all().iter().flat_map(of_node).collect();
        servers.sort();
        servers
    }
}

/// The first address of a node's range is the node's own.
fn gateway(range: IpNet) -> IpAddr {
    match range.network() {
        IpAddr::V4(network) => IpAddr::from((u32::from(network) + 1).to_be_bytes()),
        IpAddr::V6(network) => IpAddr::from((u128::from(network) + 1).to_be_bytes()),
    }
}

/// The ranges of nodes, by name.
type Known = BTreeMap<String, Vec<IpNet>>;

/// Whether a node came, went or has other ranges. Nodes say all the time that they are there, and a plan reads all of
/// them.
fn is_news(known: &mut Known, node: &Object, is_there: bool) -> bool {
    let name = &*node.meta().name;
    if !is_there {
        return known.remove(name).is_some();
    }
    let ranges = node_ranges(node);
    if known.get(name) == Some(&ranges) {
        return false;
    }
    known.insert(name.to_owned(), ranges);
    true
}

/// Which family a slice is for.
fn family(slice: &str) -> Option<&'static str> {
    match slice {
        NAME => Some("IPv4"),
        "kube-dns-ipv6" => Some("IPv6"),
        _ => None,
    }
}

fn slice(name: &str, family: &str, servers: &[(String, String)]) -> Value {
    let port = |name: &str, protocol: &str| json!({"name": name, "port": 53, "protocol": protocol});
    let endpoint = |(node, address): &(String, String)| json!({"addresses": [address], "conditions": {"ready": true}, "nodeName": node});
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "labels": {
                "kubernetes.io/service-name": NAME,
                "endpointslice.kubernetes.io/managed-by": "kobune.local",
            },
        },
        "addressType": family,
        "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")],
        "endpoints": servers.iter().map(endpoint).collect::<Vec<_>>(),
    })
}

impl Controller for ClusterDns {
    fn name(&self) -> &'static str {
        "cluster-dns-controller"
    }

    fn inputs(&self) -> Vec<Input> {
        let keys = || [NAME, "kube-dns-ipv6"].map(|name| Key::new(NAMESPACE, name)).to_vec();
        let own = |slice: &Object| match family(&slice.meta().name) {
            Some(_) if &*slice.meta().namespace == NAMESPACE => vec![slice.key()],
            _ => Vec::new(),
        };
        let (nodes, known) = (self.nodes.clone(), Mutex::new(Known::new()));
        let of_node = move |node: &Object| {
            let is_there = nodes.get(&node.key()).is_some();
            if is_news(&mut known.lock(), node, is_there) { keys() } else { Vec::new() }
        };
        vec![Input::new(self.nodes.clone(), of_node), Input::new(self.slices.clone(), own)]
    }

    fn plan(&self, key: &Key, _now: Timestamp) -> Plan {
        let Some(family) = family(&key.name) else { return Plan::nothing() };
        let servers = self.servers(family);
        let body = slice(&key.name, family, &servers);
        let action = match self.slices.get(key) {
            None if servers.is_empty() => return Plan::nothing(),
            None => Action::Create { target: target_of::<EndpointSlice>(NAMESPACE), body, announce: None },
            Some(stored) if stored.value()["endpoints"] == body["endpoints"] => return Plan::nothing(),
            Some(_) => {
                let patch = Patch::Merge(json!({"endpoints": body["endpoints"]}));
                Action::Patch {
                    target: named_key(target_of::<EndpointSlice>(NAMESPACE), NAMESPACE, &key.name),
                    patch,
                }
            }
        };
        Plan { actions: vec![action], ..Plan::nothing() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_is_no_news() {
        let node = |range: &str, beat: u32| {
            let value =
                json!({"metadata": {"name": "a"}, "spec": {"podCIDRs": [range]}, "status": {"beat": beat}});
            Object::from_value(&value, u64::from(beat)).unwrap()
        };
        let mut known = Known::new();
        let cases = [
            (node("10.42.0.0/24", 1), true, true),
            (node("10.42.0.0/24", 2), true, false),
            (node("10.42.9.0/24", 3), true, true),
            (node("10.42.9.0/24", 4), false, true),
            (node("10.42.9.0/24", 5), false, false),
            (node("10.42.9.0/24", 6), true, true),
        ];
        for (node, is_there, expected) in cases {
            assert_eq!(is_news(&mut known, &node, is_there), expected, "{}", node.revision());
        }
    }

    #[test]
    fn a_slice_names_each_node() {
        let slice =
            slice(NAME, "IPv4", &[("a".into(), "10.42.0.1".into()), ("b".into(), "10.42.1.1".into())]);
        let nodes: Vec<_> =
            slice["endpoints"].as_array().unwrap().iter().map(|e| e["nodeName"].as_str().unwrap()).collect();
        assert_eq!(nodes, ["a", "b"]);
        assert_eq!(slice["endpoints"][1]["addresses"], json!(["10.42.1.1"]));
        assert_eq!(gateway("fd00::/64".parse().unwrap()).to_string(), "fd00::1");
        assert_eq!((family(NAME), family("other")), (Some("IPv4"), None));
    }
}
