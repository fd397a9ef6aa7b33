//! The controllers: each watches kinds through shared caches and brings the cluster closer to what they say.
//!
//! A folder per controller: its inputs and its judgement, a pure function. Acting is `reconcile`'s.

pub mod bootstrap_tokens;
pub mod certificates;
pub mod cluster_dns;
pub mod cluster_roles;
pub mod cron_job;
pub mod daemon_set;
pub mod deployment;
pub mod disruption;
pub mod endpoint_slice_mirroring;
pub mod endpoints;
pub mod garbage_collector;
pub mod horizontal_pod_autoscaler;
pub mod job;
pub mod load_balancer;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod persistent_volume;
pub mod pod_gc;
pub mod replication;
pub mod resource_quota;
pub mod root_ca;
pub mod rows;
pub mod service_account;
pub mod service_cidr;
pub mod shared;
pub mod stateful_set;
pub mod token_secrets;
pub mod ttl_after_finished;

use std::sync::Arc;

use auth::Authorizer;
use auth::pki::Authority;
use client::{Caches, Client};
use env::{Env, Shutdown};
use reconcile::{Controller, Executor, Recorder};
use tokio::task::JoinSet;

pub use rows::{Row, Rows};

/// What the controllers are told.
pub struct Config {
    /// Every resource that can be listed, watched and deleted.
    pub rows: Rows,
    /// The cluster's CA in PEM, published in every namespace.
    pub root_ca: String,
    /// How long a node may be silent before it counts as gone.
    pub node_grace_period: std::time::Duration,
    /// What nodes' pod ranges are made of.
    pub node_ranges: node_ipam::NodeRanges,
    /// Signs the tokens of Secrets.
    pub tokens: Arc<dyn token_secrets::Signer>,
    /// Signs certificate requests.
    pub authority: Arc<Authority>,
    /// Says whose certificate requests are approved.
    pub authorizer: Arc<dyn Authorizer>,
    /// Where the addresses of Services of the type `LoadBalancer` come from.
    pub load_balancing: load_balancer::LoadBalancing,
}

/// All controllers, wired and not yet running.
pub struct Controllers {
    config: Config,
    env: Env,
    /// One client per controller name, so that each acts with its own identity.
    client_of: Box<dyn Fn(&str) -> Client + Send + Sync>,
    caches: Caches,
}

impl Controllers {
    /// `caches` is what they observe with, `client_of` gives the client that a named controller acts with.
    pub fn build(
        config: Config,
        env: Env,
        caches: Caches,
        client_of: impl Fn(&str) -> Client + Send + Sync + 'static,
    ) -> Self {
        Self { config, env, caches, client_of: Box::new(client_of) }
    }

    /// Runs all controllers until `shutdown`.
    pub async fn run(self, shutdown: Shutdown) {
        let mut tasks = JoinSet::new();
        for controller in self.planned() {
            let executor = self.executor(controller.name(), &mut tasks, &shutdown);
            tasks.spawn(reconcile::run(controller, executor, self.env.clone(), shutdown.clone()));
        }
        let rows = Arc::new(self.config.rows.clone());
        let namespaces = namespace::Namespaces::new(&self.caches, rows.clone(), self.env.clone());
        tasks.spawn(namespaces.run(shutdown.clone()));
        let client = (self.client_of)(resource_quota::NAME);
        let quotas = resource_quota::ResourceQuotas::new(&self.caches, client, rows.clone());
        tasks.spawn(quotas.run(shutdown.clone()));
        let name = "horizontal-pod-autoscaler";
        let (client, executor) = ((self.client_of)(name), self.executor(name, &mut tasks, &shutdown));
        let autoscalers = horizontal_pod_autoscaler::Autoscalers::new(
            &self.caches,
            client,
            executor,
            rows.clone(),
            self.env.clone(),
        );
        tasks.spawn(autoscalers.run(shutdown.clone()));
        let collector = garbage_collector::GarbageCollector::new(&self.caches, rows);
        tasks.spawn(collector.run(shutdown.clone()));
        while tasks.join_next().await.is_some() {}
    }

    fn planned(&self) -> Vec<Arc<dyn Controller>> {
        let caches = &self.caches;
        vec![
            Arc::new(replication::Replication::new(replication::Kind::ReplicaSet, caches)),
            Arc::new(replication::Replication::new(replication::Kind::ReplicationController, caches)),
            Arc::new(deployment::Deployments::new(caches)),
            Arc::new(stateful_set::StatefulSets::new(caches)),
            Arc::new(daemon_set::DaemonSets::new(caches)),
            Arc::new(job::Jobs::new(caches)),
            Arc::new(job::OrphanPods::new(caches)),
            Arc::new(cron_job::CronJobs::new(caches)),
            Arc::new(disruption::Disruption::new(caches)),
            Arc::new(endpoint_slice_mirroring::Mirroring::new(caches)),
            Arc::new(persistent_volume::Binder::new(caches)),
            Arc::new(persistent_volume::ClaimProtection::new(caches)),
            Arc::new(persistent_volume::VolumeProtection::new(caches)),
            Arc::new(ttl_after_finished::TtlAfterFinished::new(caches)),
            Arc::new(endpoints::ServiceEndpoints::new(caches)),
            Arc::new(service_account::ServiceAccounts::new(caches)),
            Arc::new(service_cidr::ServiceCidrs::new(caches)),
            Arc::new(token_secrets::TokenSecrets::new(
                caches,
                self.config.root_ca.clone(),
                self.config.tokens.clone(),
            )),
            Arc::new(bootstrap_tokens::BootstrapTokens::new(caches)),
            Arc::new(root_ca::RootCa::new(caches, self.config.root_ca.clone())),
            Arc::new(node_lifecycle::NodeLifecycle::new(caches, self.config.node_grace_period)),
            Arc::new(load_balancer::LoadBalancers::new(caches, self.config.load_balancing.clone())),
            Arc::new(node_ipam::NodeIpam::new(caches, self.config.node_ranges.clone())),
            Arc::new(pod_gc::PodGarbage::new(caches)),
            Arc::new(cluster_roles::Aggregation::new(caches)),
            Arc::new(cluster_dns::ClusterDns::new(caches)),
            Arc::new(certificates::Certificates::new(
                caches,
                self.config.authority.clone(),
                self.config.authorizer.clone(),
                self.env.clone(),
            )),
        ]
    }

    fn executor(&self, name: &'static str, tasks: &mut JoinSet<()>, shutdown: &Shutdown) -> Executor {
        let client = (self.client_of)(name);
        let (recorder, writer) = Recorder::new(client.clone(), self.env.clone(), name, "");
        tasks.spawn(writer.run(shutdown.clone()));
        Executor::new(self.caches.clone(), client, recorder, name)
    }
}
