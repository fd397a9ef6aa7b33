//! What is done to the machine for the overlay.

use std::collections::{BTreeMap, BTreeSet};

use linux::net::wire::Writer;
use linux::net::{Address, AddressFlags, NetlinkError, Protocol, Route, Socket, neighbour, route};

use super::backend::{Backend, tun_device};
use super::lease::Lease;
use super::plan::{self, Desired, EntrySteps, LinkStep, Machine};
use super::udp::Relay;
use crate::kernel::{doing, io};
use crate::plan::{Config, NetworkError, Observed, pod_mtu};

/// Messages that go to the kernel at once.
const AT_ONCE: usize = 400;

/// A socket in the machine's namespace, and the relay of the `udp` backend when it is in use.
pub struct Hands {
    route: Socket,
    relay: Option<Relay>,
    /// What was complained about last.
    problems: BTreeSet<String>,
}

impl Hands {
    /// In the calling thread's network namespace.
    pub fn open() -> Result<Self, NetworkError> {
        let route = Socket::open(Protocol::Route).map_err(doing("cannot open a route socket"))?;
        Ok(Self { route, relay: None, problems: BTreeSet::new() })
    }

    /// Brings the machine into the state that the leases ask for; changes nothing when it is.
    pub fn apply(&mut self, config: &Config, leases: &BTreeMap<String, Lease>) -> Result<(), NetworkError> {
        let machine = self.observe()?;
        let desired = plan::compile(config, leases, &machine);
        self.complain(&desired);
        self.carry(config, &desired)?;
        let machine = if desired.peers.is_empty() { machine } else { self.observe()? };
        let steps = plan::diff_links(config, &desired, &machine);
        let machine = if steps.is_empty() {
            machine
        } else {
            for step in &steps {
                self.step(step).map_err(doing(format!("overlay: {step:?}")))?;
            }
            self.observe()?
        };
        let entries = plan::diff_entries(config, &desired, &machine);
        if !entries.is_empty() {
            self.write(&entries).map_err(doing("cannot set the way to other nodes' pods"))?;
        }
        super::write_subnet_file(config, pod_mtu(config, &machine.base))
    }

    fn observe(&mut self) -> Result<Machine, NetworkError> {
        let look = |socket: &mut Socket| -> Result<Machine, NetlinkError> {
            let base =
                Observed { links: socket.links()?, addresses: socket.addresses()?, routes: socket.routes()? };
            Ok(Machine { base, neighbours: socket.neighbours()?, forwardings: socket.forwardings()? })
        };
        look(&mut self.route).map_err(doing("cannot look at the machine's network"))
    }

    fn complain(&mut self, desired: &Desired) {
        for problem in desired.problems.difference(&self.problems) {
            tracing::warn!(problem, "a node's pods are out of reach");
        }
        self.problems = desired.problems.clone();
    }

    /// Starts or stops carrying packets ourselves.
    fn carry(&mut self, config: &Config, desired: &Desired) -> Result<(), NetworkError> {
        let Backend::Udp(udp) = &config.backend else { return Ok(()) };
        if desired.peers.is_empty() {
            self.relay = None;
            return Ok(());
        }
        let relay = match self.relay.take() {
            Some(relay) => relay,
            None => Relay::start(&tun_device(&config.device), &config.node_addresses, udp.port)
                .map_err(io("the udp backend cannot start".to_owned()))?,
        };
        relay.set_peers(&desired.peers);
        self.relay = Some(relay);
        Ok(())
    }

    fn step(&mut self, step: &LinkStep) -> Result<(), NetlinkError> {
        let socket = &mut self.route;
        match step {
            LinkStep::Remove(index) => socket.delete_link(*index),
            LinkStep::Create { name, mac, mtu, tunnel } => socket.create_vxlan(name, *mac, *mtu, tunnel),
            LinkStep::SetMtu(index, mtu) => socket.set_mtu(*index, *mtu),
            LinkStep::SetUp(index) => socket.set_up(*index),
            LinkStep::RemoveAddress(address) => socket.delete_address(address),
            LinkStep::AddAddress(name, address) => match socket.link(name)? {
                Some(link) => {
                    let address = Address { link: link.index, address: *address };
                    socket.add_address(&address, AddressFlags::default())
                }
                None => Ok(()),
            },
        }
    }

    fn write(&mut self, steps: &EntrySteps) -> Result<(), NetlinkError> {
        let remove_route = |request: &mut Writer, route: &Route| {
            route::write_route_removals(request, std::slice::from_ref(route));
        };
        let add_route =
            |request: &mut Writer, route: &Route| route::write_routes(request, std::slice::from_ref(route));
        self.send(&steps.remove_routes, remove_route, true)?;
        self.send(&steps.remove_neighbours, neighbour::write_neighbour_removal, true)?;
        self.send(&steps.remove_forwardings, neighbour::write_forwarding_removal, true)?;
        self.send(&steps.neighbours, neighbour::write_neighbour, false)?;
        self.send(&steps.forwardings, neighbour::write_forwarding, false)?;
        self.send(&steps.routes, add_route, false)
    }

    fn send<T>(
        &mut self,
        items: &[T],
        write: impl Fn(&mut Writer, &T),
        removes: bool,
    ) -> Result<(), NetlinkError> {
        for chunk in items.chunks(AT_ONCE) {
            let mut request = Writer::new();
            chunk.iter().for_each(|item| write(&mut request, item));
            match self.route.request(request) {
                Err(error) if !(removes && error.is_missing()) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Removes every trace of the overlay.
pub fn teardown(config: &Config) -> Result<(), NetworkError> {
    let mut hands = Hands::open()?;
    let machine = hands.observe()?;
    if !machine.base.links.iter().any(|link| link.name == config.bridge) {
        // It never ran here: what looks like its routes is another instance's.
        return Ok(());
    }
    let nothing = Desired::default();
    let entries = plan::diff_entries(config, &nothing, &machine);
    let mut results = vec![hands.write(&entries)];
    let links = plan::diff_links(config, &nothing, &machine);
    results.extend(links.iter().map(|step| hands.step(step)));
    let removed: Result<(), NetlinkError> = results.into_iter().collect();
    removed.map_err(doing("cannot remove the way to other nodes' pods"))?;
    match config.subnet_file.as_ref().map(std::fs::remove_file) {
        Some(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io("cannot remove subnet.env".to_owned())(error))
        }
        _ => Ok(()),
    }
}
