//! A control plane and its nodes.

use std::sync::Arc;
use std::time::Duration;

use apiserver::ClusterFacts;
use auth::User;
use client::{Caches, Client, DeleteOptions, ListOptions, Patch, Resources, Target};
use controllers::{Controllers, Row, Rows};
use env::{Env, Shutdown};
use fakenodes::{FakeNodes, Link, Links};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};
use testkit::{AllowAll, TestServer};

use crate::door::Door;
use crate::judge::{self, Picture};
use crate::story::{Fault, Story};
use crate::trace::{Entry, Trace};
use crate::workload;

/// How long a node may be silent, upstream's default.
const GRACE: Duration = Duration::from_secs(40);
const NAMESPACE: &str = "default";

pub struct World {
    env: Env,
    nodes: usize,
    links: Links,
    config: fakenodes::Config,
    door: Arc<Door>,
    server: TestServer,
    /// The server, the controllers and the scheduler are there.
    up: bool,
    trace: Trace,
    shutdown: Shutdown,
}

impl World {
    /// Everything is there and was asked to run; nothing runs yet.
    pub async fn start(env: &Env, story: &Story) -> Self {
        let server = TestServer::in_world(env.clone()).await;
        let trace = Trace::start(&server).await;
        let (door, shutdown) = (Arc::new(Door::default()), Shutdown::new());
        let caches = Caches::new(Client::new(door.clone()), shutdown.clone());
        let config = fakenodes::Config {
            zones: story.zones,
            cpu: "4".to_owned(),
            memory: "8Gi".to_owned(),
            clocks: story.clocks.clone(),
            ..fakenodes::Config::new(story.nodes)
        };
        serve(&server, env, &door).await;
        let nodes = FakeNodes::build(config.clone(), caches.client().clone(), &caches, env.clone());
        let links = nodes.links();
        let (registered, all) = tokio::sync::oneshot::channel();
        tokio::spawn(nodes.run(registered, shutdown.clone()));
        all.await.expect("the nodes register");
        let world = Self {
            env: env.clone(),
            nodes: story.nodes,
            links,
            config,
            door,
            server,
            up: true,
            trace,
            shutdown,
        };
        for (resource, object) in workload::objects(story) {
            let target = target_of(resource);
            world.client().target(target).create(&object).await.expect("the workload is valid");
        }
        world
    }

    /// An administrator.
    fn client(&self) -> Client {
        self.server.client()
    }

    fn deployments(&self) -> Resources {
        self.client().namespaced::<Deployment>(NAMESPACE)
    }

    /// Lets a fault happen. What an administrator asks of a server that is down is not asked.
    pub async fn suffer(&mut self, fault: &Fault) {
        match fault {
            Fault::Cut(node) => self.links.set(*node, Link::Cut),
            Fault::Mend(node) => self.links.set(*node, Link::Up),
            Fault::Slow(node, by) => self.links.set(*node, Link::Slow(*by)),
            Fault::Vanish(node) => self.vanish(*node).await,
            Fault::ServerDown => self.server_down(),
            Fault::ServerUp => self.server_up().await,
            Fault::Scale(which, replicas) => {
                self.change(*which, json!({"spec": {"replicas": replicas}})).await;
            }
            Fault::RollOut(which) => {
                let stamp = json!({"stamp": self.env.now().to_string()});
                self.change(*which, json!({"spec": {"template": {"metadata": {"annotations": stamp}}}}))
                    .await;
            }
            Fault::DeletePod(number) => self.delete_pod(*number).await,
        }
    }

    async fn change(&self, which: usize, patch: Value) {
        if self.up {
            let name = workload::DEPLOYMENTS[which];
            let changed = self.deployments().patch(name, Patch::StrategicMerge(patch)).await;
            changed.expect("the server is up and the workload is there");
        }
    }

    async fn vanish(&self, node: usize) {
        self.links.set(node, Link::Cut);
        if self.up {
            let nodes = self.client().cluster::<Node>();
            match nodes.delete(&self.config.name(node), &DeleteOptions::default()).await {
                Err(status) if !status.is_not_found() => panic!("a node cannot be deleted: {status}"),
                _ => {}
            }
        }
    }

    async fn delete_pod(&self, number: usize) {
        if !self.up {
            return;
        }
        let pods = self.client().namespaced::<Pod>(NAMESPACE);
        let all = pods.list(&ListOptions::default()).await.expect("the server is up").items;
        if all.is_empty() {
            return;
        }
        let name = all[number % all.len()].meta().name.clone();
        match pods.delete(&name, &DeleteOptions::default()).await {
            Err(status) if !status.is_not_found() => panic!("a pod cannot be deleted: {status}"),
            _ => {}
        }
    }

    fn server_down(&mut self) {
        if std::mem::take(&mut self.up) {
            self.door.set(None);
            self.server.shutdown().cancel();
        }
    }

