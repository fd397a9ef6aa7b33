//! `kobune up --nodes N`: a cluster of several nodes on this machine.
//!
//! Each node is a machine as far as network and mounts go: namespaces of its own with an address on a common
//! bridge, a data directory, cgroups, and a process, `kobune up` on the first and `kobune agent` on the others.

mod machine;
mod process;

use std::ffi::OsString;
use std::net::IpAddr;
use std::sync::Arc;

use client::{Client, Http, Kubeconfig};
use env::Env;
use futures::stream::{FuturesUnordered, StreamExt};
use ipnet::IpNet;
use jiff::SignedDuration;
use tokio::signal::unix::{SignalKind, signal};

use super::demo::Demo;
use super::up::{require_root, small_runtime};
use crate::cli::{Common, Failure, start_logging};
use crate::config::Settings;
use crate::join::JoinToken;
use crate::progress::Progress;
use machine::Machines;
use process::NodeProcess;

/// How many nodes one machine is asked for at most; the range of their addresses is a /24.
pub const NODES_MAX: u16 = 250;

/// Starts the nodes and stays in the foreground.
pub fn run(common: &Common, count: u16, range: IpNet, demo: Demo) -> Result<(), Failure> {
    let settings = Settings::load(common)?;
    start_logging(settings.log.as_deref())?;
    require_root()?;
    let machines = Machines::of(&settings, range, count)?;
    small_runtime()?.block_on(supervise(&settings, common, &machines, demo))
}

/// Takes away the nodes that an earlier `up --nodes` left, if there are any.
pub fn reset(settings: &Settings) -> Result<(), Failure> {
    match Machines::left_behind(settings)? {
        Some(machines) => small_runtime()?.block_on(async {
            for machine in &machines.all {
                let arguments =
                    ["reset".into(), "--yes".into(), "--data-dir".into(), machine.data_dir.clone().into()];
                process::finish(machine, &arguments).await?;
            }
            machines.remove()
        }),
        None => Ok(()),
    }
}

async fn supervise(
    settings: &Settings,
    common: &Common,
    machines: &Machines,
    demo: Demo,
) -> Result<(), Failure> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| Failure::chain(&error))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| Failure::chain(&error))?;
    let progress = Progress::start();
    machines.prepare(settings)?;
    let mut nodes = Vec::new();
    let outcome = tokio::select! {
        outcome = attend(&progress, settings, common, machines, demo, &mut nodes) => outcome,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    progress.say("stopping");
    // The first node has the control plane, which the others use until they have stopped.
    let mut agents = nodes.split_off(nodes.len().min(1));
    let stopping: FuturesUnordered<_> = agents.iter_mut().map(NodeProcess::stop).collect();
    let mut stopped: Vec<Result<(), Failure>> = stopping.collect().await;
    for server in &mut nodes {
        stopped.push(server.stop().await);
    }
    for (machine, _) in
        machines.all.iter().zip(nodes.iter().chain(&agents)).filter(|(_, node)| node.ended_by_itself())
    {
        stopped.push(sweep(machine));
    }
    let removed = machines.remove();
    progress.say("stopped");
    stopped.into_iter().collect::<Result<Vec<()>, _>>().and(removed).and(outcome)
}

/// Ends the pods of a node that ended without doing so.
fn sweep(machine: &machine::Machine) -> Result<(), Failure> {
    let root = format!("/{}", crate::config::instance(&machine.data_dir));
    // Its mounts go with its namespace.
    containers::sweep(&machine.data_dir, &root).map_err(|error| Failure::chain(&error))
}

