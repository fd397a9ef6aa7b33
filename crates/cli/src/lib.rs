//! `kobune kubectl`: the client for people who have no `kubectl` at hand. Its commands, flags and texts are kubectl's.
//!
//! It knows no kind by itself: names resolve through the server's discovery, tables are drawn by the server. Only
//! describing and the generators (`run`, `expose`, `create`) know what a pod or a service looks like. It keeps nothing
//! on disk, and it does not have kubectl's plugins, `cp`, `debug`, `edit`, `diff`, `drain`, `proxy` and
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
mod top;
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
    #[command(
        after_help = "Examples:\n  kobune kubectl get pods\n  kobune kubectl get pods -l app=web -o wide\n  kobune kubectl get deploy/web -o jsonpath={.status.readyReplicas}\n  kobune kubectl get pods -A -w"
    )]
    Get(get::Get),
    /// Show the details of a resource and what happened to it.
    #[command(
        after_help = "Examples:\n  kobune kubectl describe pod my-nginx-abcde\n  kobune kubectl describe nodes\n  kobune kubectl describe deploy -l app=web"
    )]
    Describe(describe::Describe),
    /// Create resources from files, or one from arguments.
    #[command(
        after_help = "Examples:\n  kobune kubectl create -f pod.yaml\n  kobune kubectl create namespace team\n  kobune kubectl create deployment web --image=nginx --replicas=3\n  kobune kubectl create configmap settings --from-literal=colour=blue"
    )]
    Create(create::Create),
    /// Make resources what files say.
    #[command(
        after_help = "Examples:\n  kobune kubectl apply -f folder/\n  kobune kubectl apply --server-side -f app.yaml\n  cat app.yaml | kobune kubectl apply -f -"
    )]
    Apply(apply::Apply),
    /// Delete resources by files, names or labels.
    #[command(
        after_help = "Examples:\n  kobune kubectl delete -f app.yaml\n  kobune kubectl delete pod my-nginx-abcde\n  kobune kubectl delete deploy web --cascade=foreground\n  kobune kubectl delete pods -l app=web"
    )]
    Delete(delete::Delete),
    /// Run an image: a pod, or with --replicas a replication controller.
    #[command(
        after_help = "Examples:\n  kobune kubectl run my-nginx --image=nginx --replicas=2 --port=80\n  kobune kubectl run box --image=busybox -it --rm -- sh"
    )]
    Run(run::Run),
    /// Set how many replicas something has.
    #[command(
        after_help = "Examples:\n  kobune kubectl scale rc my-nginx --replicas=20\n  kobune kubectl scale deploy/web --current-replicas=2 --replicas=3"
    )]
    Scale(scale::Scale),
    /// Make a service for a pod, service, replication controller, replica set or deployment.
    #[command(
        after_help = "Examples:\n  kobune kubectl expose rc my-nginx --port=80\n  kobune kubectl expose deploy web --port=80 --target-port=8080 --type=NodePort"
    )]
    Expose(expose::Expose),
    /// Print the logs of containers.
    #[command(
        after_help = "Examples:\n  kobune kubectl logs my-nginx-abcde\n  kobune kubectl logs -f deploy/web --tail=20\n  kobune kubectl logs web-abcde -c sidecar --previous"
    )]
    Logs(logs::Logs),
    /// Run a command in a container.
    #[command(
        after_help = "Examples:\n  kobune kubectl exec my-nginx-abcde -- ls /\n  kobune kubectl exec -it deploy/web -- sh"
    )]
    Exec(exec::Exec),
    /// Attach to the process of a container.
    #[command(after_help = "Examples:\n  kobune kubectl attach box\n  kobune kubectl attach -it box -c main")]
    Attach(exec::Attach),
    /// Forward local ports to a pod.
    #[command(
        after_help = "Examples:\n  kobune kubectl port-forward my-nginx-abcde 8080:80\n  kobune kubectl port-forward svc/web :80"
    )]
    PortForward(port_forward::PortForward),
    /// Follow and control the rollout of deployments.
    #[command(subcommand)]
    #[command(
        after_help = "Examples:\n  kobune kubectl rollout status deploy/web\n  kobune kubectl rollout undo deploy/web --to-revision=2\n  kobune kubectl rollout restart deploy web"
    )]
    Rollout(rollout::Rollout),
    /// Change labels.
    #[command(
        after_help = "Examples:\n  kobune kubectl label pod my-nginx-abcde tier=front\n  kobune kubectl label nodes --all zone=a --overwrite\n  kobune kubectl label pod my-nginx-abcde tier-"
    )]
    Label(labels::Label),
    /// Change annotations.
    #[command(
        after_help = "Examples:\n  kobune kubectl annotate deploy web note=\"who to call\"\n  kobune kubectl annotate deploy web note-"
    )]
    Annotate(labels::Label),
    /// Wait for a condition.
    #[command(
        after_help = "Examples:\n  kobune kubectl wait --for=condition=Ready pod/box --timeout=60s\n  kobune kubectl wait --for=delete pod -l app=web\n  kobune kubectl wait --for=jsonpath={.status.phase}=Running pod/box"
    )]
    Wait(wait::Wait),
    /// Change fields with a patch.
    #[command(
        after_help = "Examples:\n  kobune kubectl patch deploy web -p '{\"spec\":{\"replicas\":3}}'\n  kobune kubectl patch pod box --type=json -p '[{\"op\":\"remove\",\"path\":\"/metadata/labels/tier\"}]'"
    )]
    Patch(patch::PatchCommand),
    /// Show what nodes and pods use.
    #[command(subcommand)]
    #[command(
        after_help = "Examples:\n  kobune kubectl top nodes\n  kobune kubectl top pods -A --sort-by=memory\n  kobune kubectl top pod -l app=web --containers"
    )]
    Top(top::Top),
    /// Show the versions of client and server.
    #[command(after_help = "Examples:\n  kobune kubectl version\n  kobune kubectl version --client")]
    Version(information::Version),
    /// List the kinds of resources of the server.
    #[command(
        after_help = "Examples:\n  kobune kubectl api-resources\n  kobune kubectl api-resources --api-group=apps -o name"
    )]
    ApiResources(information::ApiResources),
    /// Show the fields of a kind.
    #[command(
        after_help = "Examples:\n  kobune kubectl explain pods\n  kobune kubectl explain deployment.spec.strategy --recursive"
    )]
    Explain(explain::Explain),
    /// Show where the control plane is.
    #[command(after_help = "Examples:\n  kobune kubectl cluster-info")]
    ClusterInfo,
    /// Show the kubeconfig.
    #[command(subcommand)]
    #[command(
        after_help = "Examples:\n  kobune kubectl config view\n  kobune kubectl config current-context"
    )]
    Config(config::Config),
}

/// Lets every switch of the command and its subcommands be written as kubectl takes them: `--wait`, `--wait=true` and
/// `--wait=false`.
pub fn with_switch_values(command: clap::Command) -> clap::Command {
    let switch = |arg: clap::Arg| match arg.get_action() {
        clap::ArgAction::SetTrue => arg
            .action(clap::ArgAction::Set)
            .value_parser(clap::value_parser!(bool))
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .default_value("false")
            .hide_default_value(true)
            .hide_possible_values(true),
        _ => arg,
    };
    command.mut_args(switch).mut_subcommands(with_switch_values)
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
            Self::Top(command) => command.run(session).await,
            Self::Version(command) => command.run(session).await,
            Self::ApiResources(command) => command.run(session).await,
            Self::Explain(command) => command.run(session).await,
            Self::ClusterInfo => information::cluster_info(session).await,
            Self::Config(_) => Ok(()),
        }
    }
}
