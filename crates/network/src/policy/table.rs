//! The packet filter's side of policies: a table of named sets, and chains that ask them.
//!
//! Only the first packet of a connection is judged, where it is forwarded: between pods, also of this node, and from
//! and to everything else. What this machine itself sends to its pods, such as probes, passes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use linux::net::{NetlinkError, Protocol, Socket};
use linux::nft::key::Fields;
use linux::nft::{
    self, Batch, Chain as NftChain, Comparison, ConntrackKey, Element, Expression, Family, Hook, HookKind,
    MetaKey, NftError, PayloadBase, Register, Set, Type, Value, Verdict,
};

use super::compile::{Allow, Chain, Desired, Direction, Entry, PeerTest, PortTest};

const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
const WORK: Register = Register(15);

type Rule = Vec<Expression>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Map {
    Ingress,
    Egress,
    Own,
    Peers,
    Blocks,
    Named,
    /// Of both families: ports have none.
    Ports,
}

const MAPS: [Map; 6] = [Map::Ingress, Map::Egress, Map::Own, Map::Peers, Map::Blocks, Map::Named];

impl Map {
    fn name(self, ipv4: bool) -> String {
        let name = match self {
            Self::Ports => return "ports".to_owned(),
            Self::Ingress => "ingress",
            Self::Egress => "egress",
            Self::Own => "own",
            Self::Peers => "peers",
            Self::Blocks => "blocks",
            Self::Named => "named",
        };
        format!("{name}{}", if ipv4 { 4 } else { 6 })
    }

    fn set(self, ipv4: bool) -> Set {
        let address = if ipv4 { Type::Ipv4 } else { Type::Ipv6 };
        let name = self.name(ipv4);
        match self {
            Self::Ingress | Self::Egress => Set::verdict_map(&name, &[address]),
            Self::Own => Set::members(&name, &[address, address]),
            Self::Peers => Set::members(&name, &[Type::Mark, address]),
            Self::Blocks => Set::members(&name, &[Type::Mark, address]).with_intervals(),
            Self::Named => Set::members(&name, &[Type::Mark, address, Type::Protocol, Type::Port]),
            Self::Ports => Set::members(&name, &[Type::Mark, Type::Protocol, Type::Port]).with_intervals(),
        }
    }
}

/// The table in the kernel.
pub struct Table {
    socket: Socket,
    name: String,
    /// What is in it; `None` when that is not known.
    present: Option<Desired>,
}

impl Table {
    /// A table of that name; nothing is done yet.
    pub fn open(name: &str) -> Result<Self, NetlinkError> {
        Ok(Self { socket: Socket::open(Protocol::Netfilter)?, name: name.to_owned(), present: None })
    }

    /// Brings the table into that state, in one transaction; with nothing desired there is no table.
    pub fn apply(&mut self, desired: Desired) -> Result<(), NftError> {
        let empty = Desired::default();
        if self.present.as_ref() == Some(&desired) {
            return Ok(());
        }
        let present = self.present.take();
        if desired == empty {
            nft::delete_table(&mut self.socket, Family::Inet, &self.name)?;
        } else {
            let mut batch = Batch::new(Family::Inet, &self.name);
            let from = match present.filter(|present| *present != empty) {
                Some(present) => present,
                None => {
                    frame(&mut batch);
                    empty
                }
            };
            change(&mut batch, &from, &desired);
            batch.commit(&mut self.socket)?;
        }
        self.present = Some(desired);
        Ok(())
    }
}

