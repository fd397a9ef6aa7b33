//! The packet filter's side: named maps, the rules that ask them, and the elements that are all that ever changes.
//!
//! A packet's destination is looked up in `frontends`, whose verdict is a chain for the *number* of endpoints:
//! that chain draws a number and looks the endpoint up under it. So the rules depend on nothing but which numbers
//! occur, a change of a Service is a change of elements, and a packet costs the same with one Service as with ten
//! thousand. Only the first packet of a connection comes here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use linux::net::{NetlinkError, Protocol as NetlinkProtocol, Socket};
use linux::nft::key::Fields;
use linux::nft::{
    self, Batch, Chain, Comparison, ConntrackKey, Dynamic, Element, Expression, Family, FibResult, Hook,
    HookKind, MetaKey, NatKind, NftError, PayloadBase, Register, Reject, Set, Type, Value, Verdict,
};

use crate::compile::{Dispatch, Entry, Frontend, Refusal, Scope};
use crate::state::{Changes, StaleFlow};

/// Upstream's mark for packets whose source is to be translated.
const MASQUERADE_MARK: u32 = 0x4000;
const CONNTRACK_NEW: u32 = 8;
const LOCAL_ADDRESS: u32 = 2;
const TCP: u8 = 6;
const UDP: u8 = 17;
const WORK: Register = Register(15);

type Rule = Vec<Expression>;

/// A chain that chooses among that many endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Choice {
    ipv4: bool,
    scope: Scope,
    count: u32,
    affinity_seconds: u32,
}

