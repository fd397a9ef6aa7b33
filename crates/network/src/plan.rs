//! What the machine must look like, and what has to be done for that: pure functions.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ipnet::IpNet;
use linux::net::route::PROTOCOL_OVERLAY;
use linux::net::{Address, Link, MacAddress, NetlinkError, Route, RouteKind};
use linux::nft::NftError;

use crate::addresses::{AddressPool, PoolError};
use crate::overlay::Backend;

const MTU_DEFAULT: u32 = 1500;
const NAME_MAX: usize = 15;

/// How the node's pod network is set up.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The bridge's name, at most 15 characters. Two instances on one machine need two names.
    pub bridge: String,
    /// The name of the nftables table, this instance's own.
    pub table: String,
    /// The node's own ranges: one, or one of each family.
    pub pod_cidrs: Vec<IpNet>,
    /// The ranges of all nodes; what goes there keeps its source address.
    pub cluster_cidrs: Vec<IpNet>,
    /// The ranges of Services' addresses: routed to the bridge, so that a machine without a default route reaches
    /// them and its packets carry a source address that pods can answer.
    pub service_cidrs: Vec<IpNet>,
    /// Further addresses of this machine on the bridge, such as the cluster DNS Service's.
    pub local_addresses: Vec<IpAddr>,
    /// Bytes; when absent, what packets between nodes may have on the interface with the node's address, or else
    /// on that of the default route.
    pub mtu: Option<u32>,
    /// How packets reach the pods of other nodes.
    pub backend: Backend,
    /// What names of the backend's devices begin with, at most 10 characters. Two instances on one machine need two.
    pub device: String,
    /// This machine's own addresses as other nodes reach them: at most one of each family. Without any, there are
    /// no other nodes.
    pub node_addresses: Vec<IpAddr>,
    /// Where tools read the node's ranges and MTU: flannel's `subnet.env`.
    pub subnet_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bridge: "kobune0".to_owned(),
            table: "kobune".to_owned(),
            pod_cidrs: Vec::new(),
            cluster_cidrs: Vec::new(),
            service_cidrs: Vec::new(),
            local_addresses: Vec::new(),
            mtu: None,
            backend: Backend::default(),
            device: "flannel".to_owned(),
            node_addresses: Vec::new(),
            subnet_file: None,
        }
    }
}

/// Why the network cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("network configuration: {0}")]
    Config(String),
    /// Packets for pods would go elsewhere, or packets for elsewhere to pods.
    #[error("the cluster network {range} overlaps {existing} of this machine: choose another with --{flag}")]
    Overlap { range: IpNet, existing: String, flag: &'static str },
    /// A pod must not be connected before its policies hold.
    #[error("the network policies of this pod are not known yet")]
    Policy,
    #[error(transparent)]
    Addresses(#[from] PoolError),
    #[error("{what}")]
    Netlink {
        what: String,
        #[source]
        source: NetlinkError,
    },
    #[error(transparent)]
    Nftables(#[from] NftError),
    #[error("{what}")]
    Io {
        what: String,
        #[source]
        source: std::io::Error,
    },
}

/// What is there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    pub links: Vec<Link>,
    pub addresses: Vec<Address>,
    pub routes: Vec<Route>,
}

/// What is to be there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Desired {
    pub bridge: String,
    pub mac: MacAddress,
    pub mtu: u32,
    pub addresses: Vec<IpNet>,
    pub routes: Vec<(IpNet, IpAddr)>,
    /// Below `/proc/sys/net`.
    pub sysctls: Vec<(String, &'static str)>,
}

/// A step towards it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    RemoveLink(u32),
    CreateBridge {
        name: String,
        mac: MacAddress,
        mtu: u32,
    },
    SetMtu(u32, u32),
    SetUp(u32),
    RemoveAddress(Address),
    /// An address of the bridge, whose index may not be known yet.
    AddAddress(IpNet),
    AddRoute(IpNet, IpAddr),
}