/// What is always there.
fn frame(batch: &mut Batch) {
    batch.replace_table();
    for ipv4 in [true, false] {
        MAPS.iter().for_each(|map| batch.add_set(&map.set(ipv4)));
    }
    batch.add_set(&Map::Ports.set(true));
    let forward = NftChain::base("forward", HookKind::Filter, Hook::Forward, -5);
    batch.add_chain(&forward);
    batch.add_rule(&forward.name, &going_on());
    for ipv4 in [true, false] {
        let own = [
            is_family(ipv4),
            vec![address(ipv4, Register(0), false), address(ipv4, Register(words(ipv4)), true)],
            contains(Map::Own, ipv4),
            vec![Expression::Verdict(Verdict::Accept)],
        ];
        batch.add_rule(&forward.name, &own.concat());
        for (map, destination) in [(Map::Egress, false), (Map::Ingress, true)] {
            let mut rule = is_family(ipv4);
            rule.push(address(ipv4, Register(0), destination));
            rule.push(Expression::VerdictMap { set: map.name(ipv4), key: Register(0) });
            batch.add_rule(&forward.name, &rule);
        }
    }
}

/// Connections that were allowed once go on.
fn going_on() -> Rule {
    let mask = ESTABLISHED_OR_RELATED.to_ne_bytes().to_vec();
    vec![
        Expression::Conntrack { key: ConntrackKey::State, direction: None, to: WORK },
        Expression::Bitwise { from: WORK, to: WORK, mask, xor: vec![0; 4] },
        Expression::Compare { register: WORK, comparison: Comparison::NotEqual, value: vec![0; 4] },
        Expression::Verdict(Verdict::Accept),
    ]
}

/// The difference: chains first, since elements lead to them; old chains last.
fn change(batch: &mut Batch, from: &Desired, to: &Desired) {
    for (name, chain) in &to.chains {
        let before = from.chains.get(name);
        if before == Some(chain) {
            continue;
        }
        match before {
            Some(_) => batch.flush_chain(name),
            None => batch.add_chain(&NftChain::regular(name.clone())),
        }
        rules(chain).iter().for_each(|rule| batch.add_rule(name, rule));
    }
    for (set, elements) in elements(from.entries.difference(&to.entries)) {
        batch.delete_elements(&set, &elements);
    }
    for (set, elements) in elements(to.entries.difference(&from.entries)) {
        batch.add_elements(&set, &elements);
    }
    for name in from.chains.keys().filter(|name| !to.chains.contains_key(*name)) {
        batch.flush_chain(name);
        batch.delete_chain(name);
    }
}

fn rules(chain: &Chain) -> Vec<Rule> {
    let each = chain.allows.iter().flat_map(|allow| match (allow.peers, allow.ports) {
        // Without addresses in the question there is one rule for both families.
        (PeerTest::Anybody, PortTest::Any | PortTest::Ranges) => {
            vec![allow_rule(chain.direction, *allow, None)]
        }
        _ => [true, false].map(|ipv4| allow_rule(chain.direction, *allow, Some(ipv4))).into(),
    });
    each.chain([vec![Expression::Verdict(Verdict::Drop)]]).collect()
}

/// Goes back to where the chain was called when all tests are met.
fn allow_rule(direction: Direction, allow: Allow, ipv4: Option<bool>) -> Rule {
    let number = Expression::Load { to: Register(0), value: allow.rule.to_ne_bytes().to_vec() };
    let mut rule = ipv4.map(is_family).unwrap_or_default();
    rule.push(number);
    let peers = match allow.peers {
        PeerTest::Anybody => None,
        PeerTest::Pods => Some(Map::Peers),
        PeerTest::Blocks => Some(Map::Blocks),
    };
    if let (Some(map), Some(ipv4)) = (peers, ipv4) {
        rule.push(address(ipv4, Register(1), direction == Direction::Egress));
        rule.extend(contains(map, ipv4));
    }
    match (allow.ports, ipv4) {
        (PortTest::Any, _) => {}
        (PortTest::Named, Some(ipv4)) => {
            rule.push(address(ipv4, Register(1), true));
            rule.extend(port(Register(1 + words(ipv4))));
            rule.extend(contains(Map::Named, ipv4));
        }
        (PortTest::Ranges | PortTest::Named, _) => {
            rule.extend(port(Register(1)));
            rule.extend(contains(Map::Ports, true));
        }
    }
    rule.push(Expression::Verdict(Verdict::Return));
    rule
}

