//! Which addresses a Service gets: pure functions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use machinery::Key;

/// Services that name this class, or none, are ours.
const CLASS: &str = "kobune.local/load-balancer";
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// A status does not grow with the cluster.
const NODES_MAX: usize = 16;
/// Of a large range only so many addresses are looked at.
const ADDRESSES_MAX: u128 = 65_536;

/// What a Service of ours asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wish {
    /// `true` for IPv4, in the order of preference.
    pub families: Vec<bool>,
    /// `spec.loadBalancerIP`.
    pub address: Option<IpAddr>,
    /// Protocol and port.
    pub ports: BTreeSet<(String, u16)>,
    /// Only nodes with endpoints answer.
    pub only_local: bool,
    /// The addresses that it has.
    pub present: Vec<IpAddr>,
    /// Older ones come first.
    pub created: Option<jiff::Timestamp>,
}

/// What a Service has.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    pub service: Key,
    pub addresses: Vec<IpAddr>,
    pub ports: BTreeSet<(String, u16)>,
    pub created: Option<jiff::Timestamp>,
}

impl Wish {
    /// `None` for a Service that is not ours to serve.
    pub fn read(service: &Service) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        let ours = spec.load_balancer_class.as_deref().is_none_or(|class| class == CLASS);
        if spec.type_.as_deref() != Some("LoadBalancer")
            || !ours
            || service.metadata.deletion_timestamp.is_some()
        {
            return None;
        }
        let families: Vec<bool> = spec.ip_families.iter().flatten().map(|family| family == "IPv4").collect();
        let ports = spec.ports.iter().flatten().filter_map(|port| {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            Some((protocol, u16::try_from(port.port).ok()?))
        });
        Some(Self {
            families: if families.is_empty() { vec![true] } else { families },
            address: spec.load_balancer_ip.as_deref().and_then(|address| address.parse().ok()),
            ports: ports.collect(),
            only_local: spec.external_traffic_policy.as_deref() == Some("Local"),
            present: ingress(service),
            created: service.metadata.creation_timestamp.as_ref().map(|time| time.0),
        })
    }
}

impl Claim {
    pub fn read(key: &Key, service: &Service) -> Option<Self> {
        let Wish { present, ports, created, .. } = Wish::read(service)?;
        (!present.is_empty()).then(|| Self { service: key.clone(), addresses: present, ports, created })
    }
}

fn ingress(service: &Service) -> Vec<IpAddr> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|status| status.ingress.as_ref()).into_iter().flatten();
    ingress.filter_map(|ingress| ingress.ip.as_deref()?.parse().ok()).collect()
}

/// Addresses of a pool: those that the Service has or asks for, or else the first free ones.
pub fn pool_addresses(
    pool: &[IpNet],
    wish: &Wish,
    taken: &BTreeMap<IpAddr, Key>,
) -> Result<Vec<IpAddr>, String> {
    if let Some(address) = wish.address {
        return match (pool.iter().any(|range| range.contains(&address)), taken.get(&address)) {
            (false, _) => Err(format!("{address} is not in the load balancers' pool")),
            (true, Some(other)) => Err(format!("{address} is used by the Service {other}")),
            (true, None) => Ok(vec![address]),
        };
    }
    let mut addresses = Vec::new();
    for ipv4 in &wish.families {
        let is_free = |address: &IpAddr| {
            address.is_ipv4() == *ipv4
                && !taken.contains_key(address)
                && pool.iter().any(|range| range.contains(address))
        };
        let kept = wish.present.iter().copied().find(is_free);
        let ranges = pool.iter().filter(|range| range.addr().is_ipv4() == *ipv4);
        let first = || ranges.flat_map(|range| hosts(*range)).find(is_free);
        addresses.extend(kept.or_else(first));
    }
    if addresses.is_empty() {
        return Err("all addresses of the load balancers' pool are in use".to_owned());
    }
    Ok(addresses)
}

