//! NetworkPolicies, pods and namespaces as far as they matter to packets, read from the API's objects.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use machinery::selector::LabelSelector;
use machinery::{Key, Object};
use serde::Deserialize;
use serde_json::Value;

/// Labels of a pod or namespace.
pub type Labels = BTreeMap<String, String>;

/// All that decides which packets pass.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub namespaces: BTreeMap<String, Labels>,
    pub pods: BTreeMap<Key, Pod>,
    pub policies: BTreeMap<Key, Policy>,
}

/// A pod with a network of its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    pub uid: String,
    pub labels: Labels,
    pub node: String,
    /// Empty until the API knows them, and again when it has ended.
    pub addresses: Vec<IpAddr>,
    pub ports: Vec<NamedPort>,
}

/// A port that a pod's container gives a name.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedPort {
    pub name: String,
    pub protocol: u8,
    pub number: u16,
}

/// A NetworkPolicy. A direction that is `None` is not its concern.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub pods: LabelSelector,
    pub ingress: Option<Vec<Rule>>,
    pub egress: Option<Vec<Rule>>,
}

/// What a policy allows: packets from (or to) any of the peers, if there are any, on any of the ports, if there are
/// any.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    pub peers: Vec<Peer>,
    pub ports: Vec<Port>,
}

/// The other side.
#[derive(Clone, Debug, PartialEq)]
pub enum Peer {
    /// Pods, of the policy's own namespace or of those selected.
    Pods { pods: LabelSelector, namespaces: Option<LabelSelector> },
    /// Addresses: what remains of a range without its exceptions.
    Block(Vec<IpNet>),
}

