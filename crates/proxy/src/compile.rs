//! What a Service, or a pod with host ports, asks of the packet filter: pure functions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Pod, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// Seconds; upstream's default of `sessionAffinityConfig.clientIP.timeoutSeconds`.
const AFFINITY_SECONDS_DEFAULT: u32 = 10_800;
/// A Service with this label is served by somebody else.
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// Which question a packet's destination is the key of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// A Service's address, asked by anybody.
    Address = 0,
    /// A Service's address, asked from outside of the cluster, with the policy to use only this node's endpoints.
    AddressFromOutside = 1,
    /// A port on any address of this machine.
    NodePort = 2,
    NodePortFromOutside = 3,
}

impl Scope {
    /// Whether the destination address plays no part.
    pub(crate) fn any_address(self) -> bool {
        matches!(self, Self::NodePort | Self::NodePortFromOutside)
    }
}

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp = 6,
    Udp = 17,
    Sctp = 132,
}

impl Protocol {
    fn parse(name: Option<&str>) -> Option<Self> {
        match name {
            None | Some("TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }
}

/// Where a client sends its packets. With [`Scope::any_address`] the address is unspecified and stands for its family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    pub scope: Scope,
    pub address: IpAddr,
    pub protocol: Protocol,
    pub port: u16,
}

/// What becomes of packets for a frontend that has endpoints, or may have only on other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dispatch {
    /// To one of so many, the same one for a client during so many seconds (0: any).
    Spread {
        count: u32,
        affinity_seconds: u32,
    },
    Drop,
}

/// What becomes of packets that no endpoint takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    Reject,
    Drop,
}

/// An element of one of the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entry {
    Frontend {
        at: Frontend,
        to: Dispatch,
    },
    /// The endpoint with that number behind a frontend.
    Endpoint {
        at: Frontend,
        index: u32,
        endpoint: SocketAddr,
    },
    /// An endpoint that clients may stick to.
    Member {
        at: Frontend,
        endpoint: SocketAddr,
    },
    Refused {
        at: Frontend,
        how: Refusal,
    },
    /// A pod of this node, which may reach itself through a Service.
    Local {
        pod: IpAddr,
    },
    /// Only clients of certain ranges may ask this frontend.
    Guarded {
        at: Frontend,
    },
    /// One of those ranges.
    Allowed {
        at: Frontend,
        clients: IpNet,
    },
}

/// Where this node is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Place {
    pub node: String,
    /// `topology.kubernetes.io/zone`
    pub zone: Option<String>,
}

impl std::fmt::Display for Frontend {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:?} {} {:?}", self.scope, SocketAddr::new(self.address, self.port), self.protocol)
    }
}

impl std::fmt::Display for Entry {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Frontend { at, to: Dispatch::Drop } => write!(out, "{at}: drop"),
            Self::Frontend { at, to: Dispatch::Spread { count, affinity_seconds: 0 } } => {
                write!(out, "{at}: one of {count}")
            }
            Self::Frontend { at, to: Dispatch::Spread { count, affinity_seconds } } => {
                write!(out, "{at}: one of {count}, for {affinity_seconds} s")
            }
            Self::Endpoint { at, index, endpoint } => write!(out, "{at} #{index}: {endpoint}"),
            Self::Member { at, endpoint } => write!(out, "{at} may stick to {endpoint}"),
            Self::Refused { at, how } => write!(out, "{at}: refused, {how:?}"),
            Self::Local { pod } => write!(out, "local pod {pod}"),
            Self::Guarded { at } => write!(out, "{at}: guarded"),
            Self::Allowed { at, clients } => write!(out, "{at}: for {clients}"),
        }
    }
}

/// The endpoints of one port of a Service in one family.
#[derive(Default)]
struct Pools {
    /// All that can be used, and those of them on this node.
    cluster: Vec<SocketAddr>,
    local: Vec<SocketAddr>,
    /// There is an endpoint somewhere, whatever the policies say.
    any: bool,
}

/// The entries of a Service with the slices that belong to it.
pub fn compile_service(service: &Service, slices: &[&EndpointSlice], place: &Place) -> BTreeSet<Entry> {
    let mut entries = BTreeSet::new();
    let (Some(spec), false) = (&service.spec, is_ignored(service)) else { return entries };
    for port in spec.ports.iter().flatten() {
        let (Some(protocol), Ok(number)) =
            (Protocol::parse(port.protocol.as_deref()), u16::try_from(port.port))
        else {
            continue;
        };
        for ipv4 in [true, false] {
            let pools = pools(slices, port, protocol, ipv4, place);
            let compiler = Compiler { spec, pools, protocol, ipv4 };
            compiler.port(service, port, number, &mut entries);
        }
    }
    entries
}