impl Config {
    /// Refuses what cannot work.
    pub(crate) fn validate(&self) -> Result<(), NetworkError> {
        let refuse = |cause: String| Err(NetworkError::Config(cause));
        if self.bridge.is_empty() || self.bridge.len() > NAME_MAX || self.bridge.contains(['/', ' ', '.']) {
            return refuse(format!(
                "bridge name {:?} must have 1 to {NAME_MAX} characters, no space, dot or slash",
                self.bridge
            ));
        }
        let families: Vec<bool> = self.pod_cidrs.iter().map(|range| range.addr().is_ipv4()).collect();
        if !matches!(families[..], [] | [_] | [true, false] | [false, true]) {
            return refuse("there must be at most one pod range of each family".to_owned());
        }
        for range in &self.pod_cidrs {
            if range.max_prefix_len() - range.prefix_len() < 3 {
                return refuse(format!("pod range {range} has no room for pods"));
            }
            if !self.cluster_cidrs.iter().any(|cluster| cluster.contains(range)) {
                return refuse(format!("pod range {range} is not within the cluster's network"));
            }
        }
        Ok(())
    }

    /// The name of the nftables table of network policies.
    pub fn policy_table(&self) -> String {
        format!("{}-policy", self.table)
    }

    /// The names of the devices that the backend may make.
    pub(crate) fn devices(&self) -> Vec<String> {
        self.backend.devices(&self.device)
    }

    pub(crate) fn gateways(&self) -> Vec<IpAddr> {
        self.pod_cidrs.iter().map(|range| AddressPool::new(*range).gateway()).collect()
    }

    /// Whether a family is configured.
    pub(crate) fn has_ipv6(&self) -> bool {
        self.pod_cidrs.iter().any(|range| range.addr().is_ipv6())
    }
}

/// Refuses cluster networks that meet a route or address of the machine which is not our own bridge's.
pub(crate) fn check_overlap(config: &Config, observed: &Observed) -> Result<(), NetworkError> {
    let own: Vec<u32> = {
        let devices = config.devices();
        let is_own = |link: &&Link| link.name == config.bridge || devices.contains(&link.name);
        observed.links.iter().filter(is_own).map(|link| link.index).collect()
    };
    let name = |index: u32| {
        let link = observed.links.iter().find(|link| link.index == index);
        link.map_or_else(|| format!("interface {index}"), |link| link.name.clone())
    };
    let foreign = |route: &&Route| {
        !own.contains(&route.link) && route.destination.prefix_len() > 0 && route.protocol != PROTOCOL_OVERLAY
    };
    let routes = observed.routes.iter().filter(foreign);
    let routes = routes
        .map(|route| (route.destination, format!("route {} ({})", route.destination, name(route.link))));
    let addresses = observed.addresses.iter().filter(|address| !own.contains(&address.link));
    let addresses =
        addresses.map(|found| (found.address, format!("address {} ({})", found.address, name(found.link))));
    let existing: Vec<(IpNet, String)> = routes.chain(addresses).collect();
    let ranges = config.cluster_cidrs.iter().map(|range| (*range, "cluster-cidr"));
    for (range, flag) in ranges.chain(config.service_cidrs.iter().map(|range| (*range, "service-cidr"))) {
        if let Some((_, existing)) = existing.iter().find(|(other, _)| overlap(range, *other)) {
            return Err(NetworkError::Overlap { range, existing: existing.clone(), flag });
        }
    }
    Ok(())
}

fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b.addr()) || b.contains(&a.addr())
}

