//! From what nodes say to devices, neighbours and routes, and from what there is to what is to be: pure functions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use linux::net::route::PROTOCOL_OVERLAY;
use linux::net::{Address, Forwarding, Link, MacAddress, Neighbour, Route, RouteKind, Vxlan as Tunnel};

use super::backend::{Backend, Vxlan, tun_device};
use super::lease::{Lease, tunnel_mac_of};
use crate::addresses::AddressPool;
use crate::plan::{Config, Observed, pod_mtu, underlay};

/// A device that carries packets to other nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    pub name: String,
    pub mtu: u32,
    /// `None` for a tun device, which the process that carries its packets makes.
    pub tunnel: Option<(MacAddress, Tunnel)>,
    pub addresses: Vec<IpNet>,
}

/// A route to the pods of another node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodRoute {
    pub to: IpNet,
    /// `None`: the device itself knows the way.
    pub gateway: Option<IpAddr>,
    pub device: String,
    /// What this machine's own connections come from.
    pub source: IpAddr,
}

/// What is to be there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    pub devices: Vec<Device>,
    pub neighbours: BTreeSet<(String, IpAddr, MacAddress)>,
    pub forwardings: BTreeSet<(String, MacAddress, IpAddr)>,
    pub routes: BTreeSet<PodRoute>,
    /// Whom the `udp` backend sends what to.
    pub peers: BTreeMap<IpNet, SocketAddr>,
    /// Nodes that cannot be reached, each with the reason.
    pub problems: BTreeSet<String>,
}

/// What the machine has, tunnels included.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    pub base: Observed,
    pub neighbours: Vec<Neighbour>,
    pub forwardings: Vec<Forwarding>,
}

/// A change of links and their addresses. These come first, since all else names links by their numbers.
#[derive(Clone, Debug, PartialEq)]
pub enum LinkStep {
    Remove(u32),
    Create {
        name: String,
        mac: MacAddress,
        mtu: u32,
        tunnel: Tunnel,
    },
    SetMtu(u32, u32),
    SetUp(u32),
    RemoveAddress(Address),
    /// By the name of the link, which may not be there yet.
    AddAddress(String, IpNet),
}

/// Changes of everything that names links. Routes go first and come last, so that no packet goes astray between.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EntrySteps {
    pub remove_routes: Vec<Route>,
    pub remove_neighbours: Vec<Neighbour>,
    pub remove_forwardings: Vec<Forwarding>,
    pub neighbours: Vec<Neighbour>,
    pub forwardings: Vec<Forwarding>,
    pub routes: Vec<Route>,
}

impl EntrySteps {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The machine as the other nodes' leases want it.
pub fn compile(config: &Config, leases: &BTreeMap<String, Lease>, machine: &Machine) -> Desired {
    let mut compiler =
        Compiler { config, machine: &machine.base, desired: Desired::default(), taken: Vec::new() };
    for (node, lease) in leases {
        for range in &lease.ranges {
            if let Err(problem) = compiler.add(lease, *range) {
                compiler.desired.problems.insert(format!("node {node}: {problem}"));
            }
        }
    }
    compiler.add_devices();
    compiler.desired
}

struct Compiler<'a> {
    config: &'a Config,
    machine: &'a Observed,
    desired: Desired,
    /// Ranges of nodes that were looked at before.
    taken: Vec<IpNet>,
}