    async fn server_up(&mut self) {
        if !std::mem::replace(&mut self.up, true) {
            self.server = self.server.again().await;
            serve(&self.server, &self.env, &self.door).await;
        }
    }

    /// Undoes every fault.
    pub async fn mend(&mut self) {
        self.server_up().await;
        for node in 0..self.nodes {
            self.links.set(node, Link::Up);
        }
    }

    /// What is still missing.
    pub async fn judge(&self) -> Option<String> {
        let client = self.client();
        let all = async |resources: Resources| {
            let list = resources.list(&ListOptions::default()).await.expect("the server is up");
            list.items.iter().map(|object| object.value()).collect::<Vec<_>>()
        };
        let picture = Picture {
            nodes: all(client.all::<Node>()).await,
            pods: all(client.all::<Pod>()).await,
            deployments: all(client.all::<Deployment>()).await,
            stateful_sets: all(client.all::<StatefulSet>()).await,
            daemon_sets: all(client.all::<DaemonSet>()).await,
        };
        judge::missing(&picture, self.nodes)
    }

    /// The history, and what must not have been in it.
    pub async fn end(self) -> (Vec<Entry>, Vec<String>) {
        self.shutdown.cancel();
        self.server.shutdown().cancel();
        self.trace.end()
    }
}

fn target_of(resource: &str) -> Target {
    let (group, namespace) = match resource {
        "priorityclasses" => ("scheduling.k8s.io", ""),
        _ => ("apps", NAMESPACE),
    };
    Target {
        group: group.to_owned(),
        version: "v1".to_owned(),
        resource: resource.to_owned(),
        namespace: namespace.to_owned(),
        ..Target::default()
    }
}

/// Starts what a control plane has, as `kobune` does it.
async fn serve(server: &TestServer, env: &Env, door: &Door) {
    let shutdown = server.shutdown().clone();
    let range: ipnet::IpNet = "10.43.0.0/16".parse().expect("this is a range");
    let facts = ClusterFacts {
        service_addresses: vec![[10, 43, 0, 1].into()],
        server_addresses: vec![[192, 0, 2, 1].into()],
        server_port: 6443,
        service_ranges: vec![range.to_string()],
    };
    let chain = admission::default_chain(admission::Dependencies {
        client: server.client(),
        env: env.clone(),
        authorizer: Arc::new(AllowAll),
        ranges: admission::Ranges { addresses: vec![range], node_ports: 30_000..=32_767 },
        protects_storage: true,
    });
    server.server.set_admission(Arc::new(chain));
    server.server.bootstrap(&facts).await.expect("an empty store takes the first objects");
    let caches = Caches::new(server.client(), shutdown.clone());
    let authority = auth::pki::Authority::ephemeral("simulated", env).expect("keys can be made");
    let config = controllers::Config {
        rows: rows(server),
        root_ca: "none".to_owned(),
        node_grace_period: GRACE,
        node_ranges: controllers::node_ipam::NodeRanges::default(),
        tokens: Arc::new(NoTokens),
        authority: Arc::new(authority),
        authorizer: Arc::new(AllowAll),
        load_balancing: controllers::load_balancer::LoadBalancing::default(),
    };
    let door_to = server.server.clone();
    let client_of = move |_: &str| door_to.client(User::system_masters("system:kube-controller-manager"));
    let controllers = Controllers::build(config, env.clone(), caches.clone(), client_of);
    tokio::spawn(controllers.run(shutdown.clone()));
    let client = server.client_of(User::system_masters("system:kube-scheduler"));
    let name = scheduler::NAME;
    let recorder = reconcile::events::spawn(client.clone(), env.clone(), name, "", shutdown.clone());
    let scheduler = scheduler::Scheduler::build(&caches, client, recorder, env.clone());
    tokio::spawn(scheduler.run(shutdown));
    door.set(Some(server.server.transport(User::system_masters("system:fake-nodes"))));
}

/// Nothing in a world asks for tokens in Secrets.
struct NoTokens;

impl controllers::token_secrets::Signer for NoTokens {
    fn sign(&self, _: &str, _: &str, _: &str, _: &str) -> Result<String, machinery::Status> {
        Err(machinery::Status::internal("worlds have no tokens"))
    }
}

/// One row per kind that can be listed, watched and deleted.
fn rows(server: &TestServer) -> Rows {
    let table = server.server.table();
    let walkable = |row: &&Arc<resources::Resource>| {
        ["list", "watch", "delete"].iter().all(|verb| row.supports(verb))
            && row.version == row.storage_version
    };
    let mut seen = std::collections::BTreeSet::new();
    let rows = table.rows().iter().filter(walkable).filter(|row| seen.insert(row.storage_prefix.clone()));
    let row = |row: &Arc<resources::Resource>| Row {
        target: Target {
            group: row.group.clone(),
            version: row.version.clone(),
            resource: row.resource.clone(),
            ..Target::default()
        },
        kind: row.kind.clone(),
        namespaced: row.is_namespaced(),
    };
    Rows::new(rows.map(row).collect())
}
