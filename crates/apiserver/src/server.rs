//! The API server as a component.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use auth::User;
use client::{Client, Transport};
use env::Shutdown;
use resources::Table;
use store::StoreError;
use tokio::net::TcpListener;

use crate::cache::Cache;
use crate::computed;
use crate::config::{ClusterFacts, Config};
use crate::connect::Connectors;
use crate::core::Core;
use crate::discovery::health::{Check, Health};
use crate::fairness::Fairness;
use crate::http::listener;
use crate::leases::Leases;
use crate::metrics::Metrics;
use crate::transport::InProcess;

/// How often old history is forgotten.
const COMPACT_EVERY: Duration = Duration::from_secs(150);
/// How many rounds history is kept: five minutes at least, as upstream.
const ROUNDS_KEPT: usize = 2;

/// The API server. Cheap to clone; clones are the same server.
#[derive(Clone)]
pub struct Server {
    core: Arc<Core>,
    /// Whether changes of the store are no longer seen.
    lost: Arc<AtomicBool>,
}

impl Server {
    /// Reads the present state from the store. Binds nothing and starts nothing: poll [`Server::run`] before
    /// anything is written, or reads will wait in vain.
    pub async fn build(config: Config) -> Result<Self, StoreError> {
        let cache = Cache::load(config.store, &config.table).await?;
        let core = Core {
            env: config.env,
            cache,
            table: ArcSwap::from_pointee(config.table),
            schema: config.schema,
            authenticator: config.authenticator,
            authorizer: config.authorizer,
            admission: OnceLock::new(),
            computations: computed::builtin(),
            connectors: Connectors { dialer: config.dialer, kubelet_tls: config.kubelet_tls },
            tokens: config.tokens,
            fairness: Fairness::default(),
            leases: Leases::default(),
            metrics: Metrics::default(),
            health: Health::default(),
            facts: config.facts,
            shutdown: Shutdown::new(),
        };
        let server = Self { core: Arc::new(core), lost: Arc::default() };
        server.add_check("ping", true, Arc::new(|| Ok(())));
        let lost = server.lost.clone();
        let follows = move || match lost.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err("the store is no longer followed".to_owned()),
        };
        server.add_check("store", true, Arc::new(follows));
        Ok(server)
    }

    /// Sets the admission chain, whose plugins have a client of this server. Only the first call counts; until then
    /// everything is admitted.
    pub fn set_admission(&self, chain: Arc<admission::Chain>) {
        if self.core.admission.set(chain).is_err() {
            tracing::warn!("the admission chain was set twice; the first one stays");
        }
    }

    /// Follows the store and forgets old history until `shutdown`; then ends every watch.
    pub async fn run(&self, shutdown: Shutdown) -> Result<(), StoreError> {
        let cache = &self.core.cache;
        let followed = tokio::select! {
            biased;
            followed = cache.run(shutdown.clone()) => followed,
            compacted = self.compact_forever() => compacted,
        };
        self.lost.store(true, Ordering::Relaxed);
        self.core.shutdown.cancel();
        followed
    }

    async fn compact_forever(&self) -> Result<(), StoreError> {
        let cache = &self.core.cache;
        let mut rounds = VecDeque::from([cache.applied()]);
        loop {
            tokio::time::sleep(COMPACT_EVERY).await;
            rounds.push_back(cache.applied());
            if rounds.len() <= ROUNDS_KEPT {
                continue;
            }
            let Some(before) = rounds.pop_front() else { continue };
            match cache.compact(before).await {
                Ok(()) | Err(StoreError::Compacted { .. }) => {}
                Err(error @ StoreError::Closed) => return Err(error),
                // The disk may have room again later; history only grows until then.
                Err(error) => tracing::warn!(%error, "old history could not be removed"),
            }
        }
    }

    /// A transport inside the process with an identity.
    pub fn transport(&self, user: User) -> Arc<dyn Transport> {
        Arc::new(InProcess::new(self.core.clone(), user))
    }

    /// A client inside the process with an identity.
    pub fn client(&self, user: User) -> Client {
        Client::new(self.transport(user))
    }

    /// Serves HTTPS until `shutdown`, then ends watches and waits a little for running requests.
    pub async fn serve(&self, listener: TcpListener, tls: Arc<rustls::ServerConfig>, shutdown: Shutdown) {
        listener::serve(self.core.clone(), listener, tls, shutdown).await;
    }

    /// Replaces the table of rows.
    pub async fn set_table(&self, table: Table) -> Result<(), StoreError> {
        self.core.set_table(table).await
    }

    /// The rows that are served.
    pub fn table(&self) -> Arc<Table> {
        self.core.table.load_full()
    }

    /// Adds a check to `/readyz` and, with `liveness`, to `/livez` and `/healthz`.
    pub fn add_check(&self, name: &str, liveness: bool, check: Check) {
        self.core.health.add(name, liveness, check);
    }

    /// Makes sure that the objects every cluster has are there.
    pub async fn bootstrap(&self, facts: &ClusterFacts) -> Result<(), machinery::Status> {
        crate::bootstrap::ensure(&self.core, facts).await
    }

    /// Forgets history up to a revision now.
    pub async fn compact(&self, revision: u64) -> Result<(), StoreError> {
        self.core.cache.compact(revision).await
    }
}
