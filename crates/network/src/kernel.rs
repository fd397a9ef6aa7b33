//! The hands: everything that is done to the machine, on two sockets that stay open.

use std::fs::File;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use linux::net::route::PROTOCOL_STATIC;
use linux::net::wire::Writer;
use linux::net::{
    Address, AddressFlags, Bridge, Link, NetlinkError, Protocol, Route, RouteKind, Socket, Veth, namespace,
    route, sysctl,
};
use linux::nft::{
    self, Batch, Chain, Comparison, Expression, Family, Hook, HookKind, MetaKey, PayloadBase, Register,
    Verdict,
};

use crate::plan::{Action, Config, Desired, NetworkError, Observed, mac_of};

/// The pod's own interface.
const POD_INTERFACE: &str = "eth0";
const WORK: Register = Register(0);

/// Sockets in the machine's namespace.
pub(crate) struct Kernel {
    route: Socket,
    netfilter: Socket,
}

/// What one pod's interface gets.
pub(crate) struct PodLink<'a> {
    pub name: &'a str,
    pub bridge: &'a str,
    /// The pod's addresses with the length of the node's range, each with its gateway.
    pub addresses: &'a [(IpNet, IpAddr)],
}

pub(crate) fn doing(what: impl Into<String>) -> impl FnOnce(NetlinkError) -> NetworkError {
    let what = what.into();
    move |source| NetworkError::Netlink { what, source }
}

pub(crate) fn io(what: String) -> impl FnOnce(std::io::Error) -> NetworkError {
    move |source| NetworkError::Io { what, source }
}

impl Kernel {
    /// In the calling thread's network namespace.
    pub fn open() -> Result<Self, NetworkError> {
        let route = Socket::open(Protocol::Route).map_err(doing("cannot open a route socket"))?;
        let netfilter = Socket::open(Protocol::Netfilter).map_err(doing("cannot open a netfilter socket"))?;
        Ok(Self { route, netfilter })
    }

    pub fn observe(&mut self) -> Result<Observed, NetworkError> {
        Ok(Observed {
            links: self.route.links().map_err(doing("cannot list links"))?,
            addresses: self.route.addresses().map_err(doing("cannot list addresses"))?,
            routes: self.route.routes().map_err(doing("cannot list routes"))?,
        })
    }

    pub fn act(&mut self, bridge: &str, action: &Action) -> Result<(), NetworkError> {
        match action {
            Action::RemoveLink(index) => self.route.delete_link(*index),
            Action::CreateBridge { name, mac, mtu } => {
                self.route.create_bridge(&Bridge { name, mac: *mac, mtu: *mtu })
            }
            Action::SetMtu(index, mtu) => self.route.set_mtu(*index, *mtu),
            Action::SetUp(index) => self.route.set_up(*index),
            Action::RemoveAddress(address) => self.route.delete_address(address),
            Action::AddAddress(address) => {
                let link = self.bridge(bridge)?.index;
                self.route.add_address(&Address { link, address: *address }, AddressFlags::default())
            }
            Action::AddRoute(destination, source) => {
                let link = self.bridge(bridge)?.index;
                self.route.replace_route(&Route {
                    destination: *destination,
                    kind: RouteKind::Link,
                    link,
                    source: Some(*source),
                    protocol: PROTOCOL_STATIC,
                })
            }
        }
        .map_err(doing(format!("bridge {bridge}: {action:?}")))
    }

    pub fn set_sysctls(&self, desired: &Desired) -> Result<(), NetworkError> {
        for (key, value) in &desired.sysctls {
            sysctl::set(key, value)
                .map_err(io(format!("cannot set kernel parameter net/{key} to {value}")))?;
        }
        Ok(())
    }

    pub fn bridge(&mut self, name: &str) -> Result<Link, NetworkError> {
        let link = self.route.link(name).map_err(doing(format!("cannot look up {name}")))?;
        link.ok_or_else(|| NetworkError::Config(format!("bridge {name} is gone")))
    }

    /// Puts the table in place of whatever has its name.
    pub fn apply_table(&mut self, config: &Config) -> Result<(), NetworkError> {
        let mut batch = Batch::new(Family::Inet, &config.table);
        batch.replace_table();
        for (chain, rules) in rules(config) {
            batch.add_chain(&chain);
            for rule in rules {
                batch.add_rule(&chain.name, &rule);
            }
        }
        Ok(batch.commit(&mut self.netfilter)?)
    }

