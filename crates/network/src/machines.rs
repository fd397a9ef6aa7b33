//! Machines that are network namespaces of this one: a bridge that they share, an address and a way out for each.
//!
//! It is the link between nodes that try out a cluster on one machine, not a network of pods.

use std::fs::File;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use linux::net::address::{Address, AddressFlags};
use linux::net::link::{Bridge, Veth};
use linux::net::route::{PROTOCOL_STATIC, Route, RouteKind};
use linux::net::socket::{NetlinkError, Protocol, Socket};
use linux::net::{namespace, sysctl};
use linux::nft::{self, Batch, Chain, Family, Hook, HookKind};

use crate::kernel::leaving_rule;
use crate::plan::{NetworkError, mac_of};

const INTERFACE: &str = "eth0";
const MTU: u32 = 1500;

/// The link of the machines.
#[derive(Clone, Debug)]
pub struct Config {
    /// At most 15 bytes, as all names of links.
    pub bridge: String,
    pub table: String,
    /// The first address is the bridge's.
    pub range: IpNet,
}

fn doing(what: impl Into<String>) -> impl FnOnce(NetlinkError) -> NetworkError {
    let what = what.into();
    move |source| NetworkError::Netlink { what, source }
}

fn io(what: String) -> impl FnOnce(std::io::Error) -> NetworkError {
    move |source| NetworkError::Io { what, source }
}

/// Makes the bridge if it is not there, and lets the machines reach what this one reaches.
pub fn prepare(config: &Config, gateway: IpAddr) -> Result<(), NetworkError> {
    let mut socket = Socket::open(Protocol::Route).map_err(doing("cannot open a route socket"))?;
    if socket.link(&config.bridge).map_err(doing("cannot look up the machines' bridge"))?.is_none() {
        let address = IpNet::new(gateway, config.range.prefix_len())
            .map_err(|error| NetworkError::Config(error.to_string()))?;
        refuse_overlap(&mut socket, config.range)?;
        let made = make_bridge(&mut socket, &config.bridge, address);
        made.map_err(doing(format!("cannot make the bridge {} of the machines", config.bridge)))?;
    }
    let forwarding = if gateway.is_ipv4() { "ipv4/ip_forward" } else { "ipv6/conf/all/forwarding" };
    sysctl::set(forwarding, "1").map_err(io(format!("cannot set kernel parameter net/{forwarding}")))?;
    let mut netfilter = Socket::open(Protocol::Netfilter).map_err(doing("cannot open a netfilter socket"))?;
    let mut batch = Batch::new(Family::Inet, &config.table);
    batch.replace_table();
    let chain = Chain::base("postrouting", HookKind::Nat, Hook::Postrouting, 100);
    batch.add_chain(&chain);
    batch.add_rule(&chain.name, &leaving_rule(config.range, &[config.range]));
    Ok(batch.commit(&mut netfilter)?)
}

fn make_bridge(socket: &mut Socket, name: &str, address: IpNet) -> Result<(), NetlinkError> {
    socket.create_bridge(&Bridge { name, mac: mac_of(address.addr()), mtu: MTU })?;
    let Some(bridge) = socket.link(name)? else { return Ok(()) };
    socket.add_address(&Address { link: bridge.index, address }, AddressFlags::default())
}

/// A range that this machine reaches otherwise would be cut off.
fn refuse_overlap(socket: &mut Socket, range: IpNet) -> Result<(), NetworkError> {
    let routes = socket.routes().map_err(doing("cannot list routes"))?;
    let taken = routes.iter().map(|route| route.destination).find(|destination| {
        destination.prefix_len() > 0 && (destination.contains(&range) || range.contains(destination))
    });
    match taken {
        Some(taken) => Err(NetworkError::Config(format!(
            "the machines' range {range} overlaps the route to {taken} of this machine; choose another"
        ))),
        None => Ok(()),
    }
}

