//! Pod ranges of nodes: every Node without one gets the next free part of the cluster's ranges.
//!
//! A range is given once and belongs to the Node as long as that exists; the API lets nobody change it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use client::{Cache, Caches, Patch, target_of};
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use machinery::{Key, Object};
use parking_lot::Mutex;
use reconcile::plan::named;
use reconcile::{Action, Controller, Input, Plan, Reference};
use serde::Deserialize;
use serde_json::json;

/// Where nodes' ranges come from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeRanges {
    /// The cluster's ranges, at most one of each family, each with the prefix length that a node gets of it.
    pub ranges: Vec<(IpNet, u8)>,
    /// The node that has the first part of each, before it is even registered: the server's own.
    pub first: Option<String>,
}

/// The controller.
pub struct NodeIpam {
    nodes: Cache,
    ranges: NodeRanges,
    given: Mutex<Given>,
}

/// Who has which part of the cluster's ranges, by its number.
#[derive(Debug, Default)]
struct Given {
    is_loaded: bool,
    by_node: BTreeMap<String, u128>,
    used: BTreeSet<u128>,
}

impl NodeIpam {
    pub fn new(caches: &Caches, ranges: NodeRanges) -> Self {
        Self { nodes: caches.of::<Node>(), ranges, given: Mutex::default() }
    }

    fn load(&self, given: &mut Given) {
        given.is_loaded = true;
        if let Some(first) = &self.ranges.first {
            given.take(first, 0);
        }
        for node in self.nodes.all() {
            if let Some(number) = self.ranges.number_of(&node_ranges(&node)) {
                given.take(&node.meta().name, number);
            }
        }
    }
}

impl Controller for NodeIpam {
    fn name(&self) -> &'static str {
        "node-ipam-controller"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::own(self.nodes.clone())]
    }

    fn plan(&self, key: &Key, _now: Timestamp) -> Plan {
        let mut given = self.given.lock();
        if !given.is_loaded {
            self.load(&mut given);
        }
        let Some(node) = self.nodes.get(key) else {
            if self.ranges.first.as_ref() != Some(&key.name) {
                given.release(&key.name);
            }
            return Plan::nothing();
        };
        let present = node_ranges(&node);
        if !present.is_empty() {
            if let Some(number) = self.ranges.number_of(&present) {
                given.take(&key.name, number);
            }
            return Plan::nothing();
        }
        let action = match given.give(&key.name, self.ranges.count()) {
            Some(number) => assign(&node, &self.ranges.part(number)),
            None => {
                let message = format!("Node {} status is now: CIDRNotAvailable", key.name);
                Action::warning(Reference::new("v1", "Node", &node), "CIDRNotAvailable", message)
            }
        };
        Plan { actions: vec![action], ..Plan::nothing() }
    }
}

fn assign(node: &Object, ranges: &[IpNet]) -> Action {
    let patch = json!({"spec": {"podCIDR": ranges.first(), "podCIDRs": ranges}});
    Action::Patch { target: named(target_of::<Node>(""), node), patch: Patch::StrategicMerge(patch) }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Spec {
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<IpNet>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Projection {
    spec: Spec,
}

/// The ranges that a node has. Only this part is decoded: Nodes are large and change often.
pub fn node_ranges(node: &Object) -> Vec<IpNet> {
    serde_json::from_slice::<Projection>(node.stored()).unwrap_or_default().spec.pod_cidrs
}

impl Given {
    fn take(&mut self, node: &str, number: u128) {
        self.release(node);
        self.by_node.insert(node.to_owned(), number);
        self.used.insert(number);
    }

    fn release(&mut self, node: &str) {
        if let Some(number) = self.by_node.remove(node) {
            self.used.remove(&number);
        }
    }

    /// The number that a node has, or else the first free one.
    fn give(&mut self, node: &str, count: u128) -> Option<u128> {
        if let Some(number) = self.by_node.get(node) {
            return Some(*number);
        }
        // The used numbers are in order: the first gap is free.
        let mut free = 0;
        for used in &self.used {
            if *used != free {
                break;
            }
            free += 1;
        }
        if free >= count {
            return None;
        }
        self.take(node, free);
        Some(free)
    }
}

impl NodeRanges {
    /// How many nodes there can be.
    fn count(&self) -> u128 {
        let parts = self
            .ranges
            .iter()
            .map(|(range, prefix)| 1u128 << (prefix.saturating_sub(range.prefix_len())).min(64));
        parts.min().unwrap_or(0)
    }

    /// What the node that is named `first` has.
    pub fn first_parts(&self) -> Vec<IpNet> {
        self.part(0)
    }

    /// The parts with that number.
    fn part(&self, number: u128) -> Vec<IpNet> {
        self.ranges.iter().filter_map(|(range, prefix)| part(*range, *prefix, number)).collect()
    }

    /// The number of the parts that a node has; `None` when they are not of the cluster's ranges.
    fn number_of(&self, parts: &[IpNet]) -> Option<u128> {
        let (range, prefix) = self.ranges.first()?;
        let found = parts.iter().find(|found| range.contains(*found) && found.prefix_len() == *prefix)?;
        let shift = u32::from(range.max_prefix_len() - prefix);
        Some((bits(found.network()) - bits(range.network())) >> shift)
    }
}

fn part(range: IpNet, prefix: u8, number: u128) -> Option<IpNet> {
    let shift = u32::from(range.max_prefix_len().checked_sub(prefix)?);
    let base = bits(range.network()) + (number << shift);
    let address: IpAddr = match range {
        IpNet::V4(_) => Ipv4Addr::from(base as u32).into(),
        IpNet::V6(_) => Ipv6Addr::from(base).into(),
    };
    IpNet::new(address, prefix).ok()
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(ranges: &[(&str, u8)]) -> NodeRanges {
        let ranges = ranges.iter().map(|(range, prefix)| (range.parse().unwrap(), *prefix)).collect();
        NodeRanges { ranges, first: None }
    }

    #[test]
    fn parts_are_numbered_in_both_families() {
        let ranges = ranges(&[("10.42.0.0/16", 24), ("fd00:42::/56", 64)]);
        assert_eq!(ranges.count(), 256);
        for (number, expected) in [
            (0, ["10.42.0.0/24", "fd00:42::/64"]),
            (7, ["10.42.7.0/24", "fd00:42:0:7::/64"]),
            (255, ["10.42.255.0/24", "fd00:42:0:ff::/64"]),
        ] {
            let part = ranges.part(number);
            assert_eq!(part.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
            assert_eq!(ranges.number_of(&part), Some(number));
        }
        assert_eq!(ranges.number_of(&["10.50.0.0/24".parse().unwrap()]), None);
        assert_eq!(ranges.number_of(&["10.42.0.0/25".parse().unwrap()]), None);
    }

    #[test]
    fn the_first_free_part_is_given_and_kept() {
        let mut given = Given::default();
        assert_eq!(["a", "b", "c"].map(|node| given.give(node, 3)), [Some(0), Some(1), Some(2)]);
        assert_eq!((given.give("b", 3), given.give("d", 3)), (Some(1), None));
        given.release("b");
        assert_eq!(given.give("d", 3), Some(1));
        given.take("e", 9);
        given.take("a", 9);
        assert_eq!(
            given.give("f", 30),
            Some(0),
            "a node that turns out to have another part frees its first one"
        );
    }
}
