//! The command line.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use store::StoreError;

use crate::command;
use crate::config::{Cidrs, GracePeriod};

/// Carries containers all the way: from bare machines to a working Kubernetes cluster, in one binary.
#[derive(Parser)]
#[command(name = "kobune", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a cluster on this machine and stay in the foreground; Ctrl-C stops it with its pods.
    #[command(
        after_help = "Examples:\n  kobune up\n  kobune up --demo\n  kobune up --nodes 5\n  kobune up --data-dir /tmp/k --listen 127.0.0.1:7443"
    )]
    Up(command::up::Up),
    /// Run the control plane and a node as a service; pods keep running when it stops or is replaced.
    #[command(
        after_help = "Examples:\n  kobune server\n  kobune server --config /etc/kobune/config.yaml\n  systemd-run --unit kobune kobune server"
    )]
    Server(command::up::ServerCommand),
    /// Join this machine to a cluster as a node and run as a service; pods keep running when it stops or is replaced.
    #[command(
        after_help = "Examples:\n  kobune agent --server https://10.1.1.140:6443 --token TOKEN\n  kobune agent --server https://10.1.1.140:6443 --token-file /etc/kobune/token --node-label disk=ssd\n\n`kobune token create` on the server prints a token. It is needed once: later starts use the node's certificate."
    )]
    Agent(command::agent::AgentCommand),
    /// A built-in client for those who have no kubectl.
    #[command(
        after_help = "Examples:\n  kobune kubectl get nodes\n  kobune kubectl run my-nginx --image=kobune.local/web:latest --replicas=2 --port=80\n  \
        kobune kubectl help run"
    )]
    Kubectl(::cli::Kubectl),
    /// Pull, import, list and remove the images of this machine.
    Image(command::image::ImageCommand),
    /// Show or make tokens with which nodes join.
    Token(command::token::Token),
    /// Save or restore the cluster's state.
    Snapshot(command::snapshot::Snapshot),
    /// Remove every trace: processes, mounts, cgroups, namespaces, links, packet-filter tables and data.
    Reset(command::reset::Reset),
    /// Check whether this machine can run a node, and say how to mend what is missing.
    Doctor(command::doctor::Doctor),
    /// Serve the pod's name over HTTP: the program of the built-in image `kobune.local/web`.
    #[command(hide = true)]
    Web(command::web::Web),
    /// Print a script that completes commands in a shell.
    #[command(
        after_help = "Examples:\n  source <(kobune completion bash)\n  kobune completion zsh > ~/.zfunc/_kobune\n  kobune completion fish > ~/.config/fish/completions/kobune.fish"
    )]
    Completion { shell: clap_complete::Shell },
    /// Print the version.
    #[command(after_help = "Examples:\n  kobune version\n  kobune version --output json")]
    Version {
        /// `json` for scripts.
        #[arg(long, short, value_parser = ["json"])]
        output: Option<String>,
    },
}

/// Flags that `up`, `server` and `agent` share. Whatever a flag says, the configuration file can say, too; a flag wins.
#[derive(Args, Clone, Debug, Default)]
pub struct Common {
    /// The configuration file (YAML).
    #[arg(long, global = true, value_name = "FILE", env = "KOBUNE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Everything on disk stands under this directory [default: /var/lib/kobune].
    #[arg(long, global = true, value_name = "DIR", env = "KOBUNE_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where the administrator's kubeconfig is written [default: DATA_DIR/kubeconfig].
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Where the API server listens [default: 0.0.0.0:6443].
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub listen: Option<SocketAddr>,
    /// The range of pod addresses, or one per address family with a comma between [default: 10.42.0.0/16].
    #[arg(long, global = true, value_name = "CIDR")]
    pub cluster_cidr: Option<Cidrs>,
    /// The range of Service addresses, or one per address family with a comma between [default: 10.43.0.0/16].
    #[arg(long, global = true, value_name = "CIDR")]
    pub service_cidr: Option<Cidrs>,
    /// This node's name [default: the host name].
    #[arg(long, alias = "hostname-override", global = true, value_name = "NAME")]
    pub node_name: Option<String>,
    /// This node's address [default: the one of the default route].
    #[arg(long, global = true, value_name = "IP")]
    pub node_ip: Option<std::net::IpAddr>,
    /// A label that the node registers with; may be repeated.
    #[arg(long = "node-label", global = true, value_name = "KEY=VALUE")]
    pub node_labels: Vec<String>,
    /// Other nodes of `up --nodes` are on this machine as well.
    #[arg(long, global = true, hide = true)]
    pub shares_machine: bool,
    /// How long a node may be silent before it counts as lost and its pods are replaced [default: 40s].
    #[arg(long, global = true, value_name = "DURATION")]
    pub node_monitor_grace_period: Option<GracePeriod>,
    /// What is logged to standard error: error, warn, info, debug, trace, or a filter [default: warn].
    #[arg(long, global = true, value_name = "FILTER", env = "KOBUNE_LOG")]
    pub log: Option<String>,
}