fn words(ipv4: bool) -> u32 {
    if ipv4 { 1 } else { 4 }
}

fn is_family(ipv4: bool) -> Rule {
    let value = vec![if ipv4 { 2 } else { 10 }];
    vec![
        Expression::Meta { key: MetaKey::NetworkProtocol, to: WORK },
        Expression::Compare { register: WORK, comparison: Comparison::Equal, value },
    ]
}

fn address(ipv4: bool, to: Register, destination: bool) -> Expression {
    let (offset, length) = match (ipv4, destination) {
        (true, false) => (12, 4),
        (true, true) => (16, 4),
        (false, false) => (8, 16),
        (false, true) => (24, 16),
    };
    Expression::Payload { base: PayloadBase::Network, offset, length, to }
}

/// The transport protocol and, behind it, the destination port.
fn port(to: Register) -> Rule {
    let number = Register(to.0 + 1);
    vec![
        Expression::Meta { key: MetaKey::TransportProtocol, to },
        Expression::Payload { base: PayloadBase::Transport, offset: 2, length: 2, to: number },
    ]
}

fn contains(map: Map, ipv4: bool) -> Rule {
    vec![Expression::Contains { set: map.name(ipv4), key: Register(0), invert: false }]
}

/// Elements by the set that they are of.
fn elements<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<(Set, Vec<Element>)> {
    let mut by_map: BTreeMap<(Map, bool), BTreeSet<Element>> = BTreeMap::new();
    for entry in entries {
        let (map, ipv4, element) = element(entry);
        by_map.entry((map, ipv4)).or_default().insert(element);
    }
    by_map
        .into_iter()
        .map(|((map, ipv4), elements)| (map.set(ipv4), elements.into_iter().collect()))
        .collect()
}

fn element(entry: &Entry) -> (Map, bool, Element) {
    let of = |address: IpAddr| Fields::new().ip(address);
    let numbered = |rule: u32| Fields::new().mark(rule);
    match entry {
        Entry::Isolated { direction, pod, chain } => {
            let map = if *direction == Direction::Ingress { Map::Ingress } else { Map::Egress };
            let jump = Value::Verdict(Verdict::Jump(chain.clone()));
            (map, pod.is_ipv4(), Element::new(of(*pod).bytes(), jump))
        }
        Entry::Own { pod } => (Map::Own, pod.is_ipv4(), Element::member(of(*pod).ip(*pod).bytes())),
        Entry::Peer { rule, address } => {
            (Map::Peers, address.is_ipv4(), Element::member(numbered(*rule).ip(*address).bytes()))
        }
        Entry::Block { rule, range } => (Map::Blocks, range.addr().is_ipv4(), block(*rule, *range)),
        Entry::Port { rule, protocol, from, to } => {
            let key = |port: u16| numbered(*rule).protocol(*protocol).port(port).bytes();
            let element = Element { key: key(*from), key_end: Some(key(*to)), ..Element::default() };
            (Map::Ports, true, element)
        }
        Entry::Named { rule, address, protocol, port } => {
            let key = numbered(*rule).ip(*address).protocol(*protocol).port(*port);
            (Map::Named, address.is_ipv4(), Element::member(key.bytes()))
        }
    }
}

fn block(rule: u32, range: IpNet) -> Element {
    let key = |address: IpAddr| Fields::new().mark(rule).ip(address).bytes();
    Element { key: key(range.network()), key_end: Some(key(range.broadcast())), ..Element::default() }
}

/// Removes a table of that name.
pub fn teardown(name: &str) -> Result<(), crate::NetworkError> {
    let mut socket =
        Socket::open(Protocol::Netfilter).map_err(crate::kernel::doing("cannot open a netfilter socket"))?;
    Ok(nft::delete_table(&mut socket, Family::Inet, name)?)
}
