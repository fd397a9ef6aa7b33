//! `kobune up` and `server`.

use std::net::Ipv4Addr;
use std::num::NonZero;

use clap::Args;
use client::{Cache, Client, Patch, typed};
use containers::EmbeddedRuntime;
use env::Env;
use ipnet::{IpNet, Ipv4Net};
use k8s_openapi::api::core::v1::Node as NodeObject;
use kubelet::StopMode;
use machinery::Key;
use network::PodNetwork;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::demo::Demo;
use crate::cli::{Common, Failure, start_logging};
use crate::config::Settings;
use crate::control_plane::ControlPlane;
use crate::graph::Graph;
use crate::node::{Dependencies, Node};
use crate::notify;
use crate::progress::Progress;

/// Where the nodes of `up --nodes` have their addresses.
pub const NODES_CIDR: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 44, 0, 0), 24));

/// Start a cluster on this machine and stay in the foreground.
#[derive(Args)]
pub struct Up {
    #[command(flatten)]
    common: Common,
    /// How many nodes; each beyond the first is a network namespace with a process of its own.
    #[arg(long, value_name = "N")]
    nodes: Option<u16>,
    /// The range of the nodes' own addresses under --nodes.
    #[arg(long, value_name = "CIDR", default_value_t = NODES_CIDR, requires = "nodes")]
    nodes_cidr: IpNet,
    #[command(flatten)]
    demo: Demo,
    /// Also start so many nodes that only pretend, to try or measure a large cluster: pods on them never really run.
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "nodes")]
    fake_nodes: usize,
}

/// Run the control plane and a node as a service.
#[derive(Args)]
pub struct ServerCommand {
    #[command(flatten)]
    common: Common,
}

impl Up {
    pub fn run(self) -> Result<(), Failure> {
        match self.nodes {
            Some(count) => super::nodes::run(&self.common, count, self.nodes_cidr, self.demo),
            None => start(&self.common, StopMode::StopPods, Some(self.demo), self.fake_nodes),
        }
    }
}

impl ServerCommand {
    pub fn run(self) -> Result<(), Failure> {
        start(&self.common, StopMode::LeavePods, None, 0)
    }
}

/// A runtime for commands that only talk to a server.
pub fn small_runtime() -> Result<Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::new(format!("cannot start: {error}")))
}

pub fn runtime(name: &str) -> Result<Runtime, Failure> {
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get).clamp(1, 4);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(64)
        .thread_name(name)
        .enable_all()
        .build();
    runtime.map_err(|error| Failure::new(format!("cannot start: {error}")))
}

fn start(common: &Common, stop_mode: StopMode, demo: Option<Demo>, fake_nodes: usize) -> Result<(), Failure> {
    let settings = Settings::load(common)?;
    start_logging(settings.log.as_deref())?;
    require_root()?;
    // A busy API must not starve probes, so the node has threads of its own.
    let (control, node) = (runtime("kobune-api")?, runtime("kobune-node")?);
    let result = control.block_on(run(settings, stop_mode, demo, fake_nodes, node.handle().clone()));
    node.shutdown_background();
    control.shutdown_background();
    result
}

/// Containers need what only root may do.
pub fn require_root() -> Result<(), Failure> {
    match rustix::process::geteuid().is_root() {
        true => Ok(()),
        false => Err(Failure::new(
            "this needs root: it makes namespaces, mounts and networks for containers; try again with sudo",
        )),
    }
}

async fn run(
    settings: Settings,
    stop_mode: StopMode,
    demo: Option<Demo>,
    fake_nodes: usize,
    node_runtime: tokio::runtime::Handle,
) -> Result<(), Failure> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| Failure::chain(&error))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| Failure::chain(&error))?;
    let progress = Progress::start();
    let env = Env::system();
    let plane = ControlPlane::build(&settings, &env).await?;
    progress.say(format_args!("store open in {}", settings.data_dir.display()));
    let (node_settings, node_env) = (settings.clone(), env.clone());
    let node = node_runtime.spawn(async move { Node::build(&node_settings, &node_env).await });
    let node = node.await.map_err(|error| Failure::chain(&error))??;
    plane.write_kubeconfig()?;
    let (runtime, network, store) = (node.runtime.clone(), node.network.clone(), plane.store.clone());
    let mut graph = Graph::default();
    let caches = register(plane, node, &settings, &mut graph, &node_runtime, stop_mode)?;
    if fake_nodes > 0 {
        pretend(fake_nodes, &settings, &caches, &env, &mut graph);
    }
    let mut running = graph.start();
    let (nodes, admin) = (caches.of::<NodeObject>(), caches.client().clone());
    let (api, kubelet) = (running.ready("api"), running.ready("kubelet"));
    let outcome = tokio::select! {
        failure = running.failed() => Err(Failure::new(failure)),
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        result = attend(&progress, &settings, (api, kubelet), (&nodes, &admin), demo) => result,
    };
    progress.say("stopping");
    running.stop().await;
    store.close().await.map_err(|error| Failure::store(&error))?;
    if stop_mode == StopMode::StopPods {
        clear(&runtime, &network, &settings).await?;
    }
    progress.say("stopped");
    outcome
}

