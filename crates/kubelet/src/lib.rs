//! The kubelet: pods on this node.
//!
//! A pod is a machine (`machine`): pure, and asked anew after every event. `pods` feeds the machines and does what
//! they ask; `make` turns specifications into what the runtime takes; `volumes`, `probes`, `hooks`, `logs` are the
//! hands; `node` keeps the Node object; `server` answers the API server's calls. Running containers do not notice
//! when the kubelet is restarted. Not here: scheduling, networks, and how containers are run.

pub mod hooks;
pub mod logs;
pub mod machine;
pub mod make;
pub mod node;
pub mod pods;
pub mod probes;
pub mod quantity;
pub mod server;
pub mod static_pods;
pub mod text;
pub mod volumes;

mod config;
mod watchman;

use std::sync::Arc;

use client::{Cache, ListOptions};
use env::Shutdown;
use k8s_openapi::api::core::v1::{Pod, Service};
use tokio::sync::{oneshot, watch};

pub use config::{Config, Dependencies, StopMode};
use node::NodeKeeper;
use node::facts::NodeFacts;
use node::pressure::Pressure;
use pods::Pods;
use pods::shared::Shared;
pub use server::{DelegatedAuthenticator, DelegatedAuthorizer, ServerConfig};
use static_pods::StaticPods;

/// What the node reports as its version.
pub const VERSION: &str = "v1.36.0+kobune";

/// Why a kubelet cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("the machine's facts cannot be read")]
    Facts(#[source] linux::Error),
    #[error("the directory {path} cannot be prepared")]
    Directory {
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("TLS for probes cannot be set up")]
    Tls(#[source] rustls::Error),
}

/// A kubelet that is ready to run.
pub struct Kubelet {
    shared: Arc<Shared>,
    pods: Arc<Pods>,
    keeper: NodeKeeper,
    own_services: bool,
    recorder: reconcile::events::Writer,
    pressure: watch::Sender<Pressure>,
    server: Option<ServerConfig>,
    static_pods: Option<StaticPods>,
    stop_mode: StopMode,
    stop_grace: std::time::Duration,
}

impl Kubelet {
    /// Reads the machine's facts, prepares directories and sockets; does no work yet.
    pub fn build(
        config: Config,
        dependencies: Dependencies,
        server: Option<ServerConfig>,
    ) -> Result<Self, BuildError> {
        let facts = config.facts(&*dependencies.runtime).map_err(BuildError::Facts)?;
        let (pressure, pressure_seen) = watch::channel(Pressure::default());
        let (recorder, writer) = reconcile::Recorder::new(
            dependencies.client.clone(),
            dependencies.env.clone(),
            "kubelet",
            &config.node_name,
        );
        let own_services = dependencies.services.is_none();
        let keeper = NodeKeeper {
            client: dependencies.client.clone(),
            env: dependencies.env.clone(),
            facts: facts.clone(),
            reserved: config.reserved,
            images: dependencies.images.clone(),
            pressure: pressure_seen,
            lease_duration: config.lease_duration,
            nodes: dependencies.nodes.clone(),
        };
        let shared = Arc::new(config.shared(&facts, &dependencies, recorder)?);
        shared
            .volumes
            .prepare()
            .map_err(|source| BuildError::Directory { path: config.root.clone(), source })?;
        let selector = format!("spec.nodeName={}", config.node_name);
        let options = ListOptions { field_selector: selector, ..ListOptions::default() };
        let cache = Cache::new(dependencies.client.all::<Pod>(), options, Vec::new());
        let static_pods = config.static_pods.map(|directory| StaticPods {
            directory,
            node: config.node_name,
            client: dependencies.client,
            cache: cache.clone(),
        });
        let pods = Pods::new(shared.clone(), cache, facts.all_labels());
        Ok(Self {
            shared,
            pods,
            keeper,
            own_services,
            recorder: writer,
            pressure,
            server,
            static_pods,
            stop_mode: config.stop_mode,
            stop_grace: config.stop_grace,
        })
    }

    /// Works until `shutdown`. `ready` is told when the node is registered.
    pub async fn run(self, ready: oneshot::Sender<()>, shutdown: Shutdown) {
        let mut tasks = tokio::task::JoinSet::new();
        if self.own_services {
            let services = self.shared.services.clone();
            let shutdown = shutdown.clone();
            tasks.spawn(async move { services.run(shutdown).await });
        }
        let cache = self.pods.cache().clone();
        let stop = shutdown.clone();
        tasks.spawn(async move { cache.run(stop).await });
        tasks.spawn(self.keeper.run(ready, shutdown.clone()));
        tasks.spawn(self.recorder.run(shutdown.clone()));
        tasks.spawn(watchman::watch(self.shared.clone(), self.pods.clone(), self.pressure, shutdown.clone()));
        if let Some(static_pods) = self.static_pods {
            tasks.spawn(static_pods.run(shutdown.clone()));
        }
        if let Some(server) = self.server {
            tasks.spawn(server::run(server, self.shared.clone(), self.pods.clone(), shutdown.clone()));
        }
        tasks.spawn(self.pods.clone().run(shutdown));
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a part of the kubelet failed");
            }
        }
        if self.stop_mode == StopMode::StopPods {
            pods::stop_everything(&self.shared, self.stop_grace).await;
        }
    }

    /// The node's facts, as they were registered.
    pub fn facts(&self) -> &NodeFacts {
        &self.keeper.facts
    }
}

/// A cache of all services, for who needs one and has none to share.
fn services_cache(client: &client::Client) -> Cache {
    Cache::new(client.all::<Service>(), ListOptions::default(), Vec::new())
}