/// The machine as the configuration wants it.
pub(crate) fn compile(config: &Config, observed: &Observed) -> Desired {
    let gateways = config.gateways();
    let ranges = config.pod_cidrs.iter().zip(&gateways);
    let mut addresses: Vec<IpNet> =
        ranges.map(|(range, gateway)| IpNet::new(*gateway, range.prefix_len()).unwrap_or(*range)).collect();
    addresses.extend(config.local_addresses.iter().map(|address| IpNet::from(*address)));
    let routes = config.service_cidrs.iter().filter_map(|range| {
        let gateway = gateways.iter().find(|gateway| gateway.is_ipv4() == range.addr().is_ipv4())?;
        Some((range.trunc(), *gateway))
    });
    let mut sysctls = vec![
        ("ipv4/ip_forward".to_owned(), "1"),
        (format!("ipv4/conf/{}/route_localnet", config.bridge), "1"),
        // Pods on one bridge would be told to speak directly, past the translation of addresses. Other interfaces
        // keep their own setting: either of the two is enough to send them.
        ("ipv4/conf/all/send_redirects".to_owned(), "0"),
        (format!("ipv4/conf/{}/send_redirects", config.bridge), "0"),
    ];
    if config.has_ipv6() {
        sysctls.push(("ipv6/conf/all/forwarding".to_owned(), "1"));
    }
    Desired {
        bridge: config.bridge.clone(),
        mac: mac_of(gateways.first().copied().unwrap_or(Ipv4Addr::UNSPECIFIED.into())),
        mtu: pod_mtu(config, observed),
        addresses,
        routes: routes.collect(),
        sysctls,
    }
}

/// The largest packet that pods may send.
pub(crate) fn pod_mtu(config: &Config, observed: &Observed) -> u32 {
    let Some(address) = config.node_addresses.first() else {
        return config.mtu.unwrap_or_else(|| default_mtu(observed));
    };
    let link = underlay(*address, observed).filter(|link| link.name != "lo");
    let carrier = link.map_or_else(|| default_mtu(observed), |link| link.mtu);
    let ipv6 = config.node_addresses.iter().any(IpAddr::is_ipv6);
    config.mtu.unwrap_or_else(|| carrier.saturating_sub(config.backend.overhead(ipv6)))
}

/// The interface that has an address of this machine.
pub(crate) fn underlay(address: IpAddr, observed: &Observed) -> Option<&Link> {
    let found = observed.addresses.iter().find(|found| found.address.addr() == address)?;
    observed.links.iter().find(|link| link.index == found.link)
}

/// The ranges that the bridge has the gateway's addresses of, from an earlier run.
pub(crate) fn earlier_ranges(config: &Config, observed: &Observed) -> Vec<IpNet> {
    let bridge = observed.links.iter().find(|link| link.name == config.bridge && link.kind == "bridge");
    let of_bridge = observed.addresses.iter().filter(|address| Some(address.link) == bridge.map(|b| b.index));
    let ranges = of_bridge.map(|address| address.address).filter(|range| {
        range.prefix_len() < range.max_prefix_len()
            && config.cluster_cidrs.iter().any(|cluster| cluster.contains(range))
    });
    ranges.map(|range| range.trunc()).collect()
}

/// The MTU of the interface with the default route.
fn default_mtu(observed: &Observed) -> u32 {
    let default = observed.routes.iter().find(|route| route.destination.prefix_len() == 0);
    let link = default.and_then(|route| observed.links.iter().find(|link| link.index == route.link));
    link.map_or(MTU_DEFAULT, |link| link.mtu)
}

/// A locally administered hardware address derived from the IP address, so that it is the same after a restart.
pub(crate) fn mac_of(address: IpAddr) -> MacAddress {
    let tail = match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => {
            let octets = address.octets();
            [octets[12] ^ octets[0], octets[13] ^ octets[1], octets[14], octets[15]]
        }
    };
    [0x0a, 0x58, tail[0], tail[1], tail[2], tail[3]]
}

