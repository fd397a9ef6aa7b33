//! [`Dns`]: the server with its caches.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use client::{Cache, CacheEvent, Caches, typed};
use env::{Env, Shutdown};
use hickory_proto::rr::Name;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use machinery::{Key, Object};
use parking_lot::RwLock;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::answer::Settings;
use crate::metrics::Metrics;
use crate::server::{Shared, serve_tcp, serve_udp};
use crate::upstream::Upstream;
use crate::zone::{ServiceRecord, Zone, compile};

const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
const TTL_SECONDS: u32 = 5;

/// How cluster DNS is set up.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where to listen, UDP and TCP. The addresses must be this machine's.
    pub listen: Vec<SocketAddr>,
    /// `cluster.local`
    pub domain: String,
    /// Seconds that clients may remember an answer.
    pub ttl: u32,
    /// The servers for everything else.
    pub upstreams: Vec<SocketAddr>,
    /// Names them when there are none above; read again when it changed.
    pub resolv_conf: PathBuf,
    /// Domains with servers of their own.
    pub stub_domains: BTreeMap<String, Vec<SocketAddr>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            domain: "cluster.local".to_owned(),
            ttl: TTL_SECONDS,
            upstreams: Vec::new(),
            resolv_conf: "/etc/resolv.conf".into(),
            stub_domains: BTreeMap::new(),
        }
    }
}

/// Why cluster DNS cannot work.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    #[error("cluster domain {0:?} is not a domain name")]
    Domain(String),
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
}

/// Cluster DNS.
pub struct Dns {
    shared: Arc<Shared>,
    sockets: Vec<(Arc<UdpSocket>, TcpListener)>,
    services: Cache,
    slices: Cache,
    namespaces: Cache,
    /// The slices of each Service.
    slices_of: BTreeMap<Key, BTreeSet<Key>>,
}

impl Dns {
    /// Opens the sockets; answers nothing yet.
    pub async fn build(config: Config, caches: &Caches, env: Env) -> Result<Self, DnsError> {
        let mut domain = Name::from_ascii(&config.domain)
            .map_err(|_| DnsError::Domain(config.domain.clone()))?
            .to_lowercase();
        domain.set_fqdn(true);
        let mut sockets = Vec::new();
        for address in &config.listen {
            sockets.push(
                listen(*address).await.map_err(|source| DnsError::Listen { address: *address, source })?,
            );
        }
        let own: Vec<SocketAddr> = sockets.iter().filter_map(|(udp, _)| udp.local_addr().ok()).collect();
        let servers = own.iter().map(SocketAddr::ip).collect::<BTreeSet<_>>().into_iter().collect();
        let shared = Shared {
            settings: Settings { domain, ttl: config.ttl, servers },
            zone: RwLock::new(Zone::default()),
            loaded: AtomicBool::new(false),
            upstream: Upstream::new(env.clone(), &config, own),
            metrics: Arc::default(),
            env,
        };
        Ok(Self {
            shared: Arc::new(shared),
            sockets,
            services: caches.of::<Service>(),
            slices: caches.of::<EndpointSlice>(),
            namespaces: caches.of::<Namespace>(),
            slices_of: BTreeMap::new(),
        })
    }