impl Choice {
    fn name(self) -> String {
        let family = if self.ipv4 { 4 } else { 6 };
        match self.affinity_seconds {
            0 => format!("choose{family}-{:?}-{}", self.scope, self.count),
            seconds => format!("choose{family}-{:?}-{}-{seconds}", self.scope, self.count),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Map {
    Frontends,
    Endpoints,
    Members,
    Affinity,
    Refused,
    Local,
    Guarded,
    Allowed,
}

impl Map {
    const ALL: [Self; 8] = [
        Self::Frontends,
        Self::Endpoints,
        Self::Members,
        Self::Affinity,
        Self::Refused,
        Self::Local,
        Self::Guarded,
        Self::Allowed,
    ];

    fn set(self, ipv4: bool) -> Set {
        let address = if ipv4 { Type::Ipv4 } else { Type::Ipv6 };
        let at = [Type::Mark, address, Type::Protocol, Type::Port];
        let target = [address, Type::Port];
        let name = self.name(ipv4);
        match self {
            Self::Frontends | Self::Refused => Set::verdict_map(&name, &at),
            Self::Endpoints => Set::map(&name, &[&at[..], &[Type::Mark]].concat(), &target),
            Self::Members => Set::members(&name, &[&at[..], &target].concat()),
            Self::Affinity => Set::map(&name, &[&[address], &at[..]].concat(), &target).filled_by_packets(),
            Self::Local => Set::members(&name, &[address, address]),
            Self::Guarded => Set::members(&name, &at),
            Self::Allowed => Set::members(&name, &[&at[..], &[address]].concat()).with_intervals(),
        }
    }

    fn name(self, ipv4: bool) -> String {
        let name = match self {
            Self::Frontends => "frontends",
            Self::Endpoints => "endpoints",
            Self::Members => "members",
            Self::Affinity => "affinity",
            Self::Refused => "refused",
            Self::Local => "local",
            Self::Guarded => "guarded",
            Self::Allowed => "allowed",
        };
        format!("{name}{}", if ipv4 { 4 } else { 6 })
    }
}

/// Where the registers of a lookup are: `client, scope, address, protocol, port, endpoint address, endpoint port`,
/// one behind the other so that every key is a run of them. IPv6 with affinity fills all sixteen.
struct Layout {
    ipv4: bool,
}

impl Layout {
    fn words(&self) -> u32 {
        if self.ipv4 { 1 } else { 4 }
    }

    fn client(&self) -> Register {
        Register(0)
    }

    fn scope(&self) -> Register {
        Register(self.words())
    }

    fn address(&self) -> Register {
        Register(self.words() + 1)
    }

    fn protocol(&self) -> Register {
        Register(self.words() * 2 + 1)
    }

    fn port(&self) -> Register {
        Register(self.words() * 2 + 2)
    }

    /// The drawn number, then the endpoint's address in the same place.
    fn endpoint(&self) -> Register {
        Register(self.words() * 2 + 3)
    }

    fn endpoint_port(&self) -> Register {
        Register(self.words() * 3 + 3)
    }

    fn network(&self, source: bool, to: Register) -> Expression {
        let (offset, length) = match (self.ipv4, source) {
            (true, true) => (12, 4),
            (true, false) => (16, 4),
            (false, true) => (8, 16),
            (false, false) => (24, 16),
        };
        Expression::Payload { base: PayloadBase::Network, offset, length, to }
    }

    /// Only packets of this family.
    fn family(&self) -> Rule {
        vec![
            Expression::Meta { key: MetaKey::NetworkProtocol, to: WORK },
            compare(Comparison::Equal, vec![if self.ipv4 { 2 } else { 10 }]),
        ]
    }

    /// The packet's destination as a key.
    fn key(&self, scope: Scope) -> Rule {
        let address = match scope.any_address() {
            true => Expression::Load { to: self.address(), value: vec![0; 4 * self.words() as usize] },
            false => self.network(false, self.address()),
        };
        vec![
            Expression::Load { to: self.scope(), value: (scope as u32).to_ne_bytes().to_vec() },
            address,
            Expression::Meta { key: MetaKey::TransportProtocol, to: self.protocol() },
            Expression::Payload { base: PayloadBase::Transport, offset: 2, length: 2, to: self.port() },
        ]
    }

    /// Looks the destination up in a verdict map. Ports of the machine count only on the machine's own addresses.
    fn ask(&self, map: Map, scope: Scope) -> Rule {
        let mut rule = self.family();
        if scope.any_address() {
            rule.extend(to_local_address(Comparison::Equal));
        }
        rule.extend(self.key(scope));
        rule.push(Expression::VerdictMap { set: map.name(self.ipv4), key: self.scope() });
        rule
    }

    /// Drops what comes to a guarded frontend from clients who may not ask it.
    fn guard(&self) -> Rule {
        let contains =
            |map: Map, invert| Expression::Contains { set: map.name(self.ipv4), key: self.scope(), invert };
        let mut rule = [self.family(), self.key(Scope::Address)].concat();
        rule.push(contains(Map::Guarded, false));
        rule.push(self.network(true, self.endpoint()));
        rule.push(contains(Map::Allowed, true));
        rule.push(verdict(Verdict::Drop));
        rule
    }

    fn translate(&self) -> Expression {
        let family = if self.ipv4 { Family::Ipv4 } else { Family::Ipv6 };
        let (address, port) = (self.endpoint(), Some(self.endpoint_port()));
        Expression::Nat { kind: NatKind::Destination, family, address, port }
    }

    fn draw(&self, count: u32) -> [Expression; 2] {
        [
            Expression::Random { modulus: count, to: self.endpoint() },
            Expression::Map { set: Map::Endpoints.name(self.ipv4), key: self.scope(), to: self.endpoint() },
        ]
    }
}

fn compare(comparison: Comparison, value: Vec<u8>) -> Expression {
    Expression::Compare { register: WORK, comparison, value }
}

fn to_local_address(comparison: Comparison) -> Rule {
    let kind = Expression::Fib { source: false, result: FibResult::AddressType, to: WORK };
    vec![kind, compare(comparison, LOCAL_ADDRESS.to_ne_bytes().to_vec())]
}

fn within(range: IpNet, source: bool) -> Rule {
    let layout = Layout { ipv4: range.addr().is_ipv4() };
    let to = Register(0);
    let octets = linux::net::address::octets;
    let mut rule = layout.family();
    rule.push(layout.network(source, to));
    let (mask, xor) = (octets(range.netmask()), vec![0; octets(range.network()).len()]);
    rule.push(Expression::Bitwise { from: to, to, mask, xor });
    rule.push(Expression::Compare {
        register: to,
        comparison: Comparison::Equal,
        value: octets(range.network()),
    });
    rule
}

fn verdict(verdict: Verdict) -> Expression {
    Expression::Verdict(verdict)
}

const LAYOUTS: [Layout; 2] = [Layout { ipv4: true }, Layout { ipv4: false }];

/// The rules that are always there.
fn chains(cluster: &[IpNet], services: &[IpNet]) -> Vec<(Chain, Vec<Rule>)> {
    let ask = |map: Map, scopes: &[Scope]| -> Vec<Rule> {
        let each = LAYOUTS.iter().flat_map(|layout| scopes.iter().map(move |scope| layout.ask(map, *scope)));
        each.collect()
    };
    let inside = ask(Map::Frontends, &[Scope::Address, Scope::NodePort]);
    let mut prerouting: Vec<Rule> = LAYOUTS.iter().map(Layout::guard).collect();
    prerouting.extend(
        cluster
            .iter()
            .map(|range| [within(*range, true), vec![verdict(Verdict::Goto("inside".into()))]].concat()),
    );
    prerouting.push(vec![verdict(Verdict::Goto("outside".into()))]);
    // Clients outside see their answers come from the machine they asked, so the endpoint must answer through it:
    // the mark has the source translated. It must not stay on packets that are none of ours.
    let mut outside = ask(Map::Frontends, &[Scope::AddressFromOutside, Scope::NodePortFromOutside]);
    outside.push(set_mark(MASQUERADE_MARK));
    outside.push(vec![verdict(Verdict::Jump("inside".into()))]);
    outside.push(set_mark(0));
    let output = vec![vec![verdict(Verdict::Jump("inside".into()))]];
    let refusals = |scopes: &[Scope]| {
        let rules = ask(Map::Refused, scopes).into_iter();
        rules.map(|rule| [new_connection(), rule].concat()).collect::<Vec<_>>()
    };
    let unknown = services.iter().map(|range| {
        [
            within(*range, false),
            to_local_address(Comparison::NotEqual),
            vec![verdict(Verdict::Goto("refuse".into()))],
        ]
        .concat()
    });
    let elsewhere: Vec<Rule> = refusals(&[Scope::Address]).into_iter().chain(unknown).collect();
    let here = refusals(&[Scope::Address, Scope::NodePort]);
    let both: Vec<Rule> = refusals(&[Scope::NodePort]).into_iter().chain(elsewhere.clone()).collect();
    vec![
        (Chain::regular("inside"), inside),
        (Chain::regular("outside"), outside),
        (Chain::regular("refuse"), refuse()),
        (Chain::base("prerouting", HookKind::Nat, Hook::Prerouting, -100), prerouting),
        (Chain::base("output", HookKind::Nat, Hook::Output, -100), output),
        (Chain::base("postrouting", HookKind::Nat, Hook::Postrouting, 99), postrouting()),
        (Chain::base("refuse-input", HookKind::Filter, Hook::Input, 0), here),
        (Chain::base("refuse-forward", HookKind::Filter, Hook::Forward, 0), elsewhere),
        (Chain::base("refuse-output", HookKind::Filter, Hook::Output, 0), both),
    ]
}

/// Clients learn at once that nobody is there. The kernel limits how many ICMP messages it sends, resets it does not.
fn refuse() -> Vec<Rule> {
    let tcp = vec![
        Expression::Meta { key: MetaKey::TransportProtocol, to: WORK },
        compare(Comparison::Equal, vec![TCP]),
        Expression::Reject(Reject::TcpReset),
    ];
    vec![tcp, vec![Expression::Reject(Reject::PortUnreachable)]]
}

fn new_connection() -> Rule {
    let mask = CONNTRACK_NEW.to_ne_bytes().to_vec();
    vec![
        Expression::Conntrack { key: ConntrackKey::State, direction: None, to: WORK },
        Expression::Bitwise { from: WORK, to: WORK, mask, xor: vec![0; 4] },
        compare(Comparison::NotEqual, vec![0; 4]),
    ]
}

/// Sets or clears our bit of the mark and leaves the others alone.
fn set_mark(bits: u32) -> Rule {
    let mask = (!MASQUERADE_MARK).to_ne_bytes().to_vec();
    vec![
        Expression::Meta { key: MetaKey::Mark, to: WORK },
        Expression::Bitwise { from: WORK, to: WORK, mask, xor: bits.to_ne_bytes().to_vec() },
        Expression::SetMeta { key: MetaKey::Mark, from: WORK },
    ]
}

fn postrouting() -> Vec<Rule> {
    let mask = MASQUERADE_MARK.to_ne_bytes().to_vec();
    let marked = vec![
        Expression::Meta { key: MetaKey::Mark, to: WORK },
        Expression::Bitwise { from: WORK, to: WORK, mask: mask.clone(), xor: vec![0; 4] },
        compare(Comparison::Equal, mask),
    ];
    let mut rules = vec![[marked, set_mark(0), vec![Expression::Masquerade]].concat()];
    for layout in LAYOUTS {
        // A pod that reaches itself through a Service would answer itself directly.
        let (source, destination) = (Register(0), Register(layout.words()));
        let mut rule = layout.family();
        rule.push(layout.network(true, source));
        rule.push(layout.network(false, destination));
        rule.push(Expression::Contains { set: Map::Local.name(layout.ipv4), key: source, invert: false });
        rule.push(Expression::Masquerade);
        rules.push(rule);
    }
    rules
}

fn choice_rules(choice: Choice) -> Vec<Rule> {
    let layout = Layout { ipv4: choice.ipv4 };
    let key = layout.key(choice.scope);
    if choice.affinity_seconds == 0 {
        return vec![[key, layout.draw(choice.count).into(), vec![layout.translate()]].concat()];
    }
    let timeout_ms = u64::from(choice.affinity_seconds) * 1000;
    let affinity = Map::Affinity.name(choice.ipv4);
    let remember = |operation| Expression::Dynamic {
        set: affinity.clone(),
        operation,
        key: layout.client(),
        value: Some(layout.endpoint()),
        timeout_ms,
    };
    // The kernel wants a value even where it is forgotten.
    let no_endpoint = vec![0; 4 * (layout.words() as usize + 1)];
    let forget =
        vec![Expression::Load { to: layout.endpoint(), value: no_endpoint }, remember(Dynamic::Delete)];
    let key = [vec![layout.network(true, layout.client())], key].concat();
    let known = vec![
        Expression::Map { set: affinity.clone(), key: layout.client(), to: layout.endpoint() },
        Expression::Contains { set: Map::Members.name(choice.ipv4), key: layout.scope(), invert: false },
        remember(Dynamic::Update),
        layout.translate(),
    ];
    let draw = [&layout.draw(choice.count)[..], &[remember(Dynamic::Add), layout.translate()]].concat();
    vec![[key.clone(), known].concat(), [key.clone(), forget].concat(), [key, draw].concat()]
}

fn fields(at: &Frontend) -> Fields {
    Fields::new().mark(at.scope as u32).ip(at.address).protocol(at.protocol as u8).port(at.port)
}

fn target(endpoint: &SocketAddr) -> Value {
    Value::Data(Fields::new().ip(endpoint.ip()).port(endpoint.port()).bytes())
}

fn choice(at: &Frontend, to: Dispatch) -> Option<Choice> {
    match to {
        Dispatch::Spread { count, affinity_seconds } => {
            Some(Choice { ipv4: at.address.is_ipv4(), scope: at.scope, count, affinity_seconds })
        }
        Dispatch::Drop => None,
    }
}

/// An entry as an element of its map.
fn element(entry: &Entry) -> (bool, Map, Element) {
    match entry {
        Entry::Frontend { at, to } => {
            let verdict = choice(at, *to).map_or(Verdict::Drop, |choice| Verdict::Goto(choice.name()));
            (at.address.is_ipv4(), Map::Frontends, Element::new(fields(at).bytes(), Value::Verdict(verdict)))
        }
        Entry::Endpoint { at, index, endpoint } => {
            let key = fields(at).mark(*index).bytes();
            (at.address.is_ipv4(), Map::Endpoints, Element::new(key, target(endpoint)))
        }
        Entry::Member { at, endpoint } => {
            let key = fields(at).ip(endpoint.ip()).port(endpoint.port()).bytes();
            (at.address.is_ipv4(), Map::Members, Element::member(key))
        }
        Entry::Refused { at, how } => {
            let verdict = if *how == Refusal::Drop { Verdict::Drop } else { Verdict::Goto("refuse".into()) };
            (at.address.is_ipv4(), Map::Refused, Element::new(fields(at).bytes(), Value::Verdict(verdict)))
        }
        Entry::Guarded { at } => (at.address.is_ipv4(), Map::Guarded, Element::member(fields(at).bytes())),
        Entry::Allowed { at, clients } => {
            let key = |client: IpAddr| fields(at).ip(client).bytes();
            let (first, last) = (key(clients.network()), Some(key(clients.broadcast())));
            (at.address.is_ipv4(), Map::Allowed, Element { key: first, key_end: last, ..Element::default() })
        }
        Entry::Local { pod } => {
            (pod.is_ipv4(), Map::Local, Element::member(Fields::new().ip(*pod).ip(*pod).bytes()))
        }
    }
}

fn elements<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> BTreeMap<(bool, Map), Vec<Element>> {
    let mut elements: BTreeMap<(bool, Map), Vec<Element>> = BTreeMap::new();
    for entry in entries {
        let (ipv4, map, element) = element(entry);
        elements.entry((ipv4, map)).or_default().push(element);
    }
    elements
}

/// The table in the kernel.
pub(crate) struct Table {
    socket: Socket,
    name: String,
    cluster: Vec<IpNet>,
    services: Vec<IpNet>,
    choices: BTreeSet<Choice>,
}

impl Table {
    /// A table of that name; nothing is done yet.
    pub fn open(name: &str, cluster: &[IpNet], services: &[IpNet]) -> Result<Self, NetlinkError> {
        let socket = Socket::open(NetlinkProtocol::Netfilter)?;
        let (cluster, services) = (cluster.to_vec(), services.to_vec());
        Ok(Self { socket, name: name.to_owned(), cluster, services, choices: BTreeSet::new() })
    }

    /// Puts everything in place of whatever has the table's name, in one transaction.
    pub fn replace(&mut self, entries: &[Entry]) -> Result<(), NftError> {
        let mut batch = Batch::new(Family::Inet, &self.name);
        batch.replace_table();
        for (map, ipv4) in Map::ALL.iter().flat_map(|map| [(map, true), (map, false)]) {
            batch.add_set(&map.set(ipv4));
        }
        let chains = chains(&self.cluster, &self.services);
        chains.iter().for_each(|(chain, _)| batch.add_chain(chain));
        for (chain, rules) in &chains {
            rules.iter().for_each(|rule| batch.add_rule(&chain.name, rule));
        }
        self.choices.clear();
        let choices = add_choices(&mut batch, entries, &self.choices);
        add_elements(&mut batch, entries);
        batch.commit(&mut self.socket)?;
        self.choices = choices;
        Ok(())
    }

    /// Applies a difference in one transaction.
    pub fn apply(&mut self, changes: &Changes) -> Result<(), NftError> {
        let mut batch = Batch::new(Family::Inet, &self.name);
        let choices = add_choices(&mut batch, &changes.add, &self.choices);
        for ((ipv4, map), elements) in elements(&changes.remove) {
            batch.delete_elements(&map.set(ipv4), &elements);
        }
        add_elements(&mut batch, &changes.add);
        batch.commit(&mut self.socket)?;
        self.choices.extend(choices);
        Ok(())
    }

    /// Forgets flows that would go on to where nobody answers.
    pub fn forget(&mut self, stale: &BTreeSet<StaleFlow>) -> Result<(), NetlinkError> {
        if stale.is_empty() {
            return Ok(());
        }
        for flow in self.socket.connections(UDP)? {
            let sent_to = SocketAddr::new(flow.original.destination, flow.original.destination_port);
            let went_to = SocketAddr::new(flow.reply.source, flow.reply.source_port);
            if stale.iter().any(|stale| is_stale(stale, sent_to, went_to)) {
                self.socket.forget_connection(&flow.original)?;
            }
        }
        Ok(())
    }

    /// Removes the table.
    pub fn remove(&mut self) -> Result<(), NftError> {
        self.choices.clear();
        nft::delete_table(&mut self.socket, Family::Inet, &self.name)
    }
}

fn is_stale(stale: &StaleFlow, sent_to: SocketAddr, went_to: SocketAddr) -> bool {
    let any = stale.at.scope.any_address();
    let same_address = |address: IpAddr| {
        any && address.is_ipv4() == stale.at.address.is_ipv4() || address == stale.at.address
    };
    sent_to.port() == stale.at.port
        && same_address(sent_to.ip())
        && match stale.endpoint {
            Some(endpoint) => went_to == endpoint,
            None => went_to == sent_to,
        }
}

/// Adds the chains that the entries need and that are not there yet; returns those.
fn add_choices(batch: &mut Batch, entries: &[Entry], present: &BTreeSet<Choice>) -> BTreeSet<Choice> {
    let needed = entries.iter().filter_map(|entry| match entry {
        Entry::Frontend { at, to } => choice(at, *to),
        _ => None,
    });
    let missing: BTreeSet<Choice> = needed.filter(|choice| !present.contains(choice)).collect();
    for choice in &missing {
        batch.add_chain(&Chain::regular(choice.name()));
        choice_rules(*choice).iter().for_each(|rule| batch.add_rule(&choice.name(), rule));
    }
    missing
}

fn add_elements(batch: &mut Batch, entries: &[Entry]) {
    for ((ipv4, map), elements) in elements(entries) {
        batch.add_elements(&map.set(ipv4), &elements);
    }
}
