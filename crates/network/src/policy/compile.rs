//! What the policies that select this node's pods mean for packets: a pure function.
//!
//! Pods that the same policies select share a chain; a pod's address leads to its chain. A chain's rules name sets by
//! the number of the policy's rule, so a pod that comes or goes changes elements and no rules.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use machinery::Key;

use super::model::{Peer, Pod, Policy, Port, Rule, World};

/// From whose side a connection is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// To a pod of this node.
    Ingress,
    /// From a pod of this node.
    Egress,
}

/// Which other side a rule asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerTest {
    Anybody,
    Pods,
    Blocks,
}

/// Which ports a rule asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortTest {
    Any,
    Ranges,
    /// Of the pod that is connected to.
    Named,
}

/// A rule of a chain: what passes both tests is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Allow {
    /// The number under which the sets have its peers and ports.
    pub rule: u32,
    pub peers: PeerTest,
    pub ports: PortTest,
}

/// A chain: what none of the rules allows is dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub direction: Direction,
    pub allows: Vec<Allow>,
}

/// An element of one of the sets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entry {
    /// Packets of a pod are the concern of a chain.
    Isolated {
        direction: Direction,
        pod: IpAddr,
        chain: String,
    },
    /// A pod may always speak to itself.
    Own {
        pod: IpAddr,
    },
    Peer {
        rule: u32,
        address: IpAddr,
    },
    Block {
        rule: u32,
        range: IpNet,
    },
    Port {
        rule: u32,
        protocol: u8,
        from: u16,
        to: u16,
    },
    Named {
        rule: u32,
        address: IpAddr,
        protocol: u8,
        port: u16,
    },
}

/// What is to be there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    pub chains: BTreeMap<String, Chain>,
    pub entries: BTreeSet<Entry>,
}

/// A pod of this node and the addresses that it has been given.
pub type Attached = BTreeMap<Key, Vec<IpAddr>>;

/// Compiles the policies of the pods that are attached here.
pub fn compile(world: &World, attached: &Attached) -> Desired {
    let mut compiler = Compiler { world, desired: Desired::default(), numbers: BTreeMap::new() };
    for (key, addresses) in attached {
        let Some(pod) = world.pods.get(key) else { continue };
        for direction in [Direction::Ingress, Direction::Egress] {
            compiler.isolate(key, pod, addresses, direction);
        }
    }
    compiler.desired
}

/// The policies that isolate a pod in a direction.
fn selecting<'a>(world: &'a World, key: &Key, pod: &Pod, direction: Direction) -> Vec<(&'a Key, &'a [Rule])> {
    let first = Key::new(&*key.namespace, "");
    let in_namespace =
        world.policies.range(first..).take_while(|(policy, _)| policy.namespace == key.namespace);
    let selected = in_namespace.filter(|(_, policy)| policy.pods.matches(&pod.labels));
    selected.filter_map(|(key, policy)| Some((key, rules(policy, direction)?))).collect()
}

fn rules(policy: &Policy, direction: Direction) -> Option<&[Rule]> {
    match direction {
        Direction::Ingress => policy.ingress.as_deref(),
        Direction::Egress => policy.egress.as_deref(),
    }
}

struct Compiler<'a> {
    world: &'a World,
    desired: Desired,
    /// Which rule has a number; numbers follow from the rule's place, so that they stay the same.
    numbers: BTreeMap<u32, (Key, Direction, usize)>,
}