    /// The addresses that it listens on.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|(udp, _)| udp.local_addr().ok()).collect()
    }

    pub fn metrics(&self) -> Arc<Metrics> {
        self.shared.metrics.clone()
    }

    /// Answers until `shutdown`; signals `ready` when everything the API has is known.
    pub async fn run(mut self, ready: oneshot::Sender<()>, shutdown: Shutdown) {
        // Dropping the set ends the tasks.
        let mut tasks = JoinSet::new();
        for (udp, tcp) in std::mem::take(&mut self.sockets) {
            tasks.spawn(serve_udp(self.shared.clone(), udp));
            tasks.spawn(serve_tcp(self.shared.clone(), tcp));
        }
        shutdown.run_until_cancelled(self.follow(ready)).await;
    }

    async fn follow(&mut self, ready: oneshot::Sender<()>) {
        let mut services = self.services.subscribe();
        let mut slices = self.slices.subscribe();
        let mut namespaces = self.namespaces.subscribe();
        self.services.synced().await;
        self.slices.synced().await;
        self.namespaces.synced().await;
        self.load();
        self.shared.loaded.store(true, Ordering::Release);
        // Whoever wanted to know may have gone.
        let _receiver = ready.send(());
        loop {
            let known = tokio::select! {
                event = services.recv() => event.map(|event| self.refresh(&event.object().key())).is_ok(),
                event = slices.recv() => event.map(|event| self.note_slice(&event)).is_ok(),
                event = namespaces.recv() => event.map(|event| self.note_namespace(&event)).is_ok(),
            };
            if !known {
                (services, slices) = (self.services.subscribe(), self.slices.subscribe());
                namespaces = self.namespaces.subscribe();
                self.load();
            }
        }
    }

    /// Learns everything anew and puts it in place at once.
    fn load(&mut self) {
        self.slices_of.clear();
        for slice in self.slices.all() {
            if let Some(service) = service_of(&slice) {
                self.slices_of.entry(service).or_default().insert(slice.key());
            }
        }
        let mut zone = Zone::default();
        for namespace in self.namespaces.all() {
            zone.set_namespace(&namespace.meta().name, true);
        }
        for service in self.services.all() {
            let key = service.key();
            zone.set_service(&key, self.record(&key));
        }
        *self.shared.zone.write() = zone;
    }

    fn refresh(&self, service: &Key) {
        let record = self.record(service);
        self.shared.zone.write().set_service(service, record);
    }

    fn record(&self, key: &Key) -> Option<ServiceRecord> {
        let service = self.services.get(key).and_then(|service| usable::<Service>(&service))?;
        let keys = self.slices_of.get(key).into_iter().flatten();
        let slices =
            keys.filter_map(|key| self.slices.get(key)).filter_map(|slice| usable::<EndpointSlice>(&slice));
        let slices: Vec<Arc<EndpointSlice>> = slices.collect();
        let slices: Vec<&EndpointSlice> = slices.iter().map(|slice| &**slice).collect();
        compile(&service, &slices)
    }

    fn note_slice(&mut self, event: &CacheEvent) {
        let (gone, there) = match event {
            CacheEvent::Added(new) => (None, Some(new)),
            CacheEvent::Modified { old, new } => (Some(old), Some(new)),
            CacheEvent::Deleted(old) => (Some(old), None),
        };
        // A slice may change its Service.
        let gone = gone.and_then(|slice| self.move_slice(slice, false));
        let there = there.and_then(|slice| self.move_slice(slice, true));
        for service in gone.into_iter().chain(there).collect::<BTreeSet<_>>() {
            self.refresh(&service);
        }
    }

    fn move_slice(&mut self, slice: &Object, present: bool) -> Option<Key> {
        let service = service_of(slice)?;
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

    fn note_namespace(&self, event: &CacheEvent) {
        let exists = !matches!(event, CacheEvent::Deleted(_));
        self.shared.zone.write().set_namespace(&event.object().meta().name, exists);
    }
}

async fn listen(address: SocketAddr) -> std::io::Result<(Arc<UdpSocket>, TcpListener)> {
    let tcp = TcpListener::bind(address).await?;
    // With port 0 both get the same one.
    let udp = UdpSocket::bind(tcp.local_addr()?).await?;
    Ok((Arc::new(udp), tcp))
}

fn service_of(slice: &Object) -> Option<Key> {
    let name = slice.meta().labels.get(SERVICE_NAME_LABEL)?;
    Some(Key::new(&*slice.meta().namespace, &**name))
}

/// The typed view; an object that does not fit its kind is left out and said so.
fn usable<T: serde::de::DeserializeOwned + Send + Sync + 'static>(object: &Object) -> Option<Arc<T>> {
    typed::<T>(object).inspect_err(|status| tracing::warn!(%status, "left out")).ok()
}
