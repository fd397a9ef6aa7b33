//! Nodes that only pretend: they register, renew their Leases and say that their pods run, and run nothing.
//!
//! With them a cluster of thousands of nodes fits into one process, for measuring (`kobune up --fake-nodes`) and for
//! simulation, where their links fail on purpose. They speak to the API like any kubelet; what they know of pods they
//! know from watching.

mod body;
mod heart;
mod link;
mod pods;
mod step;

use std::sync::Arc;
use std::time::Duration;

use client::{Cache, Caches, Client};
use env::jiff::{SignedDuration, Timestamp};
use env::{Env, Shutdown};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::oneshot;

pub use link::{Link, Links};

/// The label of every fake node.
pub const LABEL: &str = "kobune.dev/fake-node";

/// Which nodes there are and what they say they have.
#[derive(Clone, Debug)]
pub struct Config {
    pub count: usize,
    /// Nodes are `PREFIX-0` and so on.
    pub prefix: String,
    /// They are in `zone-0` and so on, in turn; 0 for no zones.
    pub zones: usize,
    pub cpu: String,
    pub memory: String,
    pub pods: u32,
    /// How often a node renews its Lease.
    pub lease_period: Duration,
    /// How often a node writes its status though nothing changed.
    pub status_period: Duration,
    /// By how many seconds the clocks of the nodes are ahead, by number; those that are not named are in time.
    pub clocks: Vec<i64>,
}

impl Config {
    /// `count` nodes as large as upstream's scalability tests have them: 32 CPUs, 256 GiB, 110 pods.
    pub fn new(count: usize) -> Self {
        Self {
            count,
            prefix: "fake".to_owned(),
            zones: 0,
            cpu: "32".to_owned(),
            memory: "256Gi".to_owned(),
            pods: 110,
            lease_period: Duration::from_secs(10),
            status_period: Duration::from_secs(300),
            clocks: Vec::new(),
        }
    }

    /// The name of a node.
    pub fn name(&self, index: usize) -> String {
        format!("{}-{index}", self.prefix)
    }

    /// The number of the node of this name.
    fn index(&self, name: &str) -> Option<usize> {
        let number = name.strip_prefix(&self.prefix)?.strip_prefix('-')?;
        number.parse().ok().filter(|index| *index < self.count && self.name(*index) == name)
    }
}

/// The nodes.
pub struct FakeNodes {
    shared: Arc<Shared>,
}

/// What all parts have.
struct Shared {
    config: Config,
    client: Client,
    pods: Cache,
    env: Env,
    links: Links,
}

impl Shared {
    /// What a node's clock shows.
    fn now(&self, index: usize) -> Timestamp {
        let ahead = self.config.clocks.get(index).copied().unwrap_or(0);
        self.env.now().saturating_add(SignedDuration::from_secs(ahead)).unwrap_or(Timestamp::MAX)
    }
}

impl FakeNodes {
    pub fn build(config: Config, client: Client, caches: &Caches, env: Env) -> Self {
        let links = Links::new(config.count);
        Self { shared: Arc::new(Shared { config, client, pods: caches.of::<Pod>(), env, links }) }
    }

    /// The nodes' links to the API, to be cut.
    pub fn links(&self) -> Links {
        self.shared.links.clone()
    }

    /// Runs until `shutdown`; `registered` is told when all nodes are there.
    pub async fn run(self, registered: oneshot::Sender<()>, shutdown: Shutdown) {
        let beating = heart::run(self.shared.clone(), registered, shutdown.clone());
        let running = pods::run(self.shared, shutdown);
        tokio::join!(beating, running);
    }
}

#[cfg(test)]
mod tests;
