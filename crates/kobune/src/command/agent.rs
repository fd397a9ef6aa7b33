//! `kobune agent`: a node of a cluster whose control plane is elsewhere.

use std::path::PathBuf;
use std::sync::Arc;

use auth::X509Authenticator;
use auth::pki::{CurrentIdentity, Identity};
use clap::Args;
use client::Caches;
use env::{Env, Shutdown};
use k8s_openapi::api::core::v1::Node as NodeObject;
use kubelet::{DelegatedAuthenticator, DelegatedAuthorizer, StopMode};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

use super::up::{clear, node_ready, require_root, runtime};
use crate::cli::{Common, Failure, start_logging};
use crate::config::Settings;
use crate::graph::Graph;
use crate::join::{Membership, agent_dir, certificates, rotation};
use crate::node::{Dependencies, Node};
use crate::notify;
use crate::progress::Progress;

/// Join this machine to a cluster as a node.
#[derive(Args)]
pub struct AgentCommand {
    #[command(flatten)]
    common: Common,
    /// The API server to join, https://HOST:PORT.
    #[arg(long, value_name = "URL", env = "KOBUNE_SERVER")]
    server: Option<String>,
    /// What `kobune token create` printed. Needed at the first start only.
    #[arg(long, env = "KOBUNE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A file with the token, out of the sight of `ps`.
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// Stop the pods as well when this ends.
    #[arg(long)]
    stop_pods: bool,
}

impl AgentCommand {
    pub fn run(self) -> Result<(), Failure> {
        let mut settings = Settings::load(&self.common)?;
        let join = &mut settings.join;
        join.server = self.server.or(join.server.take());
        if self.token_file.is_some() {
            join.token = None;
        }
        join.token = self.token.or(join.token.take());
        join.token_file = self.token_file.or(join.token_file.take());
        start_logging(settings.log.as_deref())?;
        require_root()?;
        let stop_mode = if self.stop_pods { StopMode::StopPods } else { StopMode::LeavePods };
        let runtime = runtime("kobune-node")?;
        let result = runtime.block_on(run(settings, stop_mode));
        runtime.shutdown_background();
        result
    }
}

async fn run(mut settings: Settings, stop_mode: StopMode) -> Result<(), Failure> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| Failure::chain(&error))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| Failure::chain(&error))?;
    let progress = Progress::start();
    let env = Env::system();
    let joined = async {
        let membership = Membership::obtain(&settings, &env, &progress).await?;
        membership.register(&mut settings).await?;
        let serving = membership.serving(&settings, &env).await?;
        Ok::<_, Failure>((membership, serving))
    };
    let (membership, serving) = tokio::select! {
        joined = joined => joined?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    let node = Node::build(&settings, &env).await?;
    let (runtime, network) = (node.runtime.clone(), node.network.clone());
    let mut graph = Graph::default();
    let caches = register(membership, serving, node, &settings, &env, &mut graph, stop_mode)?;
    let mut running = graph.start();
    let kubelet = running.ready("kubelet");
    let nodes = caches.of::<NodeObject>();
    let outcome = tokio::select! {
        failure = running.failed() => Err(Failure::new(failure)),
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        () = async {
            kubelet.await;
            node_ready(&nodes, &settings.node_name).await;
            progress.say(format_args!("node {} ready", settings.node_name));
            notify::ready();
            std::future::pending().await
        } => Ok(()),
    };
    progress.say("stopping");
    running.stop().await;
    if stop_mode == StopMode::StopPods {
        clear(&runtime, &network, &settings).await?;
    }
    progress.say("stopped");
    outcome
}

fn register(
    membership: Membership,
    serving: Identity,
    node: Node,
    settings: &Settings,
    env: &Env,
    graph: &mut Graph,
    stop_mode: StopMode,
) -> Result<Caches, Failure> {
    let client = membership.client.clone();
    let stop_caches = Shutdown::new();
    let caches = Caches::new(client.clone(), stop_caches.clone());
    let on = Handle::current();
    // The cluster is elsewhere: what is asked of it waits until it answers.
    graph.add("cluster", &[], &on, move |ready, shutdown| async move {
        ready.set();
        shutdown.cancelled().await;
        stop_caches.cancel();
        Ok(())
    });
    let certificates = X509Authenticator::new(std::slice::from_ref(&membership.authority), env.clone())
        .map_err(|e| Failure::chain(&e))?;
    let current = CurrentIdentity::new(&serving).map_err(|error| Failure::chain(&error))?;
    let dependencies = Dependencies {
        client: client.clone(),
        caches: caches.clone(),
        authenticator: Arc::new(DelegatedAuthenticator::new(certificates, client.clone())),
        authorizer: Arc::new(DelegatedAuthorizer::new(client)),
        authority: membership.authority.clone(),
        serving: current.clone(),
    };
    register_renewal(membership, (serving, current), settings, env, graph, &on);
    node.register(graph, &on, dependencies, stop_mode)?;
    Ok(caches)
}

/// Both certificates of the node are renewed through the API.
fn register_renewal(
    membership: Membership,
    (serving, current_serving): (Identity, Arc<CurrentIdentity>),
    settings: &Settings,
    env: &Env,
    graph: &mut Graph,
    on: &Handle,
) {
    let (settings, env) = (settings.clone(), env.clone());
    graph.add("certificates", &["cluster"], on, move |ready, shutdown| async move {
        let Membership { http, client, identity, current, .. } = membership;
        let dir = agent_dir(&settings);
        let renew_client = async || {
            let wanted = certificates::client(&settings.node_name);
            let renewed = certificates::request(&client, &wanted).await.map_err(Failure::new)?;
            renewed.store(&dir, "client").map_err(|error| Failure::chain(&error))?;
            identity.replace(&renewed).map_err(|error| Failure::chain(&error))?;
            http.reconnect();
            Ok::<_, Failure>(renewed)
        };
        let renew_serving = async || {
            let wanted = certificates::serving(&settings.node_name, &[settings.node_ip]);
            let renewed = certificates::request(&client, &wanted).await.map_err(Failure::new)?;
            renewed.store(&dir, "serving").map_err(|error| Failure::chain(&error))?;
            current_serving.replace(&renewed).map_err(|error| Failure::chain(&error))?;
            Ok::<_, Failure>(renewed)
        };
        ready.set();
        let both = futures::future::join(
            rotation::keep("node client", current, env.clone(), renew_client),
            rotation::keep("node serving", serving, env.clone(), renew_serving),
        );
        shutdown.run_until_cancelled(both).await;
        Ok(())
    });
}