fn is_ignored(service: &Service) -> bool {
    let labels = service.metadata.labels.as_ref();
    let spec = service.spec.as_ref();
    labels.is_some_and(|labels| labels.contains_key(PROXY_NAME_LABEL))
        || spec.is_some_and(|spec| {
            spec.type_.as_deref() == Some("ExternalName")
                || matches!(spec.cluster_ip.as_deref(), None | Some("" | "None"))
        })
}

struct Compiler<'a> {
    spec: &'a ServiceSpec,
    pools: Pools,
    protocol: Protocol,
    ipv4: bool,
}

impl Compiler<'_> {
    fn port(&self, service: &Service, port: &ServicePort, number: u16, entries: &mut BTreeSet<Entry>) {
        self.guard(service, number, entries);
        let internal_local = self.spec.internal_traffic_policy.as_deref() == Some("Local");
        for address in self.cluster_addresses() {
            self.add(self.at(Scope::Address, address, number), internal_local, entries);
        }
        let external_local = self.spec.external_traffic_policy.as_deref() == Some("Local");
        for address in self.external_addresses(service) {
            self.add(self.at(Scope::Address, address, number), false, entries);
            if external_local {
                self.add_outside(self.at(Scope::AddressFromOutside, address, number), entries);
            }
        }
        let node_port = port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
        if let (Some(number), true) = (node_port, self.has_node_ports()) {
            let any = unspecified(self.ipv4);
            self.add(self.at(Scope::NodePort, any, number), false, entries);
            if external_local {
                self.add_outside(self.at(Scope::NodePortFromOutside, any, number), entries);
            }
        }
    }

    /// `loadBalancerSourceRanges` concern the balancer's own addresses only.
    fn guard(&self, service: &Service, number: u16, entries: &mut BTreeSet<Entry>) {
        let ranges = self.spec.load_balancer_source_ranges.iter().flatten();
        let ranges: Vec<IpNet> = ranges.filter_map(|range| range.trim().parse().ok()).collect();
        if ranges.is_empty() {
            return;
        }
        let of_family = ranges.iter().filter(|range| range.addr().is_ipv4() == self.ipv4).copied();
        let clients = IpNet::aggregate(&of_family.collect());
        for address in self.balancer_addresses(service) {
            let at = self.at(Scope::Address, address, number);
            entries.insert(Entry::Guarded { at });
            entries.extend(clients.iter().map(|clients| Entry::Allowed { at, clients: *clients }));
        }
    }

    fn has_node_ports(&self) -> bool {
        let families = self.spec.ip_families.as_deref().unwrap_or_default();
        let family = if self.ipv4 { "IPv4" } else { "IPv6" };
        matches!(self.spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"))
            && (families.is_empty() || families.iter().any(|name| name == family))
    }

    fn at(&self, scope: Scope, address: IpAddr, port: u16) -> Frontend {
        Frontend { scope, address, protocol: self.protocol, port }
    }

    /// A frontend for everybody.
    fn add(&self, at: Frontend, only_local: bool, entries: &mut BTreeSet<Entry>) {
        let pool = if only_local { &self.pools.local } else { &self.pools.cluster };
        if pool.is_empty() {
            let how = if only_local && self.pools.any { Refusal::Drop } else { Refusal::Reject };
            entries.insert(Entry::Refused { at, how });
        } else {
            self.spread(at, pool, entries);
        }
    }

    /// A frontend for clients outside of the cluster with the policy `Local`: a balancer in front of the node must
    /// notice that there is nothing here, so packets vanish.
    fn add_outside(&self, at: Frontend, entries: &mut BTreeSet<Entry>) {
        match (self.pools.local.is_empty(), self.pools.any) {
            (false, _) => self.spread(at, &self.pools.local, entries),
            (true, true) => {
                entries.insert(Entry::Frontend { at, to: Dispatch::Drop });
            }
            // Without any endpoint the frontend for everybody refuses.
            (true, false) => {}
        }
    }

    fn spread(&self, at: Frontend, pool: &[SocketAddr], entries: &mut BTreeSet<Entry>) {
        let affinity_seconds = affinity_seconds(self.spec);
        let count = pool.len() as u32;
        entries.insert(Entry::Frontend { at, to: Dispatch::Spread { count, affinity_seconds } });
        for (index, endpoint) in (0..).zip(pool) {
            entries.insert(Entry::Endpoint { at, index, endpoint: *endpoint });
            if affinity_seconds > 0 {
                entries.insert(Entry::Member { at, endpoint: *endpoint });
            }
        }
    }

    fn cluster_addresses(&self) -> Vec<IpAddr> {
        let several = self.spec.cluster_ips.as_deref().unwrap_or_default();
        let single = self.spec.cluster_ip.as_slice();
        self.of_family(if several.is_empty() { single } else { several }.iter().map(String::as_str))
    }

    fn external_addresses(&self, service: &Service) -> Vec<IpAddr> {
        let external = self.of_family(self.spec.external_ips.iter().flatten().map(String::as_str));
        external.into_iter().chain(self.balancer_addresses(service)).collect()
    }

    fn balancer_addresses(&self, service: &Service) -> Vec<IpAddr> {
        let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let ingress = balancer.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
        let ingress = ingress.iter().filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
        let is_balanced = self.spec.type_.as_deref() == Some("LoadBalancer");
        self.of_family(ingress.filter(|_| is_balanced).filter_map(|ingress| ingress.ip.as_deref()))
    }

    fn of_family<'b>(&self, addresses: impl Iterator<Item = &'b str>) -> Vec<IpAddr> {
        let parsed = addresses.filter_map(|address| address.parse::<IpAddr>().ok());
        parsed.filter(|address| address.is_ipv4() == self.ipv4).collect()
    }
}