/// Starts one node after the other's needs are there, then waits for ever, or for a node to end by itself.
async fn attend(
    progress: &Progress,
    settings: &Settings,
    common: &Common,
    machines: &Machines,
    demo: Demo,
    nodes: &mut Vec<NodeProcess>,
) -> Result<(), Failure> {
    let (first, others) = machines.all.split_first().ok_or_else(|| Failure::usage("--nodes 0: no nodes"))?;
    nodes.push(NodeProcess::start(first, &server_arguments(settings, common, first.address))?);
    nodes[0].ready().await?;
    progress.say(format_args!("API ready at {}", machines.url(settings)));
    progress.say(format_args!("node {} ready", first.name));
    let token = token(settings).await?;
    for machine in others {
        let arguments = agent_arguments(settings, machines, &token, machine)?;
        nodes.push(NodeProcess::start(machine, &arguments)?);
    }
    wait_for(progress, &mut nodes[1..]).await?;
    progress.say(format_args!("{} nodes ready", nodes.len()));
    progress.say(format_args!("kubeconfig: {}", settings.kubeconfig.display()));
    progress
        .say(format_args!("next: export KUBECONFIG={}; kubectl get nodes", settings.kubeconfig.display()));
    if demo.is_wanted() {
        demo.run(progress, settings).await?;
    }
    let Some((server, agents)) = nodes.split_first_mut() else { return std::future::pending().await };
    let mut ends: FuturesUnordered<_> = agents.iter_mut().map(NodeProcess::ended).collect();
    loop {
        tokio::select! {
            failure = server.ended() => return Err(failure),
            Some(failure) = ends.next(), if !ends.is_empty() => {
                // As a machine of a cluster that fails: the others go on, and take over what ran there.
                progress.say(format_args!("{}; the other nodes go on", failure.message));
            }
        }
    }
}

async fn wait_for(progress: &Progress, nodes: &mut [NodeProcess]) -> Result<(), Failure> {
    let mut waiting = FuturesUnordered::new();
    for node in nodes.iter_mut() {
        let name = node.name.clone();
        waiting.push(async move { node.ready().await.map(|()| name) });
    }
    while let Some(ready) = waiting.next().await {
        progress.say(format_args!("node {} ready", ready?));
    }
    Ok(())
}

/// A token for the agents, by the administrator's kubeconfig that the first node wrote.
async fn token(settings: &Settings) -> Result<JoinToken, Failure> {
    let kubeconfig =
        Kubeconfig::load(&settings.kubeconfig, None, "kobune").map_err(|error| Failure::chain(&error))?;
    let http = Http::new(&kubeconfig.server).map_err(|error| Failure::chain(&error))?;
    let client = Client::new(Arc::new(http));
    let authority = &kubeconfig.server.certificate_authority;
    let lifetime = SignedDuration::from_hours(1);
    let env = Env::system();
    let made = JoinToken::create(&client, authority, &env, lifetime, "made by kobune up --nodes");
    made.await.map(|(token, _)| token).map_err(Failure::new)
}

fn server_arguments(settings: &Settings, common: &Common, address: IpAddr) -> Vec<OsString> {
    let cidrs = |ranges: &[IpNet]| ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let listen = std::net::SocketAddr::new(address, settings.listen.port());
    let mut arguments: Vec<OsString> = vec![
        "up".into(),
        "--shares-machine".into(),
        "--listen".into(),
        listen.to_string().into(),
        "--kubeconfig".into(),
        settings.kubeconfig.clone().into(),
        "--cluster-cidr".into(),
        cidrs(&settings.cluster_cidrs).into(),
        "--service-cidr".into(),
        cidrs(&settings.service_cidrs).into(),
        "--node-monitor-grace-period".into(),
        format!("{}s", settings.node_monitor_grace_period.as_secs()).into(),
    ];
    if let Some(config) = &common.config {
        arguments.extend(["--config".into(), config.clone().into()]);
    }
    arguments
}

fn agent_arguments(
    settings: &Settings,
    machines: &Machines,
    token: &JoinToken,
    machine: &machine::Machine,
) -> Result<Vec<OsString>, Failure> {
    // The token goes by a file: everybody sees a process's arguments.
    let mut arguments: Vec<OsString> = vec!["agent".into(), "--shares-machine".into(), "--stop-pods".into()];
    arguments.extend(["--server".into(), machines.url(settings).into()]);
    arguments.extend(["--token-file".into(), machine.write_token(token)?.into()]);
    Ok(arguments)
}