/// All addresses of a range that a machine may have.
fn hosts(range: IpNet) -> impl Iterator<Item = IpAddr> {
    let bits = u32::from(range.max_prefix_len() - range.prefix_len());
    let size = 1u128.checked_shl(bits).unwrap_or(u128::MAX).min(ADDRESSES_MAX);
    // The first one of a network names it, and the last one is broadcast; a range of one or two has neither.
    let (from, to) = match (range, size) {
        (_, 0..=2) => (0, size),
        (IpNet::V4(_), _) => (1, size - 1),
        (IpNet::V6(_), _) => (1, size),
    };
    (from..to).map(move |offset| match range.network() {
        IpAddr::V4(base) => Ipv4Addr::from(u32::from(base).wrapping_add(offset as u32)).into(),
        IpAddr::V6(base) => Ipv6Addr::from(u128::from(base).wrapping_add(offset)).into(),
    })
}

/// The addresses of nodes that may be asked; with `local` only of those.
pub fn node_addresses(nodes: &[Arc<Node>], local: Option<&BTreeSet<String>>, wish: &Wish) -> Vec<IpAddr> {
    let usable = nodes.iter().filter(|node| is_usable(node)).filter(|node| {
        local.is_none_or(|local| node.metadata.name.as_ref().is_some_and(|name| local.contains(name)))
    });
    let mut usable: Vec<&Arc<Node>> = usable.collect();
    usable.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let addresses = usable
        .into_iter()
        .take(NODES_MAX)
        .flat_map(|node| wish.families.iter().filter_map(|ipv4| address_of(node, *ipv4)).collect::<Vec<_>>());
    addresses.collect()
}

fn is_usable(node: &Node) -> bool {
    let excluded = node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(EXCLUDED));
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    ready && !excluded && node.metadata.deletion_timestamp.is_none()
}

/// The external address if there is one, or else the internal one.
fn address_of(node: &Node, ipv4: bool) -> Option<IpAddr> {
    let all = node.status.as_ref()?.addresses.as_ref()?;
    let of_kind = |kind: &str| {
        let found = all.iter().filter(|address| address.type_ == kind);
        found.filter_map(|address| address.address.parse::<IpAddr>().ok()).find(|ip| ip.is_ipv4() == ipv4)
    };
    of_kind("ExternalIP").or_else(|| of_kind("InternalIP"))
}

/// On the nodes' own addresses a port has one Service: the oldest that asked for it.
pub fn check_ports(key: &Key, wish: &Wish, claims: &[Claim], reserved: &[u16]) -> Result<(), String> {
    if let Some((_, port)) =
        wish.ports.iter().find(|(protocol, port)| protocol == "TCP" && reserved.contains(port))
    {
        return Err(format!("port {port} of the nodes' addresses is in use by the cluster itself"));
    }
    let older = |claim: &&Claim| {
        claim.service != *key
            && (claim.created, &claim.service) < (wish.created, key)
            && !claim.ports.is_disjoint(&wish.ports)
    };
    match claims.iter().find(older) {
        Some(claim) => {
            Err(format!("the Service {} has the same port of the nodes' addresses", claim.service))
        }
        None => Ok(()),
    }
}

