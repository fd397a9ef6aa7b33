//! [`Proxy`]: keeps the packet filter as the Services want it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use client::{Cache, CacheEvent, Caches};
use env::Shutdown;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use linux::net::NetlinkError;
use linux::nft::NftError;
use machinery::{Key, Object};
use parking_lot::Mutex;
use tokio::sync::{broadcast, oneshot};

use crate::compile::{Entry, Health, Place, compile_health, compile_pod, compile_service};
use crate::health::Servers;
use crate::parts::{pod_of, service_of, slice_of};
use crate::state::{Changes, Owner, State};
use crate::tables::Table;

const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// So many owners change in one transaction at most.
const OWNERS_AT_ONCE: usize = 4096;

/// How the proxy is set up.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The nftables table, this instance's own.
    pub table: String,
    /// This node's name: its endpoints are local.
    pub node: String,
    /// Ranges of pod addresses; who is in them is inside of the cluster.
    pub cluster_cidrs: Vec<IpNet>,
    /// Ranges of Services' addresses: what nobody claims there is rejected.
    pub service_cidrs: Vec<IpNet>,
}

/// Why the proxy cannot work.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error("Services cannot be set up in the packet filter")]
    Nftables(#[from] NftError),
    #[error("Services cannot be set up in the packet filter")]
    Netlink(#[from] NetlinkError),
    #[error("the process is stopping")]
    Stopping(#[source] tokio::task::JoinError),
}

/// Turns Services into rules of the packet filter.
pub struct Proxy {
    config: Config,
    services: Cache,
    slices: Cache,
    pods: Cache,
    nodes: Cache,
    place: Place,
    health: BTreeMap<Key, Health>,
    servers: Servers,
    table: Arc<Mutex<Table>>,
    state: State,
    /// The slices of each Service.
    slices_of: BTreeMap<Key, BTreeSet<Key>>,
}

impl Proxy {
    /// Opens the way to the packet filter; changes nothing yet. Must be called inside a tokio runtime.
    pub fn build(config: Config, caches: &Caches) -> Result<Self, ProxyError> {
        let (services, slices, pods) =
            (caches.of::<Service>(), caches.of::<EndpointSlice>(), caches.of::<Pod>());
        let table = Table::open(&config.table, &config.cluster_cidrs, &config.service_cidrs)?;
        let table = Arc::new(Mutex::new(table));
        Ok(Self {
            nodes: caches.of::<Node>(),
            place: Place { node: config.node.clone(), zone: None },
            health: BTreeMap::new(),
            servers: Servers::default(),
            config,
            services,
            slices,
            pods,
            table,
            state: State::default(),
            slices_of: BTreeMap::new(),
        })
    }

    /// Works until `shutdown`; signals `ready` when the rules match the API for the first time. The rules stay.
    pub async fn run(mut self, ready: oneshot::Sender<()>, shutdown: Shutdown) -> Result<(), ProxyError> {
        let stopped = shutdown.clone();
        match stopped.run_until_cancelled(self.work(ready)).await {
            Some(Err(error)) => Err(error),
            Some(Ok(never)) => match never {},
            None => Ok(()),
        }
    }

    async fn work(&mut self, ready: oneshot::Sender<()>) -> Result<std::convert::Infallible, ProxyError> {
        let mut inputs = self.subscribe();
        self.services.synced().await;
        self.slices.synced().await;
        self.pods.synced().await;
        self.nodes.synced().await;
        self.replace().await?;
        // Whoever wanted to know may have gone.
        let _receiver = ready.send(());
        let mut wait = RETRY_FIRST;
        let mut healthy = true;
        loop {
            if !healthy {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY_MAX);
                inputs = self.subscribe();
            }
            let outcome = match healthy {
                true => self.follow(&mut inputs).await,
                false => self.replace().await,
            };
            match outcome {
                Ok(()) if healthy => wait = RETRY_FIRST,
                Ok(()) => healthy = true,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the packet filter refused a change"
                    );
                    healthy = false;
                }
            }
        }
    }

    fn subscribe(&self) -> Inputs {
        Inputs {
            services: self.services.subscribe(),
            slices: self.slices.subscribe(),
            pods: self.pods.subscribe(),
            nodes: self.nodes.subscribe(),
        }
    }

    /// Compiles everything anew and replaces the table.
    async fn replace(&mut self) -> Result<(), ProxyError> {
        self.state = State::default();
        self.health.clear();
        self.slices_of.clear();
        self.place.zone = self.zone();
        for slice in self.slices.all() {
            self.note_slice(&slice, true);
        }
        for service in self.services.all() {
            self.compile(&Owner::Service(service.key()), &mut Changes::default());
        }
        for pod in self.pods.all() {
            if self.is_here(&pod) {
                self.compile(&Owner::Pod(pod.key()), &mut Changes::default());
            }
        }
        let entries = self.state.entries();
        self.blocking(move |table| Ok(table.replace(&entries)?)).await?;
        self.servers.set(&self.health).await;
        Ok(())
    }

    /// The zone that this node is in now.
    fn zone(&self) -> Option<String> {
        let node = self.nodes.get(&Key::new("", &*self.config.node))?;
        node.meta().labels.get(ZONE_LABEL).cloned()
    }

    /// Waits for changes and applies those that are there.
    async fn follow(&mut self, inputs: &mut Inputs) -> Result<(), ProxyError> {
        let Some(first) = inputs.next().await else {
            *inputs = self.subscribe();
            return self.replace().await;
        };
        let mut owners = BTreeSet::new();
        let mut next = Ok(Some(first));
        while let Ok(Some(change)) = next {
            owners.extend(self.note(change));
            next = if owners.len() < OWNERS_AT_ONCE { inputs.ready() } else { Ok(None) };
        }
        if next.is_err() || self.zone() != self.place.zone {
            *inputs = self.subscribe();
            return self.replace().await;
        }
        let mut changes = Changes::default();
        let health = self.health.clone();
        owners.iter().for_each(|owner| self.compile(owner, &mut changes));
        changes.settle();
        if self.health != health {
            self.servers.set(&self.health).await;
        }
        if changes.is_empty() {
            return Ok(());
        }
        tracing::debug!(removed = changes.remove.len(), added = changes.add.len(), "changing Services");
        self.blocking(move |table| {
            table.apply(&changes)?;
            Ok(table.forget(&changes.stale_flows())?)
        })
        .await
    }

    /// Whose entries a change touches.
    fn note(&mut self, change: Change) -> Vec<Owner> {
        match change {
            Change::Service(event) => vec![Owner::Service(event.object().key())],
            Change::Slice(event) => self.note_slice_event(&event).into_iter().map(Owner::Service).collect(),
            Change::Node => Vec::new(),
            Change::Pod(event) => {
                let key = event.object().key();
                self.is_here(event.object()).then_some(Owner::Pod(key)).into_iter().collect()
            }
        }
    }

    /// A slice may change its Service.
    fn note_slice_event(&mut self, event: &CacheEvent) -> BTreeSet<Key> {
        let (gone, there) = match event {
            CacheEvent::Added(new) => (None, Some(new)),
            CacheEvent::Modified { old, new } => (Some(old), Some(new)),
            CacheEvent::Deleted(old) => (Some(old), None),
        };
        let gone = gone.and_then(|slice| self.note_slice(slice, false));
        let there = there.and_then(|slice| self.note_slice(slice, true));
        gone.into_iter().chain(there).collect()
    }

    fn is_here(&self, pod: &Object) -> bool {
        pod.node_name() == self.config.node
    }

    fn note_slice(&mut self, slice: &Object, present: bool) -> Option<Key> {
        let service = slice.meta().labels.get(SERVICE_NAME_LABEL)?;
        let service = Key::new(&*slice.meta().namespace, &**service);
        let slices = self.slices_of.entry(service.clone()).or_default();
        match present {
            true => slices.insert(slice.key()),
            false => slices.remove(&slice.key()),
        };
        if slices.is_empty() {
            self.slices_of.remove(&service);
        }
        Some(service)
    }

    /// Brings one owner's entries up to date.
    fn compile(&mut self, owner: &Owner, changes: &mut Changes) {
        let entries = match owner {
            Owner::Service(key) => self.service_entries(key),
            Owner::Pod(key) => {
                let pod = self.pods.get(key).and_then(|pod| pod_of(&pod));
                pod.map(|pod| compile_pod(&pod, &self.config.node)).unwrap_or_default()
            }
        };
        self.state.update(owner, entries, changes);
    }

    fn service_entries(&mut self, key: &Key) -> BTreeSet<Entry> {
        self.health.remove(key);
        let Some(service) = self.services.get(key).and_then(|service| service_of(&service)) else {
            return BTreeSet::new();
        };
        let keys = self.slices_of.get(key).into_iter().flatten();
        let slices: Vec<EndpointSlice> =
            keys.filter_map(|key| self.slices.get(key)).filter_map(|slice| slice_of(&slice)).collect();
        let slices: Vec<&EndpointSlice> = slices.iter().collect();
        if let Some(health) = compile_health(&service, &slices, &self.place) {
            self.health.insert(key.clone(), health);
        }
        compile_service(&service, &slices, &self.place)
    }

    /// The kernel answers when it is done, which may take a while with many Services.
    async fn blocking(
        &self,
        work: impl FnOnce(&mut Table) -> Result<(), ProxyError> + Send + 'static,
    ) -> Result<(), ProxyError> {
        let table = self.table.clone();
        tokio::task::spawn_blocking(move || work(&mut table.lock())).await.map_err(ProxyError::Stopping)?
    }
}