/// The port of the side that is connected to.
#[derive(Clone, Debug, PartialEq)]
pub enum Port {
    Range { protocol: u8, from: u16, to: u16 },
    Named { protocol: u8, name: String },
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ApiPod {
    spec: ApiSpec,
    status: ApiStatus,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ApiSpec {
    node_name: String,
    host_network: bool,
    containers: Vec<ApiContainer>,
    init_containers: Vec<ApiContainer>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ApiContainer {
    ports: Vec<ApiPort>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ApiPort {
    name: String,
    container_port: u16,
    protocol: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ApiStatus {
    phase: String,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<ApiAddress>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ApiAddress {
    ip: String,
}

impl Pod {
    /// `None` for a pod in its machine's network, which no policy concerns.
    pub fn read(object: &Object) -> Option<Self> {
        let pod: ApiPod = serde_json::from_slice(object.stored()).ok()?;
        if pod.spec.host_network {
            return None;
        }
        let ended = matches!(pod.status.phase.as_str(), "Succeeded" | "Failed");
        let addresses = pod.status.pod_ips.iter().filter(|_| !ended);
        let containers = pod.spec.containers.iter().chain(&pod.spec.init_containers);
        let ports = containers.flat_map(|container| &container.ports).filter(|port| !port.name.is_empty());
        let named = ports.filter_map(|port| {
            let protocol = protocol(Some(&port.protocol))?;
            Some(NamedPort { name: port.name.clone(), protocol, number: port.container_port })
        });
        Some(Self {
            uid: object.meta().uid.clone(),
            labels: object.meta().labels.clone(),
            addresses: addresses.filter_map(|address| address.ip.parse().ok()).collect(),
            ports: named.collect(),
            node: pod.spec.node_name,
        })
    }
}

/// The number of a transport protocol; TCP when none is named.
fn protocol(name: Option<&str>) -> Option<u8> {
    match name {
        None | Some("" | "TCP") => Some(6),
        Some("UDP") => Some(17),
        Some("SCTP") => Some(132),
        Some(_) => None,
    }
}

impl Policy {
    /// A part that cannot be read allows nothing.
    pub fn read(object: &Object) -> Self {
        let value: Value = serde_json::from_slice(object.stored()).unwrap_or_default();
        let spec = &value["spec"];
        let types: Vec<&str> = items(&spec["policyTypes"]).iter().filter_map(Value::as_str).collect();
        let has_egress = !items(&spec["egress"]).is_empty();
        let concerns = |direction: &str, default: bool| match types.is_empty() {
            true => default,
            false => types.contains(&direction),
        };
        let rules = |field: &str, side: &str| -> Vec<Rule> {
            items(&spec[field]).iter().filter_map(|rule| read_rule(rule, side)).collect()
        };
        Self {
            pods: LabelSelector::from_value(&spec["podSelector"]).unwrap_or_default(),
            ingress: concerns("Ingress", true).then(|| rules("ingress", "from")),
            egress: concerns("Egress", has_egress).then(|| rules("egress", "to")),
        }
    }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// `None` when there is nothing in it that can be met: the absence of peers or ports would allow all of them.
fn read_rule(rule: &Value, side: &str) -> Option<Rule> {
    let (peers, ports) = (items(&rule[side]), items(&rule["ports"]));
    let rule = Rule {
        peers: peers.iter().filter_map(read_peer).collect(),
        ports: ports.iter().filter_map(read_port).collect(),
    };
    let unmet = (rule.peers.is_empty() && !peers.is_empty()) || (rule.ports.is_empty() && !ports.is_empty());
    (!unmet).then_some(rule)
}

fn read_peer(peer: &Value) -> Option<Peer> {
    let selector = |field: &str| match &peer[field] {
        Value::Null => Ok(None),
        value => LabelSelector::from_value(value).map(Some),
    };
    if let Some(block) = peer.get("ipBlock").filter(|block| !block.is_null()) {
        let range: IpNet = block["cidr"].as_str()?.parse().ok()?;
        let except = items(&block["except"]).iter().filter_map(|range| range.as_str()?.parse().ok());
        return Some(Peer::Block(subtract(range.trunc(), &except.collect::<Vec<_>>())));
    }
    let (pods, namespaces) = (selector("podSelector").ok()?, selector("namespaceSelector").ok()?);
    if pods.is_none() && namespaces.is_none() {
        return None;
    }
    Some(Peer::Pods { pods: pods.unwrap_or_default(), namespaces })
}

fn read_port(port: &Value) -> Option<Port> {
    let protocol = protocol(port["protocol"].as_str())?;
    match &port["port"] {
        Value::Null => Some(Port::Range { protocol, from: 0, to: u16::MAX }),
        Value::String(name) => Some(Port::Named { protocol, name: name.clone() }),
        number => {
            let from = u16::try_from(number.as_u64()?).ok()?;
            let to = port["endPort"].as_u64().and_then(|end| u16::try_from(end).ok()).unwrap_or(from);
            Some(Port::Range { protocol, from, to: to.max(from) })
        }
    }
}

/// A range without others, as the fewest ranges.
pub fn subtract(range: IpNet, except: &[IpNet]) -> Vec<IpNet> {
    if except.iter().any(|other| other.contains(&range)) {
        return Vec::new();
    }
    if !except.iter().any(|other| range.contains(other)) {
        return vec![range];
    }
    // An exception lies within, so there are halves.
    let halves = range.subnets(range.prefix_len() + 1).into_iter().flatten();
    halves.flat_map(|half| subtract(half, except)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn policy(spec: Value) -> Policy {
        let value = json!({"metadata": {"name": "p", "namespace": "d"}, "spec": spec});
        Policy::read(&Object::from_value(&value, 1).unwrap())
    }

    #[test]
    fn ranges_lose_their_exceptions() {
        let check = |range: &str, except: &[&str], expected: &[&str]| {
            let except: Vec<IpNet> = except.iter().map(|range| range.parse().unwrap()).collect();
            let left: Vec<String> =
                subtract(range.parse().unwrap(), &except).iter().map(ToString::to_string).collect();
            assert_eq!(left, expected, "{range}");
        };
        check("10.0.0.0/8", &[], &["10.0.0.0/8"]);
        check("10.0.0.0/30", &["10.0.0.1/32"], &["10.0.0.0/32", "10.0.0.2/31"]);
        check("10.0.0.0/30", &["10.0.0.0/30"], &[]);
        check("10.0.0.0/24", &["10.0.0.0/26", "10.0.0.128/25"], &["10.0.0.64/26"]);
        check("10.0.0.0/24", &["10.1.0.0/24"], &["10.0.0.0/24"]);
        check("0.0.0.0/0", &["128.0.0.0/1"], &["0.0.0.0/1"]);
        check("fd00::/126", &["fd00::2/127"], &["fd00::/127"]);
        check("10.0.0.0/32", &["10.0.0.0/32"], &[]);
    }

    #[test]
    fn directions_follow_the_types_and_the_rules() {
        let directions = |spec: Value| {
            let policy = policy(spec);
            (policy.ingress.map(|rules| rules.len()), policy.egress.map(|rules| rules.len()))
        };
        assert_eq!(directions(json!({})), (Some(0), None));
        assert_eq!(directions(json!({"egress": [{}]})), (Some(0), Some(1)));
        assert_eq!(directions(json!({"policyTypes": ["Egress"], "ingress": [{}]})), (None, Some(0)));
        assert_eq!(directions(json!({"policyTypes": ["Ingress", "Egress"]})), (Some(0), Some(0)));
    }

    #[test]
    fn rules_are_read_and_one_that_cannot_be_met_allows_nothing() {
        let found = policy(json!({"ingress": [{
            "from": [
                {"podSelector": {"matchLabels": {"a": "b"}}},
                {"namespaceSelector": {}},
                {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/9"]}},
            ],
            "ports": [{"port": 80}, {"protocol": "UDP", "port": 5, "endPort": 9}, {"port": "web"}, {"protocol": "SCTP"}],
        }]}));
        let rules = found.ingress.unwrap();
        assert_eq!(rules[0].peers.len(), 3);
        assert_eq!(rules[0].peers[2], Peer::Block(vec!["10.128.0.0/9".parse().unwrap()]));
        let ports = [
            Port::Range { protocol: 6, from: 80, to: 80 },
            Port::Range { protocol: 17, from: 5, to: 9 },
            Port::Named { protocol: 6, name: "web".into() },
            Port::Range { protocol: 132, from: 0, to: 65535 },
        ];
        assert_eq!(rules[0].ports, ports);
        let unmet = policy(json!({"ingress": [{"from": [{}]}, {"ports": [{"protocol": "ICMP"}]}]}));
        assert_eq!(unmet.ingress.unwrap(), []);
    }

    #[test]
    fn pods_are_read_and_those_of_the_machines_network_are_not() {
        let read = |spec: Value, status: Value| {
            let value = json!({"metadata": {"name": "p", "namespace": "d", "uid": "u"}, "spec": spec, "status": status});
            Pod::read(&Object::from_value(&value, 1).unwrap())
        };
        let spec = json!({"nodeName": "n", "containers": [{"ports": [
            {"containerPort": 80}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]}]});
        let pod = read(spec.clone(), json!({"podIPs": [{"ip": "10.42.0.2"}, {"ip": "fd00::2"}]})).unwrap();
        assert_eq!((pod.addresses.len(), pod.node.as_str()), (2, "n"));
        assert_eq!(pod.ports, [NamedPort { name: "dns".into(), protocol: 17, number: 53 }]);
        let ended = read(spec, json!({"phase": "Failed", "podIPs": [{"ip": "10.42.0.2"}]})).unwrap();
        assert!(ended.addresses.is_empty());
        assert_eq!(read(json!({"hostNetwork": true}), json!({})), None);
    }
}
