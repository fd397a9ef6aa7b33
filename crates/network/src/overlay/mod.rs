//! The way to the pods of other nodes: flannel's backends, its Node annotations and its `subnet.env`.
//!
//! A node's range is `Node.spec.podCIDRs`; how a node is reached stands in its annotations. Every node reads all Nodes
//! from a cache and needs nobody else. What there is to be is compiled anew when a Node says something else, or when
//! the machine's links, addresses or routes change; the kernel is told only what differs.

mod backend;
mod hands;
mod lease;
mod plan;
mod udp;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use client::{Cache, CacheEvent, Caches, Client, Patch};
use env::Shutdown;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use linux::net::{Change, Monitor};
use machinery::{Key, Object};
use serde_json::json;
use tokio::sync::broadcast::{Receiver, error::RecvError, error::TryRecvError};
use tokio::sync::oneshot;

pub use backend::{Backend, Udp, Vxlan};
use hands::Hands;
pub(crate) use hands::teardown;
pub use lease::Lease;

use crate::plan::NetworkError;
use crate::{Config, PodNetwork};

const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Keeps the way to other nodes' pods. It also gives this node's [`PodNetwork`] its ranges, when the cluster decides
/// them: so on a node that joins it runs beside the kubelet, which registers the Node.
pub struct Overlay {
    network: PodNetwork,
    node: String,
    nodes: Cache,
    client: Client,
    monitor: Monitor,
    hands: Option<Hands>,
    /// All nodes but this one.
    leases: BTreeMap<String, Lease>,
    own: Lease,
}

impl Overlay {
    /// Opens the sockets; changes nothing yet. `client` must be allowed to patch this Node, `caches` to watch Nodes.
    /// Must be called inside a tokio runtime.
    pub fn build(network: PodNetwork, node: &str, caches: &Caches) -> Result<Self, NetworkError> {
        let monitor =
            Monitor::open().map_err(crate::kernel::io("cannot follow the machine's links".to_owned()))?;
        Ok(Self {
            node: node.to_owned(),
            nodes: caches.of::<Node>(),
            client: caches.client().clone(),
            monitor,
            hands: Some(Hands::open()?),
            network,
            leases: BTreeMap::new(),
            own: Lease::default(),
        })
    }

    /// Works until `shutdown`; signals `ready` when the node's range is known and all nodes known by then are
    /// reached. The routes stay.
    pub async fn run(mut self, ready: oneshot::Sender<()>, shutdown: Shutdown) {
        let stopped = shutdown.clone();
        match stopped.run_until_cancelled(self.work(ready)).await {
            None => {}
            Some(never) => match never {},
        }
    }

    async fn work(&mut self, ready: oneshot::Sender<()>) -> Infallible {
        let (mut ready, mut wait) = (Some(ready), RETRY_FIRST);
        let mut events = self.nodes.subscribe();
        self.nodes.synced().await;
        self.read_all();
        loop {
            let outcome = self.sync().await;
            let again = match &outcome {
                Ok(true) => {
                    // Whoever wanted to know may have gone.
                    let _receiver = ready.take().map(|ready| ready.send(()));
                    wait = RETRY_FIRST;
                    None
                }
                Ok(false) => None,
                Err(error) => {
                    tracing::warn!(
                        error = error as &dyn std::error::Error,
                        "other nodes' pods may be out of reach"
                    );
                    wait = (wait * 2).min(RETRY_MAX);
                    Some(wait)
                }
            };
            self.changed(&mut events, again).await;
        }
    }