impl Compiler<'_> {
    fn add(&mut self, lease: &Lease, range: IpNet) -> Result<(), String> {
        let backend = &self.config.backend;
        if lease.backend.is_empty() || *backend == Backend::Alloc {
            // It has only just joined and will say more, or somebody else cares.
            return Ok(());
        }
        if lease.backend != backend.name() {
            return Err(format!("uses the backend {} and this node {}", lease.backend, backend.name()));
        }
        self.check_range(range)?;
        let ipv4 = range.addr().is_ipv4();
        let gateway = self.config.gateways().into_iter().find(|gateway| gateway.is_ipv4() == ipv4);
        let Some(source) = gateway else { return Ok(()) };
        match backend {
            Backend::Vxlan(vxlan) => self.tunnel(vxlan, lease, range, source)?,
            Backend::HostGw => {
                let direct = self.direct(lease, range, source);
                let route = direct.ok_or_else(|| {
                    let at = lease.public_of(ipv4).map_or("no address".to_owned(), |at| at.to_string());
                    format!("{at} is not on a link of this node, as the backend host-gw needs it")
                })?;
                self.desired.routes.insert(route);
            }
            Backend::Udp(udp) => {
                let to = self.carrier(lease, ipv4).and_then(|carrier| lease.public_of(carrier));
                let to = to.ok_or_else(|| NO_COMMON_FAMILY.to_owned())?;
                self.desired.peers.insert(range, SocketAddr::new(to, udp.port));
                let route =
                    PodRoute { to: range, gateway: None, device: tun_device(&self.config.device), source };
                self.desired.routes.insert(route);
            }
            Backend::Alloc => {}
        }
        self.taken.push(range);
        Ok(())
    }

    /// Refuses a range that would take packets from somebody.
    fn check_range(&self, range: IpNet) -> Result<(), String> {
        if !self.config.cluster_cidrs.iter().any(|cluster| cluster.contains(&range)) {
            return Err(format!("its pod range {range} is not within the cluster's network"));
        }
        let overlaps = |other: &&IpNet| other.contains(&range.addr()) || range.contains(&other.addr());
        if let Some(other) = self.config.pod_cidrs.iter().chain(&self.taken).find(overlaps) {
            return Err(format!("its pod range {range} overlaps {other} of another node"));
        }
        let devices = self.config.devices();
        let name = |index| self.machine.links.iter().find(|link| link.index == index).map(|link| &link.name);
        let is_ours = |route: &&Route| {
            route.protocol == PROTOCOL_OVERLAY
                || name(route.link).is_some_and(|name| *name == self.config.bridge || devices.contains(name))
        };
        let foreign = self.machine.routes.iter().filter(|route| {
            !is_ours(route) && route.destination.prefix_len() > 0 && overlaps(&&route.destination)
        });
        match foreign.map(|route| route.destination).next() {
            Some(route) => Err(format!("its pod range {range} overlaps this machine's route {route}")),
            None => Ok(()),
        }
    }

    /// By which family packets to a node are carried: the range's own, or else the other one.
    fn carrier(&self, lease: &Lease, ipv4: bool) -> Option<bool> {
        let has = |family: &bool| {
            lease.public_of(*family).is_some()
                && self.config.node_addresses.iter().any(|address| address.is_ipv4() == *family)
        };
        [ipv4, !ipv4].into_iter().find(has)
    }

    /// A route straight to the node, when it is on a link of this one.
    fn direct(&self, lease: &Lease, range: IpNet, source: IpAddr) -> Option<PodRoute> {
        let gateway = lease.public_of(range.addr().is_ipv4())?;
        let near = self.machine.addresses.iter().find(|address| {
            address.address.prefix_len() < address.address.max_prefix_len()
                && address.address.contains(&gateway)
                && self.config.node_addresses.contains(&address.address.addr())
        })?;
        let link = self.machine.links.iter().find(|link| link.index == near.link)?;
        Some(PodRoute { to: range, gateway: Some(gateway), device: link.name.clone(), source })
    }

    fn tunnel(&mut self, vxlan: &Vxlan, lease: &Lease, range: IpNet, source: IpAddr) -> Result<(), String> {
        if let Some(route) = self.direct(lease, range, source).filter(|_| vxlan.direct_routing) {
            self.desired.routes.insert(route);
            return Ok(());
        }
        let carrier =
            self.carrier(lease, range.addr().is_ipv4()).ok_or_else(|| NO_COMMON_FAMILY.to_owned())?;
        let (device, far) = (vxlan.device(&self.config.device, carrier), range.network());
        let public = lease.public_of(carrier).ok_or_else(|| NO_COMMON_FAMILY.to_owned())?;
        let mac = lease.tunnel_mac[usize::from(!carrier)];
        let mac = mac.ok_or_else(|| "says no hardware address of its tunnel".to_owned())?;
        self.desired.neighbours.insert((device.clone(), far, mac));
        self.desired.forwardings.insert((device.clone(), mac, public));
        self.desired.routes.insert(PodRoute { to: range, gateway: Some(far), device, source });
        Ok(())
    }

    /// The devices that are needed by what was added.
    fn add_devices(&mut self) {
        let mtu = pod_mtu(self.config, self.machine);
        match &self.config.backend {
            Backend::Vxlan(vxlan) => {
                let needed = [true, false].into_iter().filter(|carrier| {
                    let name = vxlan.device(&self.config.device, *carrier);
                    self.desired.forwardings.iter().any(|(device, ..)| *device == name)
                });
                let devices: Vec<_> =
                    needed.filter_map(|carrier| self.vxlan_device(vxlan, carrier, mtu)).collect();
                self.desired.devices.extend(devices);
            }
            Backend::Udp(_) if !self.desired.peers.is_empty() => {
                let addresses = self.config.pod_cidrs.iter().map(|range| IpNet::from(range.network()));
                let addresses = addresses.collect();
                self.desired.devices.push(Device {
                    name: tun_device(&self.config.device),
                    mtu,
                    tunnel: None,
                    addresses,
                });
            }
            _ => {}
        }
    }

    fn vxlan_device(&self, vxlan: &Vxlan, carrier: bool, mtu: u32) -> Option<Device> {
        let local = *self.config.node_addresses.iter().find(|address| address.is_ipv4() == carrier)?;
        let range = *self.config.pod_cidrs.first()?;
        // What a node sends itself, e.g. for clients outside, comes from the base of its range.
        let only = self.config.node_addresses.len() == 1;
        let bases = self.config.pod_cidrs.iter().filter(|range| only || range.addr().is_ipv4() == carrier);
        let underlay = underlay(local, self.machine)?.index;
        let tunnel = Tunnel { id: vxlan.vni, port: vxlan.port, local, underlay };
        Some(Device {
            name: vxlan.device(&self.config.device, carrier),
            mtu,
            tunnel: Some((tunnel_mac_of(range, carrier), tunnel)),
            addresses: bases.map(|range| IpNet::from(range.network())).collect(),
        })
    }
}