/// Stops the pods and takes away what they stood on.
pub async fn clear(
    runtime: &EmbeddedRuntime,
    network: &PodNetwork,
    settings: &Settings,
) -> Result<(), Failure> {
    let stopped = runtime.stop_all(true).await;
    let removed = network.teardown().await;
    let services = proxy::teardown(&crate::node::services_config(settings).table);
    let unmounted = linux::mount::unmount_inside(&settings.data_dir);
    stopped.map_err(|error| Failure::chain(&error))?;
    unmounted.map_err(|error| Failure::chain(&error))?;
    removed.map_err(|error| Failure::chain(&error))?;
    services.map_err(|error| Failure::chain(&error))
}

fn register(
    mut plane: ControlPlane,
    node: Node,
    settings: &Settings,
    graph: &mut Graph,
    node_runtime: &tokio::runtime::Handle,
    stop_mode: StopMode,
) -> Result<client::Caches, Failure> {
    let serving = plane.kubelet_identity()?;
    let client = plane.client(auth::User::node(&settings.node_name));
    let (authenticator, authorizer) = (plane.authentication.clone(), plane.authorizer.clone());
    let authority = plane.authority.certificate().clone();
    let gateway = plane.gateway();
    let control_runtime = tokio::runtime::Handle::current();
    let caches = plane.register(graph, &control_runtime);
    let dependencies =
        Dependencies { client, caches: caches.clone(), authenticator, authorizer, authority, serving };
    node.register(graph, node_runtime, dependencies, stop_mode)?;
    gateway.register(graph, &control_runtime);
    Ok(caches)
}

/// Adds the service `fake nodes`.
fn pretend(count: usize, settings: &Settings, caches: &client::Caches, env: &Env, graph: &mut Graph) {
    // As often as kubelets renew them.
    let lease_period = settings.node_monitor_grace_period / 4;
    let config = fakenodes::Config { lease_period, ..fakenodes::Config::new(count) };
    let nodes = fakenodes::FakeNodes::build(config, caches.client().clone(), caches, env.clone());
    let on = tokio::runtime::Handle::current();
    graph.add("fake nodes", &["cluster"], &on, move |ready, shutdown| async move {
        let (registered, all) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            if all.await.is_ok() {
                ready.set();
            }
        });
        nodes.run(registered, shutdown).await;
        Ok(())
    });
}

/// Tells how far the start is, then runs the demonstration, then waits for ever.
async fn attend(
    progress: &Progress,
    settings: &Settings,
    (api, kubelet): (impl Future<Output = ()>, impl Future<Output = ()>),
    (nodes, admin): (&Cache, &Client),
    demo: Option<Demo>,
) -> Result<(), Failure> {
    api.await;
    progress.say(format_args!("API ready at {}", settings.local_url()));
    kubelet.await;
    // A kubelet may not give its own node a role, so the control plane does.
    let role = Patch::Merge(json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}}));
    admin.cluster::<NodeObject>().patch(&settings.node_name, role).await.map_err(Failure::new)?;
    node_ready(nodes, &settings.node_name).await;
    progress.say(format_args!("node {} ready", settings.node_name));
    notify::ready();
    progress.say(format_args!("kubeconfig: {}", settings.kubeconfig.display()));
    progress
        .say(format_args!("next: export KUBECONFIG={}; kubectl get nodes", settings.kubeconfig.display()));
    if !settings.listen.ip().is_loopback() && demo.is_none() {
        let address = std::net::SocketAddr::new(settings.pods_api_address(), settings.listen.port());
        progress.say(format_args!(
            "other machines join with: kobune agent --server https://{address} --token TOKEN (from: kobune token create)"
        ));
    }
    match demo {
        Some(demo) if demo.is_wanted() => demo.run(progress, settings).await?,
        _ => {}
    }
    std::future::pending().await
}

pub async fn node_ready(nodes: &Cache, name: &str) {
    let mut events = nodes.subscribe();
    nodes.synced().await;
    let is_ready = || {
        let node = nodes.get(&Key::new("", name)).and_then(|node| typed::<NodeObject>(&node).ok());
        let conditions = node.as_ref().and_then(|node| node.status.as_ref()?.conditions.as_ref());
        conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
    };
    while !is_ready() {
        // A lagging or closed receiver only means another look.
        if events.recv().await.is_err() && nodes.revision().is_none() {
            return std::future::pending().await;
        }
    }
}