    /// Waits until there is something to do: another Node, another link, or the time to try again.
    async fn changed(&mut self, events: &mut Receiver<CacheEvent>, again: Option<Duration>) {
        let retry = async {
            match again {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(retry);
        loop {
            let concerns = tokio::select! {
                () = &mut retry => true,
                event = events.recv() => self.note(event, events),
                changes = self.monitor.next() => match changes {
                    Ok(changes) => changes.iter().any(|change| self.is_ours(change)),
                    Err(error) => {
                        tracing::warn!(%error, "cannot follow the machine's links");
                        true
                    }
                },
            };
            if concerns {
                return;
            }
        }
    }

    /// Takes an event and all that are there already; whether any of them makes a difference.
    fn note(&mut self, first: Result<CacheEvent, RecvError>, events: &mut Receiver<CacheEvent>) -> bool {
        let mut differs = false;
        let mut next = match first {
            Ok(event) => Some(event),
            Err(_) => return self.reread(events),
        };
        while let Some(event) = next {
            differs |= match &event {
                CacheEvent::Deleted(object) => self.forget(&object.meta().name),
                CacheEvent::Added(object) | CacheEvent::Modified { new: object, .. } => self.read(object),
            };
            next = match events.try_recv() {
                Ok(event) => Some(event),
                Err(TryRecvError::Lagged(_)) => return self.reread(events),
                Err(_) => None,
            };
        }
        differs
    }

    fn reread(&mut self, events: &mut Receiver<CacheEvent>) -> bool {
        *events = self.nodes.subscribe();
        self.read_all();
        true
    }

    fn read_all(&mut self) {
        self.leases.clear();
        for node in self.nodes.all() {
            self.read(&node);
        }
    }

    fn read(&mut self, node: &Object) -> bool {
        let lease = Lease::read(node.stored());
        let name = &node.meta().name;
        if *name == self.node {
            let differs = self.own != lease;
            self.own = lease;
            return differs;
        }
        if self.leases.get(name) == Some(&lease) {
            return false;
        }
        self.leases.insert(name.clone(), lease);
        true
    }

    fn forget(&mut self, name: &str) -> bool {
        self.leases.remove(name).is_some()
    }

    /// Whether a change of the machine may undo something of ours, or moves what it stands on.
    fn is_ours(&self, change: &Change) -> bool {
        let config = self.network.config();
        let devices = config.devices();
        match change {
            Change::Missed => true,
            Change::Link(link) | Change::LinkGone(link) => {
                devices.contains(&link.name) || link.kind.is_empty() && link.name != "lo"
            }
            Change::Address(address) | Change::AddressGone(address) => {
                let ip = address.address.addr();
                config.node_addresses.contains(&ip)
                    || config.pod_cidrs.iter().any(|range| range.network() == ip)
            }
            Change::RouteGone(route) => {
                config.cluster_cidrs.iter().any(|cluster| cluster.contains(&route.destination))
            }
            Change::Route(_) => false,
        }
    }

    /// Brings everything up to date; false while this node has no range.
    async fn sync(&mut self) -> Result<bool, NetworkError> {
        if self.own.ranges.is_empty() && self.network.config().pod_cidrs.is_empty() {
            return Ok(false);
        }
        if !self.own.ranges.is_empty() {
            self.network.set_ranges(self.own.ranges.clone()).await?;
        }
        let config = self.network.config();
        let leases = self.leases.clone();
        self.with_hands(move |hands| hands.apply(&config, &leases)).await?;
        self.publish().await?;
        Ok(true)
    }

    async fn with_hands<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Hands) -> Result<T, NetworkError> + Send + 'static,
    ) -> Result<T, NetworkError> {
        let mut hands = match self.hands.take() {
            Some(hands) => hands,
            None => Hands::open()?,
        };
        let handle = tokio::runtime::Handle::current();
        let joined = tokio::task::spawn_blocking(move || {
            let _inside = handle.enter();
            let result = work(&mut hands);
            (hands, result)
        });
        let stopping = |error| NetworkError::Config(format!("the process is stopping: {error}"));
        let (hands, result) = joined.await.map_err(stopping)?;
        self.hands = Some(hands);
        result
    }

    /// Says on this Node how it is reached.
    async fn publish(&mut self) -> Result<(), NetworkError> {
        let config = self.network.config();
        if config.node_addresses.is_empty() || self.nodes.get(&Key::new("", &*self.node)).is_none() {
            return Ok(());
        }
        let ranges: Vec<IpNet> = config.pod_cidrs.clone();
        let lease = Lease::own(&config.backend, &ranges, &config.node_addresses, &self.own.overwrite);
        if self.own == lease {
            return Ok(());
        }
        let patch = json!({"metadata": {"annotations": lease.annotations(&config.backend)}});
        let patched = self.client.cluster::<Node>().patch(&self.node, Patch::Merge(patch)).await;
        patched.map_err(|status| {
            NetworkError::Config(format!("cannot publish how this node is reached: {status}"))
        })?;
        Ok(())
    }
}

/// The MTU that pods of this configuration get now, e.g. for `subnet.env`.
pub(crate) fn write_subnet_file(config: &Config, mtu: u32) -> Result<(), NetworkError> {
    let Some(path) = &config.subnet_file else { return Ok(()) };
    let text = plan::subnet_file(config, mtu);
    let failed = || crate::kernel::io(format!("cannot write {}", path.display()));
    if std::fs::read_to_string(path).is_ok_and(|present| present == text) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed())?;
    }
    // Readers see the old file or the new one.
    let new = path.with_extension("env.new");
    std::fs::write(&new, text).map_err(failed())?;
    std::fs::rename(&new, path).map_err(failed())
}