const NO_COMMON_FAMILY: &str = "has no address of a family that this node has one of";

/// Steps of links and addresses; none when all is as it is to be.
pub fn diff_links(config: &Config, desired: &Desired, machine: &Machine) -> Vec<LinkStep> {
    let links = &machine.base.links;
    let mut steps = Vec::new();
    for name in config.devices() {
        let found = links.iter().find(|link| link.name == name);
        let wanted = desired.devices.iter().find(|device| device.name == name);
        match (found, wanted) {
            (Some(link), None) => steps.push(LinkStep::Remove(link.index)),
            (Some(link), Some(device)) if is_usable(link, device) => {
                steps.extend(adjust(link, device, &machine.base.addresses));
            }
            (found, Some(Device { name, mtu, tunnel: Some((mac, tunnel)), addresses })) => {
                steps.extend(found.map(|link| LinkStep::Remove(link.index)));
                let create = LinkStep::Create { name: name.clone(), mac: *mac, mtu: *mtu, tunnel: *tunnel };
                steps.push(create);
                steps.extend(addresses.iter().map(|address| LinkStep::AddAddress(name.clone(), *address)));
            }
            (_, Some(_)) | (None, None) => {}
        }
    }
    steps
}

fn is_usable(link: &Link, device: &Device) -> bool {
    match &device.tunnel {
        Some((mac, tunnel)) => link.vxlan == Some(*tunnel) && link.mac == Some(*mac),
        None => link.kind == "tun",
    }
}

fn adjust(link: &Link, device: &Device, addresses: &[Address]) -> Vec<LinkStep> {
    let mut steps = Vec::new();
    if link.mtu != device.mtu {
        steps.push(LinkStep::SetMtu(link.index, device.mtu));
    }
    if !link.up {
        steps.push(LinkStep::SetUp(link.index));
    }
    let present: Vec<&Address> = addresses.iter().filter(|address| address.link == link.index).collect();
    let is_stale = |address: &&&Address| {
        !device.addresses.contains(&address.address) && !crate::plan::link_local(address.address)
    };
    steps.extend(present.iter().filter(is_stale).map(|stale| LinkStep::RemoveAddress((*stale).clone())));
    let missing =
        device.addresses.iter().filter(|wanted| !present.iter().any(|found| found.address == **wanted));
    steps.extend(missing.map(|address| LinkStep::AddAddress(device.name.clone(), *address)));
    steps
}