fn unspecified(ipv4: bool) -> IpAddr {
    if ipv4 { std::net::Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() }
}

fn affinity_seconds(spec: &ServiceSpec) -> u32 {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return 0;
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|config| config.timeout_seconds);
    seconds
        .and_then(|seconds| u32::try_from(seconds).ok())
        .filter(|s| *s > 0)
        .unwrap_or(AFFINITY_SECONDS_DEFAULT)
}

/// An endpoint's state; absent conditions mean what the API says they mean.
#[derive(Clone, Copy)]
struct Condition {
    ready: bool,
    /// Still answering though it is on its way out.
    draining: bool,
}

fn condition(endpoint: &Endpoint) -> Condition {
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
    let serving = conditions.and_then(|conditions| conditions.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|conditions| conditions.terminating).unwrap_or(false);
    Condition { ready, draining: serving && terminating }
}

/// What matters about an endpoint when one is chosen.
#[derive(Clone, Copy, Default)]
struct Standing {
    is_local: bool,
    /// Whether the endpoint says for which nodes (or zones) it is, and whether this is one of them.
    node_hint: Option<bool>,
    zone_hint: Option<bool>,
}

fn standing(endpoint: &Endpoint, place: &Place) -> Standing {
    let hints = endpoint.hints.as_ref();
    let nodes = hints.and_then(|hints| hints.for_nodes.as_ref()).filter(|nodes| !nodes.is_empty());
    let zones = hints.and_then(|hints| hints.for_zones.as_ref()).filter(|zones| !zones.is_empty());
    Standing {
        is_local: endpoint.node_name.as_deref() == Some(place.node.as_str()),
        node_hint: nodes.map(|nodes| nodes.iter().any(|node| node.name == place.node)),
        zone_hint: zones.map(|zones| zones.iter().any(|zone| Some(&zone.name) == place.zone.as_ref())),
    }
}

type Candidates = BTreeMap<SocketAddr, Standing>;

fn pools(
    slices: &[&EndpointSlice],
    port: &ServicePort,
    protocol: Protocol,
    ipv4: bool,
    place: &Place,
) -> Pools {
    let mut ready = Candidates::new();
    let mut draining = Candidates::new();
    for slice in slices.iter().filter(|slice| is_usable(slice, ipv4)) {
        let Some(number) = slice_port(slice, port, protocol) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let Some(address) = endpoint.addresses.first().and_then(|address| address.parse::<IpAddr>().ok())
            else {
                continue;
            };
            let condition = condition(endpoint);
            let at = SocketAddr::new(address, number);
            if condition.ready {
                ready.insert(at, standing(endpoint, place));
            } else if condition.draining {
                draining.insert(at, standing(endpoint, place));
            }
        }
    }
    let local = |pool: &Candidates| -> Vec<SocketAddr> {
        pool.iter().filter(|(_, standing)| standing.is_local).map(|(endpoint, _)| *endpoint).collect()
    };
    // Only when nothing is ready are endpoints used that are terminating but still answer.
    let cluster = if ready.is_empty() { draining.keys().copied().collect() } else { near(&ready) };
    let ready_here = local(&ready);
    Pools {
        cluster,
        local: if ready_here.is_empty() { local(&draining) } else { ready_here },
        any: !ready.is_empty() || !draining.is_empty(),
    }
}

