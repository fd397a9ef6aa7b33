//! `kobune kubectl`: the client for people who have no `kubectl` at hand. Its commands, flags and texts are kubectl's.
//!
//! It knows no kind by itself: names resolve through the server's discovery, tables are drawn by the server. Only
//! describing and the generators (`run`, `expose`, `create`) know what a pod or a service looks like. It keeps nothing
//! on disk, and it does not have kubectl's plugins, `cp`, `debug`, `edit`, `diff`, `drain`, `proxy`, `top` and
//! kustomize.

mod api;
mod apply;
mod arguments;
mod config;
mod create;
mod delete;
mod describe;
mod discovery;
mod duration;
mod error;
mod exec;
mod explain;
mod expose;
mod get;
mod information;
mod labels;
mod logs;
mod manifest;
mod output;
mod patch;
mod pods;
mod port_forward;
mod rollout;
mod run;
mod scale;
mod selection;
mod session;
mod wait;
mod watch;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::process::ExitCode;

pub use error::Error;

use session::Session;

/// The arguments of `kobune kubectl`.
#[derive(clap::Args)]
#[command(arg_required_else_help = true)]
pub struct Kubectl {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(clap::Args, Clone, Default)]
struct Global {
    /// The kubeconfig file. Without it: the first file of $KUBECONFIG, ~/.kube/config, /var/lib/kobune/kubeconfig.
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig to use.
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// The namespace to work in.
    #[arg(short = 'n', long, global = true, value_name = "NAME")]
    namespace: Option<String>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show one or many resources.
    Get(get::Get),
    /// Show the details of a resource and what happened to it.
    Describe(describe::Describe),
    /// Create resources from files, or one from arguments.
    Create(create::Create),
    /// Make resources what files say.
    Apply(apply::Apply),
    /// Delete resources by files, names or labels.
    Delete(delete::Delete),
    /// Run an image: a pod, or with --replicas a replication controller.
    Run(run::Run),
    /// Set how many replicas something has.
    Scale(scale::Scale),
    /// Make a service for a pod, service, replication controller, replica set or deployment.
    Expose(expose::Expose),
    /// Print the logs of containers.
    Logs(logs::Logs),
    /// Run a command in a container.
    Exec(exec::Exec),
    /// Attach to the process of a container.
    Attach(exec::Attach),
    /// Forward local ports to a pod.
    PortForward(port_forward::PortForward),
    /// Follow and control the rollout of deployments.
    #[command(subcommand)]
    Rollout(rollout::Rollout),
    /// Change labels.
    Label(labels::Label),
    /// Change annotations.
    Annotate(labels::Label),
    /// Wait for a condition.
    Wait(wait::Wait),
    /// Change fields with a patch.
    Patch(patch::PatchCommand),
    /// Show the versions of client and server.
    Version(information::Version),
    /// List the kinds of resources of the server.
    ApiResources(information::ApiResources),
    /// Show the fields of a kind.
    Explain(explain::Explain),
    /// Show where the control plane is.
    ClusterInfo,
    /// Show the kubeconfig.
    #[command(subcommand)]
    Config(config::Config),
}

impl Kubectl {
    /// Runs the command and prints a failure as kubectl does.
    pub fn main(self) -> ExitCode {
        match self.run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let text = error.to_string();
                if !text.is_empty() {
                    eprintln!("{}", text.trim_end());
                }
                ExitCode::from(error.exit_code())
            }
        }
    }

    /// Runs the command to its end. The error's text is complete, with kubectl's `error: ` or `Error from server`.
    pub fn run(self) -> Result<(), Error> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Output)?;
        let result = runtime.block_on(self.dispatch());
        // A read of the terminal that is under way would hold up an orderly end.
        runtime.shutdown_background();
        match result {
            Err(Error::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            result => result,
        }
    }

    async fn dispatch(self) -> Result<(), Error> {
        if let Command::Config(command) = self.command {
            return command.run(&self.global);
        }
        let client_only = matches!(&self.command, Command::Version(version) if version.client);
        let session = if client_only { Session::detached() } else { Session::open(&self.global)? };
        self.command.run(&session).await
    }
}

impl Command {
    async fn run(self, session: &Session) -> Result<(), Error> {
        match self {
            Self::Get(command) => command.run(session).await,
            Self::Describe(command) => command.run(session).await,
            Self::Create(command) => command.run(session).await,
            Self::Apply(command) => command.run(session).await,
            Self::Delete(command) => command.run(session).await,
            Self::Run(command) => command.run(session).await,
            Self::Scale(command) => command.run(session).await,
            Self::Expose(command) => command.run(session).await,
            Self::Logs(command) => command.run(session).await,
            Self::Exec(command) => command.run(session).await,
            Self::Attach(command) => command.run(session).await,
            Self::PortForward(command) => command.run(session).await,
            Self::Rollout(command) => command.run(session).await,
            Self::Label(command) => command.run(session, labels::LABELS).await,
            Self::Annotate(command) => command.run(session, labels::ANNOTATIONS).await,
            Self::Wait(command) => command.run(session).await,
            Self::Patch(command) => command.run(session).await,
            Self::Version(command) => command.run(session).await,
            Self::ApiResources(command) => command.run(session).await,
            Self::Explain(command) => command.run(session).await,
            Self::ClusterInfo => information::cluster_info(session).await,
            Self::Config(_) => Ok(()),
        }
    }
}