/// Removes every trace of a proxy with that table.
pub fn teardown(table: &str) -> Result<(), ProxyError> {
    Ok(Table::open(table, &[], &[])?.remove()?)
}

struct Inputs {
    services: broadcast::Receiver<CacheEvent>,
    slices: broadcast::Receiver<CacheEvent>,
    pods: broadcast::Receiver<CacheEvent>,
    nodes: broadcast::Receiver<CacheEvent>,
}

enum Change {
    Service(CacheEvent),
    Slice(CacheEvent),
    Pod(CacheEvent),
    /// Perhaps this one is in another zone now.
    Node,
}

/// Changes were missed: everything must be read again.
struct Missed;

impl Inputs {
    /// The next change; `None` when some were missed.
    async fn next(&mut self) -> Option<Change> {
        tokio::select! {
            event = self.services.recv() => event.ok().map(Change::Service),
            event = self.slices.recv() => event.ok().map(Change::Slice),
            event = self.pods.recv() => event.ok().map(Change::Pod),
            event = self.nodes.recv() => event.ok().map(|_| Change::Node),
        }
    }

    /// A change that is there already.
    fn ready(&mut self) -> Result<Option<Change>, Missed> {
        fn take(
            receiver: &mut broadcast::Receiver<CacheEvent>,
            wrap: fn(CacheEvent) -> Change,
        ) -> Result<Option<Change>, Missed> {
            match receiver.try_recv() {
                Ok(event) => Ok(Some(wrap(event))),
                Err(broadcast::error::TryRecvError::Lagged(_)) => Err(Missed),
                Err(_) => Ok(None),
            }
        }
        if let Some(change) = take(&mut self.services, Change::Service)? {
            return Ok(Some(change));
        }
        if let Some(change) = take(&mut self.slices, Change::Slice)? {
            return Ok(Some(change));
        }
        if let Some(change) = take(&mut self.pods, Change::Pod)? {
            return Ok(Some(change));
        }
        take(&mut self.nodes, |_| Change::Node)
    }
}
