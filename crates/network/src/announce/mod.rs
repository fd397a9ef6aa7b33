//! Addresses of load balancers' pools, brought to a node: one node at a time has an address on its interface, so that
//! it answers for it (ARP, neighbour discovery), and tells the link so.
//!
//! Which node that is follows from a Lease per address. With the traffic policy `Local` only nodes with endpoints
//! take part. A node that is lost is replaced when its Lease runs out; by then the kernel of a node whose process died
//! has removed the address.

mod election;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use client::{Cache, Caches, Client};
use env::{Env, Shutdown};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use linux::net::{Address, AddressFlags, Link, Protocol, Socket, arp};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::NetworkError;
use crate::kernel::doing;
use election::Election;

/// How addresses are announced.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AnnouncerConfig {
    /// The ranges of the load balancers' addresses.
    pub pool: Vec<IpNet>,
    /// This node's name.
    pub node: String,
    /// This machine's own addresses: where no interface has a network with the address, it goes to theirs.
    pub node_addresses: Vec<IpAddr>,
}

/// Announces addresses of the pool that this node has to answer for.
pub struct Announcer {
    config: AnnouncerConfig,
    services: Cache,
    slices: Cache,
    client: Client,
    env: Env,
    holder: Holder,
}

/// Puts addresses on interfaces. Cheap to clone.
#[derive(Clone)]
struct Holder {
    socket: Arc<Mutex<Socket>>,
    node_addresses: Arc<[IpAddr]>,
}

impl Announcer {
    /// Opens a socket; changes nothing yet. `caches` must be allowed to watch Services and EndpointSlices, and its
    /// client to change Leases of `kube-system`. Must be called inside a tokio runtime.
    pub fn build(config: AnnouncerConfig, caches: &Caches, env: Env) -> Result<Self, NetworkError> {
        let socket = Socket::open(Protocol::Route).map_err(doing("cannot open a route socket"))?;
        let holder = Holder {
            socket: Arc::new(Mutex::new(socket)),
            node_addresses: config.node_addresses.clone().into(),
        };
        Ok(Self {
            services: caches.of::<Service>(),
            slices: caches.of::<EndpointSlice>(),
            client: caches.client().clone(),
            config,
            env,
            holder,
        })
    }

    /// Works until `shutdown`, and then gives up what it holds.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), NetworkError> {
        self.holder.remove_all(&self.config.pool)?;
        let mut elections: BTreeMap<IpAddr, Shutdown> = BTreeMap::new();
        let mut tasks = JoinSet::new();
        let (mut services, mut slices) = (self.services.subscribe(), self.slices.subscribe());
        self.services.synced().await;
        self.slices.synced().await;
        loop {
            let wanted = self.wanted();
            elections.retain(|address, stop| {
                let stays = wanted.contains(address);
                if !stays {
                    stop.cancel();
                }
                stays
            });
            for address in wanted {
                elections.entry(address).or_insert_with(|| {
                    let stop = shutdown.child_token();
                    let election = Election::new(&self.client, self.env.clone(), &self.config.node, address);
                    tasks.spawn(election.run(self.holder.clone(), stop.clone()));
                    stop
                });
            }
            let missed = tokio::select! {
                () = shutdown.cancelled() => break,
                event = services.recv() => event.is_err(),
                event = slices.recv() => event.is_err(),
                Some(_) = tasks.join_next(), if !tasks.is_empty() => false,
            };
            if missed {
                (services, slices) = (self.services.subscribe(), self.slices.subscribe());
            }
        }
        while tasks.join_next().await.is_some() {}
        Ok(())
    }

    /// The addresses for which this node may answer.
    fn wanted(&self) -> BTreeSet<IpAddr> {
        let slices = self.slices.all();
        let services = self.services.all();
        services.iter().flat_map(|service| wanted::addresses(service, &slices, &self.config)).collect()
    }
}

impl Holder {
    /// Has the address here for some time and says so to the link.
    fn take(&self, address: IpAddr, lifetime: Duration) -> Result<(), NetworkError> {
        match self.keep(address, lifetime)? {
            Some(Link { index, mac: Some(mac), .. }) => arp::announce(index, mac, address)
                .map_err(crate::kernel::io(format!("cannot announce {address}"))),
            _ => Ok(()),
        }
    }

    /// Has the address here for some time more; on which link.
    fn keep(&self, address: IpAddr, lifetime: Duration) -> Result<Option<Link>, NetworkError> {
        let mut socket = self.socket.lock();
        let keep = |socket: &mut Socket| {
            let Some(link) = self.link(socket, address)? else { return Ok(None) };
            let own = Address { link: link.index, address: IpNet::from(address) };
            let flags = AddressFlags { no_prefix_route: true, lifetime: Some(lifetime) };
            socket.add_address(&own, flags)?;
            Ok(Some(link))
        };
        keep(&mut socket).map_err(doing(format!("cannot have {address} here")))
    }

    fn leave(&self, address: IpAddr) -> Result<(), NetworkError> {
        self.remove(|found| found.addr() == address)
    }

    /// Removes what an earlier run left.
    fn remove_all(&self, pool: &[IpNet]) -> Result<(), NetworkError> {
        self.remove(|found| pool.iter().any(|range| range.contains(&found.addr())))
    }

    fn remove(&self, is_meant: impl Fn(&IpNet) -> bool) -> Result<(), NetworkError> {
        let mut socket = self.socket.lock();
        let all = socket.addresses().map_err(doing("cannot list addresses"))?;
        let single = |found: &&Address| found.address.prefix_len() == found.address.max_prefix_len();
        for found in all.iter().filter(single).filter(|found| is_meant(&found.address)) {
            socket.delete_address(found).map_err(doing(format!("cannot give up {}", found.address)))?;
        }
        Ok(())
    }

    /// The interface whose network has the address, or else the one with the node's own address.
    fn link(&self, socket: &mut Socket, address: IpAddr) -> Result<Option<Link>, linux::net::NetlinkError> {
        let addresses = socket.addresses()?;
        let near = addresses.iter().find(|found| {
            found.address.prefix_len() < found.address.max_prefix_len() && found.address.contains(&address)
        });
        let own = || addresses.iter().find(|found| self.node_addresses.contains(&found.address.addr()));
        let index = near.or_else(own).map(|found| found.link);
        Ok(socket.links()?.into_iter().find(|link| Some(link.index) == index))
    }
}
