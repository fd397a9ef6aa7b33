//! What nodes tell each other: their pod ranges and how to reach them, in the words of flannel's Node annotations.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use linux::net::MacAddress;
use linux::net::address::octets;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Backend;

const PREFIX: &str = "flannel.alpha.coreos.com/";

/// A node's pod ranges and how they are reached.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lease {
    /// `Node.spec.podCIDRs`: at most one of each family.
    pub ranges: Vec<IpNet>,
    /// The backend that the node uses; empty when it did not say yet.
    pub backend: String,
    /// Where other nodes send to: at most one of each family.
    pub public: Vec<IpAddr>,
    /// The hardware address of its end of the tunnel, by the family of what carries it.
    pub tunnel_mac: [Option<MacAddress>; 2],
    /// Addresses that the administrator wants published instead.
    pub overwrite: Vec<IpAddr>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Node {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Metadata {
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
struct Spec {
    #[serde(default, rename = "podCIDR")]
    pod_cidr: String,
    #[serde(default, rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
}

#[derive(Deserialize)]
struct TunnelData {
    #[serde(rename = "VtepMAC")]
    mac: String,
}

impl Lease {
    /// What a Node, as stored JSON, says. Malformed parts count as absent.
    pub fn read(stored: &[u8]) -> Self {
        let node: Node = serde_json::from_slice(stored).unwrap_or_default();
        let single =
            Some(node.spec.pod_cidr).filter(|range| !range.is_empty() && node.spec.pod_cidrs.is_empty());
        let ranges = node.spec.pod_cidrs.iter().chain(&single).filter_map(|range| range.parse().ok());
        let said = |name: &str| node.metadata.annotations.get(&format!("{PREFIX}{name}"));
        let addresses = |names: [&str; 2]| -> Vec<IpAddr> {
            names.iter().filter_map(|name| said(name)).filter_map(|address| address.parse().ok()).collect()
        };
        Self {
            ranges: ranges.collect(),
            backend: said("backend-type").cloned().unwrap_or_default(),
            public: addresses(["public-ip", "public-ipv6"]),
            tunnel_mac: ["backend-data", "backend-v6-data"]
                .map(|name| said(name).and_then(|data| tunnel_mac(data))),
            overwrite: addresses(["public-ip-overwrite", "public-ipv6-overwrite"]),
        }
    }

    /// What this node has to say of itself.
    pub fn own(backend: &Backend, ranges: &[IpNet], addresses: &[IpAddr], overwrite: &[IpAddr]) -> Self {
        let of_family = |ipv4: bool| {
            let wanted = |address: &&IpAddr| address.is_ipv4() == ipv4;
            overwrite.iter().find(wanted).or_else(|| addresses.iter().find(wanted)).copied()
        };
        let public = [of_family(true), of_family(false)];
        let tunnel = |address: Option<IpAddr>| {
            let range = ranges.first().filter(|_| matches!(backend, Backend::Vxlan(_)))?;
            address.map(|address| tunnel_mac_of(*range, address.is_ipv4()))
        };
        Self {
            ranges: ranges.to_vec(),
            backend: backend.name().to_owned(),
            public: public.into_iter().flatten().collect(),
            tunnel_mac: public.map(tunnel),
            overwrite: overwrite.to_vec(),
        }
    }

    /// As annotations; `null` removes one.
    pub fn annotations(&self, backend: &Backend) -> Value {
        let data = |mac: Option<MacAddress>| match (mac, backend) {
            (Some(mac), Backend::Vxlan(vxlan)) => {
                json!({"VNI": vxlan.vni, "VtepMAC": show_mac(mac)}).to_string()
            }
            _ => "null".to_owned(),
        };
        let public = |ipv4: bool| self.public.iter().find(|address| address.is_ipv4() == ipv4);
        let mut annotations = serde_json::Map::new();
        let mut set = |name: &str, value: Value| annotations.insert(format!("{PREFIX}{name}"), value);
        set("kube-subnet-manager", json!("true"));
        set("backend-type", json!(self.backend));
        set("backend-data", json!(data(self.tunnel_mac[0])));
        set("public-ip", json!(public(true)));
        set("public-ipv6", json!(public(false)));
        let second = public(false).map(|_| data(self.tunnel_mac[1]));
        set("backend-v6-data", json!(second));
        Value::Object(annotations)
    }

    /// The address by which a family's tunnel reaches the node.
    pub fn public_of(&self, ipv4: bool) -> Option<IpAddr> {
        self.public.iter().find(|address| address.is_ipv4() == ipv4).copied()
    }
}

/// A node's end of a tunnel has a hardware address that follows from its range: the same after any restart.
pub fn tunnel_mac_of(range: IpNet, carried_by_ipv4: bool) -> MacAddress {
    // Ranges of IPv6 differ in the middle of the address only.
    let mut tail = [0; 4];
    for (index, octet) in octets(range.network()).into_iter().enumerate() {
        tail[index % 4] ^= octet;
    }
    [0x0a, if carried_by_ipv4 { 0x59 } else { 0x5a }, tail[0], tail[1], tail[2], tail[3]]
}

fn show_mac(mac: MacAddress) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn tunnel_mac(data: &str) -> Option<MacAddress> {
    let data: TunnelData = serde_json::from_str(data).ok()?;
    let bytes: Option<Vec<u8>> = data.mac.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges() -> Vec<IpNet> {
        vec!["10.42.3.0/24".parse().unwrap(), "fd42:3::/64".parse().unwrap()]
    }

    fn addresses(addresses: &[&str]) -> Vec<IpAddr> {
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn what_a_node_says_is_what_others_read() {
        for (backend, own) in [
            (Backend::default(), addresses(&["192.0.2.7"])),
            (Backend::default(), addresses(&["192.0.2.7", "2001:db8::7"])),
            (Backend::HostGw, addresses(&["192.0.2.7"])),
        ] {
            let lease = Lease::own(&backend, &ranges(), &own, &[]);
            let node = json!({"metadata": {"annotations": lease.annotations(&backend)},
                "spec": {"podCIDR": "10.42.3.0/24", "podCIDRs": ["10.42.3.0/24", "fd42:3::/64"]}});
            let mut text = node.clone();
            // A merge patch removes what is null.
            text["metadata"]["annotations"].as_object_mut().unwrap().retain(|_, value| !value.is_null());
            assert_eq!(Lease::read(text.to_string().as_bytes()), lease);
        }
    }

    #[test]
    fn each_node_has_a_hardware_address_of_its_own() {
        for cluster in ["10.42.0.0/16", "fd42::/56", "2001:db8:1:ff00::/56"] {
            let cluster: IpNet = cluster.parse().unwrap();
            let length = if cluster.addr().is_ipv4() { 24 } else { 64 };
            let ranges: Vec<IpNet> = cluster.subnets(length).unwrap().collect();
            let found: std::collections::BTreeSet<_> =
                ranges.iter().map(|range| tunnel_mac_of(*range, false)).collect();
            assert_eq!((ranges.len(), found.len()), (256, 256), "{cluster}");
        }
    }

    #[test]
    fn annotations_are_spelled_as_flannel_does() {
        let lease = Lease::own(&Backend::default(), &ranges()[..1], &addresses(&["192.0.2.7"]), &[]);
        assert_eq!(
            lease.annotations(&Backend::default()),
            json!({
                "flannel.alpha.coreos.com/kube-subnet-manager": "true",
                "flannel.alpha.coreos.com/backend-type": "vxlan",
                "flannel.alpha.coreos.com/backend-data": r#"{"VNI":1,"VtepMAC":"0a:59:0a:2a:03:00"}"#,
                "flannel.alpha.coreos.com/public-ip": "192.0.2.7",
                "flannel.alpha.coreos.com/public-ipv6": null,
                "flannel.alpha.coreos.com/backend-v6-data": null,
            })
        );
    }

    #[test]
    fn malformed_parts_count_as_absent_and_an_overwrite_wins() {
        let node = json!({"metadata": {"annotations": {
            "flannel.alpha.coreos.com/backend-type": "vxlan",
            "flannel.alpha.coreos.com/backend-data": "{\"VtepMAC\":\"aa:bb\"}",
            "flannel.alpha.coreos.com/public-ip": "nonsense",
            "flannel.alpha.coreos.com/public-ip-overwrite": "203.0.113.1",
        }}, "spec": {"podCIDR": "10.42.9.0/24"}});
        let lease = Lease::read(node.to_string().as_bytes());
        assert_eq!(lease.ranges, ["10.42.9.0/24".parse::<IpNet>().unwrap()]);
        assert_eq!((lease.tunnel_mac, lease.public), ([None, None], vec![]));
        let own = Lease::own(&Backend::HostGw, &ranges(), &addresses(&["192.0.2.7"]), &lease.overwrite);
        assert_eq!(own.public, addresses(&["203.0.113.1"]));
        assert_eq!(Lease::read(b"{}"), Lease::default());
    }
}