/// Steps of neighbours, forwarding and routes, when the links are as they are to be.
pub fn diff_entries(config: &Config, desired: &Desired, machine: &Machine) -> EntrySteps {
    let index = |name: &str| machine.base.links.iter().find(|link| link.name == name).map(|link| link.index);
    let own: BTreeSet<u32> = config.devices().iter().filter_map(|name| index(name)).collect();
    let neighbours: BTreeSet<Neighbour> = desired
        .neighbours
        .iter()
        .filter_map(|(device, address, mac)| {
            Some(Neighbour { link: index(device)?, address: *address, mac: *mac })
        })
        .collect();
    let forwardings: BTreeSet<Forwarding> = desired
        .forwardings
        .iter()
        .filter_map(|(device, mac, to)| Some(Forwarding { link: index(device)?, mac: *mac, to: *to }))
        .collect();
    let routes: Vec<Route> =
        desired.routes.iter().filter_map(|route| to_route(route, index(&route.device)?)).collect();
    let present: BTreeSet<Neighbour> =
        machine.neighbours.iter().filter(|found| own.contains(&found.link)).copied().collect();
    let forwarded: BTreeSet<Forwarding> =
        machine.forwardings.iter().filter(|found| own.contains(&found.link)).copied().collect();
    let is_routed = |route: &&Route| {
        route.protocol == PROTOCOL_OVERLAY
            && config.cluster_cidrs.iter().any(|cluster| cluster.contains(&route.destination))
    };
    let routed: Vec<&Route> = machine.base.routes.iter().filter(is_routed).collect();
    // What is replaced by another value of its key is not removed: there is no moment without one.
    let is_kept =
        |stale: &Neighbour| neighbours.iter().any(|n| (n.link, n.address) == (stale.link, stale.address));
    EntrySteps {
        remove_routes: routed
            .iter()
            .filter(|route| !routes.iter().any(|wanted| wanted.destination == route.destination))
            .map(|route| (*route).clone())
            .collect(),
        remove_neighbours: (&present - &neighbours).into_iter().filter(|stale| !is_kept(stale)).collect(),
        remove_forwardings: (&forwarded - &forwardings).into_iter().collect(),
        neighbours: (&neighbours - &present).into_iter().collect(),
        forwardings: (&forwardings - &forwarded).into_iter().collect(),
        routes: routes.into_iter().filter(|route| !routed.contains(&route)).collect(),
    }
}

fn to_route(route: &PodRoute, link: u32) -> Option<Route> {
    Some(Route {
        destination: route.to,
        kind: route.gateway.map_or(RouteKind::Link, RouteKind::Gateway),
        link,
        source: Some(route.source),
        protocol: PROTOCOL_OVERLAY,
    })
}

/// Where tools read what this node's pods get (`/run/flannel/subnet.env`).
pub fn subnet_file(config: &Config, mtu: u32) -> String {
    let mut lines = String::new();
    for (ipv4, prefix) in [(true, "FLANNEL"), (false, "FLANNEL_IPV6")] {
        let of_family = |range: &&IpNet| range.addr().is_ipv4() == ipv4;
        let network = config.cluster_cidrs.iter().find(of_family);
        let range = config.pod_cidrs.iter().find(of_family);
        if let (Some(network), Some(range)) = (network, range) {
            let gateway = AddressPool::new(*range).gateway();
            lines +=
                &format!("{prefix}_NETWORK={network}\n{prefix}_SUBNET={gateway}/{}\n", range.prefix_len());
        }
    }
    format!("{lines}FLANNEL_MTU={mtu}\nFLANNEL_IPMASQ=true\n")
}

#[cfg(test)]
mod tests;