/// The endpoints that are meant for this node, or else for its zone. Hints count only when all endpoints have them
/// and one of them is meant for here.
fn near(ready: &Candidates) -> Vec<SocketAddr> {
    let hints: [fn(&Standing) -> Option<bool>; 2] =
        [|standing| standing.node_hint, |standing| standing.zone_hint];
    for hint in hints {
        let meant: Option<Vec<bool>> = ready.values().map(hint).collect();
        if let Some(meant) = meant.filter(|meant| meant.contains(&true)) {
            return ready
                .keys()
                .zip(meant)
                .filter(|(_, here)| *here)
                .map(|(endpoint, _)| *endpoint)
                .collect();
        }
    }
    ready.keys().copied().collect()
}

/// What a balancer in front of the nodes is told on the health-check port of a Service: how many endpoints are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    pub port: u16,
    pub local_endpoints: usize,
}

/// The health-check port of a Service, if it has one.
pub fn compile_health(service: &Service, slices: &[&EndpointSlice], place: &Place) -> Option<Health> {
    let spec = service.spec.as_ref().filter(|_| !is_ignored(service))?;
    let port =
        spec.health_check_node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)?;
    let local = spec.type_.as_deref() == Some("LoadBalancer")
        && spec.external_traffic_policy.as_deref() == Some("Local");
    let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    let here = endpoints.filter(|endpoint| {
        condition(endpoint).ready && endpoint.node_name.as_deref() == Some(place.node.as_str())
    });
    let pods: BTreeSet<&str> = here
        .filter_map(|endpoint| {
            let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.as_deref());
            uid.or(endpoint.addresses.first().map(String::as_str))
        })
        .collect();
    local.then_some(Health { port, local_endpoints: pods.len() })
}

fn is_usable(slice: &EndpointSlice, ipv4: bool) -> bool {
    let family = if ipv4 { "IPv4" } else { "IPv6" };
    let headless = slice.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(HEADLESS_LABEL));
    slice.address_type == family && !headless
}

fn slice_port(slice: &EndpointSlice, port: &ServicePort, protocol: Protocol) -> Option<u16> {
    let name = port.name.as_deref().unwrap_or_default();
    let mut ports = slice.ports.iter().flatten();
    let found = ports.find(|candidate| {
        candidate.name.as_deref().unwrap_or_default() == name
            && Protocol::parse(candidate.protocol.as_deref()) == Some(protocol)
    });
    found.and_then(|found| found.port).and_then(|number| u16::try_from(number).ok())
}

/// The entries of a pod: its host ports, and its addresses as ones that may reach themselves. None unless it runs
/// on this node with a network of its own.
pub fn compile_pod(pod: &Pod, node: &str) -> BTreeSet<Entry> {
    let mut entries = BTreeSet::new();
    let (Some(spec), Some(status)) = (&pod.spec, &pod.status) else { return entries };
    let over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if over || spec.host_network == Some(true) || spec.node_name.as_deref() != Some(node) {
        return entries;
    }
    let addresses = status.pod_ips.iter().flatten().filter_map(|found| found.ip.parse::<IpAddr>().ok());
    let sidecars =
        spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let containers: Vec<_> = spec.containers.iter().chain(sidecars).collect();
    for address in addresses {
        entries.insert(Entry::Local { pod: address });
        let ports = containers.iter().flat_map(|container| container.ports.iter().flatten());
        for port in ports {
            let number =
                |port: Option<i32>| port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
            let (Some(host), Some(target)) = (number(port.host_port), number(Some(port.container_port)))
            else {
                continue;
            };
            let Some(protocol) = Protocol::parse(port.protocol.as_deref()) else { continue };
            let endpoint = SocketAddr::new(address, target);
            host_port(endpoint, protocol, host, port.host_ip.as_deref(), &mut entries);
        }
    }
    entries
}

fn host_port(
    endpoint: SocketAddr,
    protocol: Protocol,
    port: u16,
    host_address: Option<&str>,
    entries: &mut BTreeSet<Entry>,
) {
    let wanted =
        host_address.filter(|address| !address.is_empty()).and_then(|address| address.parse::<IpAddr>().ok());
    let wanted = wanted.filter(|address| !address.is_unspecified());
    if wanted.is_some_and(|address| address.is_ipv4() != endpoint.is_ipv4()) {
        return;
    }
    // Without translation of the source: a pod behind a host port sees its clients.
    let scopes = match wanted {
        Some(_) => [Scope::Address, Scope::AddressFromOutside],
        None => [Scope::NodePort, Scope::NodePortFromOutside],
    };
    for scope in scopes {
        let at =
            Frontend { scope, address: wanted.unwrap_or(unspecified(endpoint.is_ipv4())), protocol, port };
        entries.insert(Entry::Frontend { at, to: Dispatch::Spread { count: 1, affinity_seconds: 0 } });
        entries.insert(Entry::Endpoint { at, index: 0, endpoint });
    }
}

#[cfg(test)]
mod tests;