/// The steps from what is there to what is to be there; none when it is.
pub(crate) fn diff(desired: &Desired, observed: &Observed) -> Vec<Action> {
    let found = observed.links.iter().find(|link| link.name == desired.bridge);
    let usable = found.filter(|link| link.kind == "bridge" && link.mac == Some(desired.mac));
    let mut actions = Vec::new();
    match (found, usable) {
        (_, Some(bridge)) => {
            if bridge.mtu != desired.mtu {
                actions.push(Action::SetMtu(bridge.index, desired.mtu));
            }
            if !bridge.up {
                actions.push(Action::SetUp(bridge.index));
            }
        }
        (found, None) => {
            actions.extend(found.map(|link| Action::RemoveLink(link.index)));
            actions.push(Action::CreateBridge {
                name: desired.bridge.clone(),
                mac: desired.mac,
                mtu: desired.mtu,
            });
        }
    }
    let index = usable.map(|bridge| bridge.index);
    let present: Vec<&Address> =
        observed.addresses.iter().filter(|address| Some(address.link) == index).collect();
    let stale = present
        .iter()
        .filter(|found| !desired.addresses.contains(&found.address) && !link_local(found.address));
    actions.extend(stale.map(|found| Action::RemoveAddress((*found).clone())));
    let missing =
        desired.addresses.iter().filter(|wanted| !present.iter().any(|found| found.address == **wanted));
    actions.extend(missing.map(|address| Action::AddAddress(*address)));
    let routed = |wanted: &(IpNet, IpAddr)| {
        observed.routes.iter().any(|route| {
            Some(route.link) == index
                && route.destination == wanted.0
                && route.source == Some(wanted.1)
                && route.kind == RouteKind::Link
        })
    };
    actions.extend(
        desired.routes.iter().filter(|wanted| !routed(wanted)).map(|(to, from)| Action::AddRoute(*to, *from)),
    );
    actions
}