/// The nodes that have ready endpoints in a slice.
pub fn ready_nodes(slice: &EndpointSlice) -> Vec<String> {
    let ready = slice.endpoints.iter().flatten().filter(|endpoint| {
        endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
    });
    ready.filter_map(|endpoint| endpoint.node_name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn wish(spec: Value, present: &[&str]) -> Option<Wish> {
        let ingress: Vec<Value> = present.iter().map(|ip| json!({"ip": ip})).collect();
        let service = json!({"metadata": {"name": "s"}, "spec": spec, "status": {"loadBalancer": {"ingress": ingress}}});
        Wish::read(&serde_json::from_value(service).unwrap())
    }

    fn plain() -> Value {
        json!({"type": "LoadBalancer", "ipFamilies": ["IPv4"], "ports": [{"port": 80, "protocol": "TCP"}]})
    }

    fn node(name: &str, ready: bool, extra: Value) -> Arc<Node> {
        let mut node = json!({"metadata": {"name": name, "labels": {}}, "status": {
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
            "addresses": [{"type": "InternalIP", "address": format!("192.0.2.{name}")}]}});
        for (field, value) in extra.as_object().unwrap() {
            match field.as_str() {
                "label" => node["metadata"]["labels"][value.as_str().unwrap()] = json!(""),
                _ => node["status"]["addresses"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!({"type": field, "address": value})),
            }
        }
        Arc::new(serde_json::from_value(node).unwrap())
    }

    #[test]
    fn only_our_own_services_are_served() {
        assert!(wish(plain(), &[]).is_some());
        let with = |class: &str| {
            let mut spec = plain();
            spec["loadBalancerClass"] = json!(class);
            wish(spec, &[]).is_some()
        };
        assert_eq!((with(CLASS), with("example.com/internal-vip")), (true, false));
        assert!(wish(json!({"type": "NodePort"}), &[]).is_none());
    }

    #[test]
    fn pool_addresses_are_kept_asked_for_or_the_first_free_ones() {
        let pool: Vec<IpNet> = vec!["192.0.2.0/30".parse().unwrap(), "fd00::/126".parse().unwrap()];
        let taken: BTreeMap<IpAddr, Key> = [("192.0.2.1".parse().unwrap(), Key::new("d", "other"))].into();
        let check = |spec: Value, present: &[&str]| -> String {
            match pool_addresses(&pool, &wish(spec, present).unwrap(), &taken) {
                Ok(addresses) => addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
                Err(problem) => problem,
            }
        };
        assert_eq!(check(plain(), &[]), "192.0.2.2");
        let mut both = plain();
        both["ipFamilies"] = json!(["IPv6", "IPv4"]);
        assert_eq!(check(both.clone(), &[]), "fd00::1 192.0.2.2");
        assert_eq!(check(both, &["fd00::3", "10.0.0.1"]), "fd00::3 192.0.2.2");
        let asked = |address: &str| {
            let mut spec = plain();
            spec["loadBalancerIP"] = json!(address);
            spec
        };
        assert_eq!(check(asked("192.0.2.2"), &[]), "192.0.2.2");
        assert_eq!(check(asked("192.0.2.1"), &[]), "192.0.2.1 is used by the Service d/other");
        assert_eq!(check(asked("10.0.0.1"), &[]), "10.0.0.1 is not in the load balancers' pool");
        let single = pool_addresses(&["192.0.2.1/32".parse().unwrap()], &wish(plain(), &[]).unwrap(), &taken);
        assert_eq!(single.unwrap_err(), "all addresses of the load balancers' pool are in use");
    }

    #[test]
    fn node_addresses_are_those_of_ready_nodes() {
        let nodes = [
            node("3", true, json!({})),
            node("1", true, json!({"ExternalIP": "203.0.113.1"})),
            node("2", false, json!({})),
            node("4", true, json!({"label": EXCLUDED})),
        ];
        let plain = wish(plain(), &[]).unwrap();
        let show = |addresses: Vec<IpAddr>| addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(show(node_addresses(&nodes, None, &plain)), ["203.0.113.1", "192.0.2.3"]);
        let local = ["3".to_owned()].into();
        assert_eq!(show(node_addresses(&nodes, Some(&local), &plain)), ["192.0.2.3"]);
    }

    #[test]
    fn a_port_of_the_nodes_has_one_service() {
        let claim = |name: &str, created: i64| Claim {
            service: Key::new("d", name),
            addresses: vec![],
            ports: [("TCP".to_owned(), 80)].into(),
            created: Some(jiff::Timestamp::from_second(created).unwrap()),
        };
        let wish =
            Wish { created: Some(jiff::Timestamp::from_second(5).unwrap()), ..wish(plain(), &[]).unwrap() };
        let check =
            |claims: &[Claim], reserved: &[u16]| check_ports(&Key::new("d", "m"), &wish, claims, reserved);
        assert_eq!(check(&[claim("m", 1), claim("later", 6)], &[6443]), Ok(()));
        assert!(check(&[claim("earlier", 4)], &[]).unwrap_err().contains("d/earlier"));
        assert!(check(&[claim("a", 5)], &[]).is_err(), "of the same age the first name counts");
        assert!(check(&[], &[80]).unwrap_err().contains("the cluster itself"));
        let udp = Claim { ports: [("UDP".to_owned(), 80)].into(), ..claim("earlier", 4) };
        assert_eq!(check(&[udp], &[]), Ok(()));
    }
}