/// Connects the namespace at `file` under the given address. `name` is the near end's.
pub fn connect(
    config: &Config,
    gateway: IpAddr,
    name: &str,
    file: &Path,
    address: IpAddr,
) -> Result<(), NetworkError> {
    let shown = file.display();
    let namespace = File::open(file).map_err(io(format!("cannot open network namespace {shown}")))?;
    let address = IpNet::new(address, config.range.prefix_len())
        .map_err(|error| NetworkError::Config(error.to_string()))?;
    let mut socket = Socket::open(Protocol::Route).map_err(doing("cannot open a route socket"))?;
    if socket.link(name).map_err(doing(format!("cannot look up {name}")))?.is_some() {
        return Ok(());
    }
    let bridge = socket.link(&config.bridge).map_err(doing("cannot look up the machines' bridge"))?;
    let bridge = bridge.ok_or_else(|| NetworkError::Config(format!("bridge {} is gone", config.bridge)))?;
    let veth = Veth {
        name,
        mtu: MTU,
        master: bridge.index,
        peer_name: INTERFACE,
        peer_mac: mac_of(address.addr()),
        peer_namespace: &namespace,
    };
    socket.create_veth(&veth).map_err(doing(format!("cannot connect network namespace {shown}")))?;
    namespace::within(&namespace, || configure(address, gateway))
        .map_err(io(format!("cannot enter network namespace {shown}")))?
        .map_err(doing(format!("cannot configure network namespace {shown}")))
}

/// Inside: loopback, the address, the way out.
fn configure(address: IpNet, gateway: IpAddr) -> Result<(), NetlinkError> {
    let mut socket = Socket::open(Protocol::Route)?;
    if let Some(loopback) = socket.link("lo")? {
        socket.set_up(loopback.index)?;
    }
    let Some(interface) = socket.link(INTERFACE)? else { return Ok(()) };
    socket.set_up(interface.index)?;
    socket.add_address(&Address { link: interface.index, address }, AddressFlags::default())?;
    let everywhere = match gateway {
        IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    };
    socket.replace_route(&Route {
        destination: everywhere,
        kind: RouteKind::Gateway(gateway),
        link: interface.index,
        source: None,
        protocol: PROTOCOL_STATIC,
    })
}

/// Leads to a machine what is meant for the ranges behind it.
pub fn route_through(config: &Config, ranges: &[IpNet], machine: IpAddr) -> Result<(), NetworkError> {
    let mut socket = Socket::open(Protocol::Route).map_err(doing("cannot open a route socket"))?;
    let bridge = socket.link(&config.bridge).map_err(doing("cannot look up the machines' bridge"))?;
    let bridge = bridge.ok_or_else(|| NetworkError::Config(format!("bridge {} is gone", config.bridge)))?;
    for range in ranges.iter().filter(|range| range.addr().is_ipv4() == machine.is_ipv4()) {
        let route = Route {
            destination: *range,
            kind: RouteKind::Gateway(machine),
            link: bridge.index,
            source: None,
            protocol: PROTOCOL_STATIC,
        };
        socket.replace_route(&route).map_err(doing(format!("cannot make the route to {range}")))?;
    }
    Ok(())
}

/// Takes away the bridge, the near ends with these names, and the table.
pub fn teardown(config: &Config, names: &[String]) -> Result<(), NetworkError> {
    let mut socket = Socket::open(Protocol::Route).map_err(doing("cannot open a route socket"))?;
    for name in names.iter().chain([&config.bridge]) {
        let removed = match socket.link(name) {
            Ok(Some(link)) => socket.delete_link(link.index),
            other => other.map(drop),
        };
        removed.map_err(doing(format!("cannot remove link {name}")))?;
    }
    let mut netfilter = Socket::open(Protocol::Netfilter).map_err(doing("cannot open a netfilter socket"))?;
    Ok(nft::delete_table(&mut netfilter, Family::Inet, &config.table)?)
}