/// The kernel gives every IPv6 interface one of these.
pub(crate) fn link_local(address: IpNet) -> bool {
    matches!(address, IpNet::V6(address) if address.addr().is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use linux::net::route::PROTOCOL_STATIC;

    fn config() -> Config {
        Config {
            pod_cidrs: vec!["10.42.0.0/24".parse().unwrap()],
            cluster_cidrs: vec!["10.42.0.0/16".parse().unwrap()],
            service_cidrs: vec!["10.96.0.0/12".parse().unwrap()],
            local_addresses: vec!["10.96.0.10".parse().unwrap()],
            ..Config::default()
        }
    }

    fn link(index: u32, name: &str, kind: &str) -> Link {
        Link { index, name: name.into(), kind: kind.into(), mtu: 1400, up: true, ..Link::default() }
    }

    fn route(destination: &str, link: u32) -> Route {
        let destination = destination.parse().unwrap();
        Route { destination, kind: RouteKind::Link, link, source: None, protocol: PROTOCOL_STATIC }
    }

    fn machine() -> Observed {
        Observed {
            links: vec![link(1, "lo", ""), link(2, "eth0", "")],
            addresses: vec![Address { link: 2, address: "192.168.7.2/24".parse().unwrap() }],
            routes: vec![route("0.0.0.0/0", 2), route("192.168.7.0/24", 2)],
        }
    }

    fn check(config: Config, observed: Observed, expected: Expect) {
        let text = match config.validate().and_then(|()| check_overlap(&config, &observed)) {
            Err(error) => error.to_string(),
            Ok(()) => {
                let actions = diff(&compile(&config, &observed), &observed);
                actions.iter().map(|action| format!("{action:?}\n")).collect()
            }
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn a_fresh_machine_gets_everything_and_a_ready_one_nothing() {
        check(
            config(),
            machine(),
            expect![[r#"
            CreateBridge { name: "kobune0", mac: [10, 88, 10, 42, 0, 1], mtu: 1400 }
            AddAddress(10.42.0.1/24)
            AddAddress(10.96.0.10/32)
            AddRoute(10.96.0.0/12, 10.42.0.1)
        "#]],
        );
        let mut ready = machine();
        let desired = compile(&config(), &ready);
        ready.links.push(Link { mac: Some(desired.mac), ..link(3, "kobune0", "bridge") });
        ready
            .addresses
            .extend(desired.addresses.iter().map(|address| Address { link: 3, address: *address }));
        ready.routes.push(route("10.42.0.0/24", 3));
        ready.routes.push(Route { source: Some(desired.routes[0].1), ..route("10.96.0.0/12", 3) });
        check(config(), ready.clone(), expect![[""]]);
        ready.addresses.push(Address { link: 3, address: "10.42.9.1/24".parse().unwrap() });
        ready.links[2].up = false;
        check(
            config(),
            ready,
            expect![[r#"
            SetUp(3)
            RemoveAddress(Address { link: 3, address: 10.42.9.1/24 })
        "#]],
        );
    }

    #[test]
    fn another_link_of_that_name_is_replaced() {
        let mut taken = machine();
        taken.links.push(link(9, "kobune0", "bridge"));
        let actions = diff(&compile(&config(), &taken), &taken);
        assert_eq!(actions[0], Action::RemoveLink(9));
    }

    #[test]
    fn overlapping_networks_are_refused_with_what_they_overlap() {
        let mut observed = machine();
        observed.routes.push(route("10.42.7.0/24", 2));
        check(
            config(),
            observed,
            expect![
                "the cluster network 10.42.0.0/16 overlaps route 10.42.7.0/24 (eth0) of this machine: choose another with --cluster-cidr"
            ],
        );
        let mut observed = machine();
        observed.addresses.push(Address { link: 2, address: "10.100.0.7/8".parse().unwrap() });
        check(
            Config {
                cluster_cidrs: vec!["172.20.0.0/16".parse().unwrap()],
                pod_cidrs: vec!["172.20.0.0/24".parse().unwrap()],
                ..config()
            },
            observed,
            expect![
                "the cluster network 10.96.0.0/12 overlaps address 10.100.0.7/8 (eth0) of this machine: choose another with --service-cidr"
            ],
        );
    }

    #[test]
    fn the_mtu_leaves_room_for_the_tunnel() {
        let of = |backend: Backend, addresses: &[&str]| {
            let node_addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            let mut machine = machine();
            machine.links[1].mtu = 1500;
            pod_mtu(&Config { backend, node_addresses, ..config() }, &machine)
        };
        let udp = || Backend::Udp(crate::overlay::Udp::default());
        let here: &[&str] = &["192.168.7.2"];
        assert_eq!(of(Backend::default(), here), 1450);
        assert_eq!(of(Backend::default(), &["192.168.7.2", "fd00::2"]), 1430);
        assert_eq!(of(udp(), here), 1472);
        assert_eq!(of(Backend::HostGw, here), 1500);
        assert_eq!(of(Backend::default(), &[]), 1500, "there are no other nodes");
    }

    #[test]
    fn ranges_of_an_earlier_run_are_found_again() {
        let mut machine = machine();
        machine.links.push(link(3, "kobune0", "bridge"));
        for address in ["10.42.7.1/24", "10.96.0.10/32", "fe80::1/64"] {
            machine.addresses.push(Address { link: 3, address: address.parse().unwrap() });
        }
        let found = earlier_ranges(&Config { pod_cidrs: vec![], ..config() }, &machine);
        assert_eq!(found, ["10.42.7.0/24".parse::<IpNet>().unwrap()]);
    }

    #[test]
    fn impossible_configurations_are_refused() {
        check(
            Config { bridge: "a-name-that-is-too-long".into(), ..config() },
            machine(),
            expect![[
                r#"network configuration: bridge name "a-name-that-is-too-long" must have 1 to 15 characters, no space, dot or slash"#
            ]],
        );
        check(
            Config {
                pod_cidrs: vec!["10.42.0.0/24".parse().unwrap(), "10.42.1.0/24".parse().unwrap()],
                ..config()
            },
            machine(),
            expect!["network configuration: there must be at most one pod range of each family"],
        );
        check(
            Config { pod_cidrs: vec!["10.50.0.0/24".parse().unwrap()], ..config() },
            machine(),
            expect!["network configuration: pod range 10.50.0.0/24 is not within the cluster's network"],
        );
    }
}