    pub fn delete_table(&mut self, table: &str) -> Result<(), NetworkError> {
        Ok(nft::delete_table(&mut self.netfilter, Family::Inet, table)?)
    }

    /// The ports of a bridge.
    pub fn ports(&mut self, bridge: &str) -> Result<Vec<Link>, NetworkError> {
        let links = self.route.links().map_err(doing("cannot list links"))?;
        let index = links.iter().find(|link| link.name == bridge).map(|link| link.index);
        Ok(links.into_iter().filter(|link| index.is_some() && link.master == index).collect())
    }

    /// Removes the link of that name, if there is one.
    pub fn remove_link(&mut self, name: &str) -> Result<(), NetworkError> {
        let remove = |socket: &mut Socket| match socket.link(name)? {
            Some(link) => socket.delete_link(link.index),
            None => Ok(()),
        };
        remove(&mut self.route).map_err(doing(format!("cannot remove link {name}")))
    }

    /// Pods speak through the gateway only, so that what is said about their packets holds. Where `br_netfilter` has
    /// frames between ports judged as packets anyway, it also delivers them itself once a Service's address is
    /// replaced: then ports must reach each other, and themselves.
    fn guide(&mut self, port: u32) -> Result<(), NetlinkError> {
        match sysctl::get("bridge/bridge-nf-call-iptables").as_deref() {
            Some("1") => self.route.set_hairpin(port),
            _ => self.route.set_isolated(port),
        }
    }

    /// Connects a pod's namespace. What is there of an earlier, unfinished attempt is replaced.
    pub fn connect(&mut self, netns: &Path, pod: &PodLink<'_>) -> Result<(), NetworkError> {
        let file =
            File::open(netns).map_err(io(format!("cannot open network namespace {}", netns.display())))?;
        let bridge = self.bridge(pod.bridge)?;
        let veth = Veth {
            name: pod.name,
            mtu: bridge.mtu,
            master: bridge.index,
            peer_name: POD_INTERFACE,
            peer_mac: mac_of(pod.addresses[0].0.addr()),
            peer_namespace: &file,
        };
        let created = match self.route.create_veth(&veth) {
            Err(error) if error.already_exists() => {
                self.remove_link(pod.name)?;
                self.route.create_veth(&veth)
            }
            other => other,
        };
        created.map_err(doing(format!("cannot connect network namespace {}", netns.display())))?;
        let port = self.route.link(pod.name).map_err(doing("cannot look up the pod's link"))?;
        if let Some(port) = port {
            self.guide(port.index).map_err(doing("cannot set up the pod's link"))?;
        }
        let inside = namespace::within(&file, || configure_pod(pod.addresses));
        inside.map_err(io(format!("cannot enter network namespace {}", netns.display())))?
    }
}

/// Inside the pod's namespace: loopback, addresses, and routes that lead everywhere through the gateway.
fn configure_pod(addresses: &[(IpNet, IpAddr)]) -> Result<(), NetworkError> {
    let mut socket = Socket::open(Protocol::Route).map_err(doing("cannot open a route socket"))?;
    configure_links(&mut socket, addresses).map_err(doing("cannot configure the pod's interface"))
}

fn configure_links(socket: &mut Socket, addresses: &[(IpNet, IpAddr)]) -> Result<(), NetlinkError> {
    if let Some(loopback) = socket.link("lo")? {
        socket.set_up(loopback.index)?;
    }
    let Some(interface) = socket.link(POD_INTERFACE)? else { return Ok(()) };
    let link = interface.index;
    socket.set_up(link)?;
    let mut routes = Writer::new();
    for (address, gateway) in addresses {
        socket.add_address(
            &Address { link, address: *address },
            AddressFlags { no_prefix_route: true, ..AddressFlags::default() },
        )?;
        route::write_routes(&mut routes, &pod_routes(link, *address, *gateway));
    }
    socket.request(routes)
}

fn pod_routes(link: u32, address: IpNet, gateway: IpAddr) -> [Route; 3] {
    let everywhere = match gateway {
        IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    };
    let source = Some(address.addr());
    let through = RouteKind::Gateway(gateway);
    let route =
        |destination, kind, source| Route { destination, kind, link, source, protocol: PROTOCOL_STATIC };
    [
        route(IpNet::from(gateway), RouteKind::Link, source),
        route(address.trunc(), through, source),
        route(everywhere, through, None),
    ]
}