/// What went wrong, for a person: one line, and how to mend it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub message: String,
    /// 1 for failures, 2 for wrong usage.
    pub code: u8,
}

impl Failure {
    pub fn new(message: impl std::fmt::Display) -> Self {
        Self { message: message.to_string(), code: 1 }
    }

    pub fn usage(message: impl std::fmt::Display) -> Self {
        Self { message: message.to_string(), code: 2 }
    }

    /// Why the store cannot be had, and what to do about it.
    pub fn store(error: &StoreError) -> Self {
        let remedy = match error {
            StoreError::InUse(_) => {
                "stop the server that runs there, or choose another directory with --data-dir"
            }
            StoreError::Full(_) => "free some space there, or choose another place with --data-dir",
            StoreError::Io { cause, .. } if cause.contains("Permission denied") => {
                "try again as root, e.g. with sudo"
            }
            StoreError::Io { cause, .. } if cause.contains("Read-only") => {
                "choose another place with --data-dir"
            }
            // The rest says what to do by itself.
            _ => return Self::chain(error),
        };
        Self::new(format!("{}; {remedy}", Self::chain(error)))
    }

    /// Something that this machine did not do for containers.
    pub fn machine(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(format!("{}; `kobune doctor` says what this machine lacks", Self::chain(error)))
    }

    /// An error with all its causes on one line, and what to do where the last cause tells.
    pub fn chain(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut message = error.to_string();
        let mut last = error;
        while let Some(cause) = last.source() {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            last = cause;
        }
        if let Some(remedy) = last.downcast_ref::<std::io::Error>().and_then(|error| remedy(error.kind())) {
            message.push_str("; ");
            message.push_str(remedy);
        }
        Self::new(message)
    }
}

/// What to do about an error of the system that says nothing of where it comes from.
fn remedy(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Some("free some space there, or choose another place with --data-dir")
        }
        ErrorKind::PermissionDenied => Some("try again as root, e.g. with sudo"),
        ErrorKind::ReadOnlyFilesystem => Some("choose another place with --data-dir"),
        _ => None,
    }
}

/// The command line with all that is allowed on it.
fn command() -> clap::Command {
    Cli::command().mut_subcommand("kubectl", ::cli::with_switch_values)
}

/// Runs the command line; returns the exit code.
pub fn main() -> ExitCode {
    let matches = command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let result = match cli.command {
        Command::Kubectl(kubectl) => return kubectl.main(),
        Command::Up(up) => up.run(),
        Command::Server(server) => server.run(),
        Command::Agent(agent) => agent.run(),
        Command::Image(image) => image.run(),
        Command::Token(token) => token.run(),
        Command::Snapshot(snapshot) => snapshot.run(),
        Command::Reset(reset) => reset.run(),
        Command::Doctor(doctor) => doctor.run(),
        Command::Web(web) => web.run(),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut command(), "kobune", &mut std::io::stdout());
            Ok(())
        }
        Command::Version { output } => {
            command::version::print(output.as_deref());
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("kobune: {failure}");
            ExitCode::from(failure.code)
        }
    }
}

/// Sends logs to standard error.
pub fn start_logging(filter: Option<&str>) -> Result<(), Failure> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter.unwrap_or("warn"))
        .map_err(|error| Failure::usage(format!("--log: {error}")))?;
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    Ok(())
}