impl Compiler<'_> {
    fn isolate(&mut self, key: &Key, pod: &Pod, addresses: &[IpAddr], direction: Direction) {
        let policies = selecting(self.world, key, pod, direction);
        if policies.is_empty() {
            return;
        }
        let names: Vec<String> = policies.iter().map(|(policy, _)| policy.to_string()).collect();
        let side = if direction == Direction::Ingress { "in" } else { "out" };
        let chain = format!("{side}-{:016x}", hash(&names.join(" ")));
        let is_new = !self.desired.chains.contains_key(&chain);
        let mut allows = Vec::new();
        for (policy, rules) in policies {
            for (index, rule) in rules.iter().enumerate() {
                let number = self.number(policy, direction, index);
                self.entries_of(number, rule, policy, direction, (pod, addresses));
                allows.extend(tests(rule).into_iter().map(|(peers, ports)| Allow {
                    rule: number,
                    peers,
                    ports,
                }));
            }
        }
        if is_new {
            self.desired.chains.insert(chain.clone(), Chain { direction, allows });
        }
        for address in addresses {
            self.add(Entry::Isolated { direction, pod: *address, chain: chain.clone() });
            self.add(Entry::Own { pod: *address });
        }
    }

    fn add(&mut self, entry: Entry) {
        self.desired.entries.insert(entry);
    }

    fn number(&mut self, policy: &Key, direction: Direction, index: usize) -> u32 {
        let rule = (policy.clone(), direction, index);
        let mut number = hash(&format!("{policy} {direction:?} {index}")) as u32;
        while self.numbers.get(&number).is_some_and(|other| *other != rule) {
            number = number.wrapping_add(1);
        }
        self.numbers.insert(number, rule);
        number
    }

    /// The elements by which a rule is tested, for one pod that its policy selects.
    fn entries_of(
        &mut self,
        rule: u32,
        what: &Rule,
        policy: &Key,
        direction: Direction,
        (pod, addresses): (&Pod, &[IpAddr]),
    ) {
        let world = self.world;
        let peers: Vec<&Pod> = world
            .pods
            .iter()
            .filter(|(key, pod)| what.peers.iter().any(|peer| meets(peer, policy, key, pod, world)))
            .map(|(_, pod)| pod)
            .collect();
        for peer in &peers {
            peer.addresses.iter().for_each(|address| self.add(Entry::Peer { rule, address: *address }));
        }
        let blocks = what.peers.iter().filter_map(|peer| match peer {
            Peer::Block(ranges) => Some(ranges.clone()),
            Peer::Pods { .. } => None,
        });
        // Ranges of one rule must not overlap in its set.
        for range in IpNet::aggregate(&blocks.flatten().collect()) {
            self.add(Entry::Block { rule, range });
        }
        for port in &what.ports {
            match port {
                Port::Range { .. } => {}
                Port::Named { protocol, name } => match direction {
                    Direction::Ingress => self.named(rule, pod, addresses, *protocol, name),
                    Direction::Egress if what.peers.is_empty() => world
                        .pods
                        .values()
                        .for_each(|peer| self.named(rule, peer, &peer.addresses, *protocol, name)),
                    Direction::Egress => {
                        peers
                            .iter()
                            .for_each(|peer| self.named(rule, peer, &peer.addresses, *protocol, name));
                    }
                },
            }
        }
        for (protocol, from, to) in merged_ranges(&what.ports) {
            self.add(Entry::Port { rule, protocol, from, to });
        }
    }

    /// The ports of that name that a pod has.
    fn named(&mut self, rule: u32, pod: &Pod, addresses: &[IpAddr], protocol: u8, name: &str) {
        for port in pod.ports.iter().filter(|port| port.name == name && port.protocol == protocol) {
            for address in addresses {
                self.add(Entry::Named { rule, address: *address, protocol, port: port.number });
            }
        }
    }
}

/// Whether a pod is one of a peer's.
fn meets(peer: &Peer, policy: &Key, key: &Key, pod: &Pod, world: &World) -> bool {
    let Peer::Pods { pods, namespaces } = peer else { return false };
    let in_namespace = match namespaces {
        None => key.namespace == policy.namespace,
        Some(selector) => world.namespaces.get(&key.namespace).is_some_and(|labels| selector.matches(labels)),
    };
    in_namespace && pods.matches(&pod.labels)
}

/// The combinations of tests that a rule needs.
fn tests(rule: &Rule) -> Vec<(PeerTest, PortTest)> {
    let has_block = rule.peers.iter().any(|peer| matches!(peer, Peer::Block(_)));
    let has_pods = rule.peers.iter().any(|peer| matches!(peer, Peer::Pods { .. }));
    let has_named = rule.ports.iter().any(|port| matches!(port, Port::Named { .. }));
    let has_range = rule.ports.iter().any(|port| matches!(port, Port::Range { .. }));
    let peers = [
        (rule.peers.is_empty(), PeerTest::Anybody),
        (has_pods, PeerTest::Pods),
        (has_block, PeerTest::Blocks),
    ];
    let ports =
        [(rule.ports.is_empty(), PortTest::Any), (has_range, PortTest::Ranges), (has_named, PortTest::Named)];
    let peers = peers.into_iter().filter(|(needed, _)| *needed);
    peers
        .flat_map(|(_, peer)| ports.iter().filter(|(needed, _)| *needed).map(move |(_, port)| (peer, *port)))
        .collect()
}

/// The numeric ports, by protocol, without overlaps.
fn merged_ranges(ports: &[Port]) -> Vec<(u8, u16, u16)> {
    let mut ranges: Vec<(u8, u16, u16)> = ports
        .iter()
        .filter_map(|port| match port {
            Port::Range { protocol, from, to } => Some((*protocol, *from, *to)),
            Port::Named { .. } => None,
        })
        .collect();
    ranges.sort_unstable();
    let mut merged: Vec<(u8, u16, u16)> = Vec::new();
    for (protocol, from, to) in ranges {
        match merged.last_mut() {
            Some(last) if last.0 == protocol && u32::from(from) <= u32::from(last.2) + 1 => {
                last.2 = last.2.max(to)
            }
            _ => merged.push((protocol, from, to)),
        }
    }
    merged
}

/// FNV-1a: the same on every machine and after every restart.
fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests;