pub(crate) type Rule = Vec<Expression>;

/// The chains of the table with their rules.
fn rules(config: &Config) -> Vec<(Chain, Vec<Rule>)> {
    let bridge = nft::key::interface(&config.bridge);
    let from_bridge = [load_meta(MetaKey::InputName), equal(bridge.clone())];
    let to_bridge = [load_meta(MetaKey::OutputName), equal(bridge.clone())];
    let loopback: IpNet = IpNet::new(std::net::Ipv4Addr::new(127, 0, 0, 0).into(), 8).unwrap_or_default();
    let masquerade = [Expression::Masquerade];
    let drop = [Expression::Verdict(Verdict::Drop)];

    // What leaves the cluster takes the machine's address; so does what the machine sends from its loopback
    // address, which a pod could not answer.
    let mut leaving: Vec<Rule> =
        config.pod_cidrs.iter().map(|range| leaving_rule(*range, &config.cluster_cidrs)).collect();
    leaving.push([&to_bridge[..], &within(loopback, false, false), &masquerade].concat());
    // Loopback addresses are routable on the bridge for the sake of that; pods must not use it.
    let loopback_guard: Rule = [&from_bridge[..], &within(loopback, true, false), &drop].concat();
    // IPv6 has no setting against telling pods on one bridge to speak directly, past the address translation.
    let redirects = [&to_bridge[..], &icmp(10, 58, 137), &drop].concat();
    vec![
        (Chain::base("postrouting", HookKind::Nat, Hook::Postrouting, 100), leaving),
        (Chain::base("prerouting", HookKind::Filter, Hook::Prerouting, -300), vec![loopback_guard]),
        (Chain::base("output", HookKind::Filter, Hook::Output, 0), vec![redirects]),
    ]
}

/// What comes from `range` and goes outside of all of `cluster` takes the machine's address.
pub(crate) fn leaving_rule(range: IpNet, cluster: &[IpNet]) -> Rule {
    let mut rule = within(range, false, false);
    let same_family = |other: &&IpNet| other.addr().is_ipv4() == range.addr().is_ipv4();
    for cluster in cluster.iter().filter(same_family) {
        rule.extend(within(*cluster, true, true));
    }
    let multicast = match range {
        IpNet::V4(_) => IpNet::new(std::net::Ipv4Addr::new(224, 0, 0, 0).into(), 4),
        IpNet::V6(_) => IpNet::new(std::net::Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0).into(), 8),
    };
    rule.extend(multicast.into_iter().flat_map(|multicast| within(multicast, true, true)));
    rule.push(Expression::Masquerade);
    rule
}

fn load_meta(key: MetaKey) -> Expression {
    Expression::Meta { key, to: WORK }
}

fn equal(value: Vec<u8>) -> Expression {
    Expression::Compare { register: WORK, comparison: Comparison::Equal, value }
}

/// Matches packets whose source (or destination) is within a range, or outside of it.
fn within(range: IpNet, destination: bool, outside: bool) -> Rule {
    let (family, offset, length) = match (range, destination) {
        (IpNet::V4(_), false) => (2, 12, 4),
        (IpNet::V4(_), true) => (2, 16, 4),
        (IpNet::V6(_), false) => (10, 8, 16),
        (IpNet::V6(_), true) => (10, 24, 16),
    };
    let octets = linux::net::address::octets;
    let comparison = if outside { Comparison::NotEqual } else { Comparison::Equal };
    vec![
        load_meta(MetaKey::NetworkProtocol),
        equal(vec![family]),
        Expression::Payload { base: PayloadBase::Network, offset, length, to: WORK },
        Expression::Bitwise {
            from: WORK,
            to: WORK,
            mask: octets(range.netmask()),
            xor: vec![0; length as usize],
        },
        Expression::Compare { register: WORK, comparison, value: octets(range.network()) },
    ]
}

fn icmp(family: u8, protocol: u8, kind: u8) -> Rule {
    vec![
        load_meta(MetaKey::NetworkProtocol),
        equal(vec![family]),
        load_meta(MetaKey::TransportProtocol),
        equal(vec![protocol]),
        Expression::Payload { base: PayloadBase::Transport, offset: 0, length: 1, to: WORK },
        equal(vec![kind]),
    ]
}
