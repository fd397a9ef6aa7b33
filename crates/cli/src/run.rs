//! `run`: a pod from an image, or, with `--replicas`, a replication controller of such pods.

use std::io::IsTerminal;

use serde_json::{Value, json};

use crate::api::with_query;
use crate::arguments::{DryRun, Writing};
use crate::create::{self, Output};
use crate::delete::How;
use crate::exec::{self, Streams};
use crate::expose::pairs;
use crate::output::Printing;
use crate::selection::Item;
use crate::session::Session;
use crate::watch::{self, Verdict};
use crate::{Error, pods};

const MANAGER: &str = "kubectl-run";

/// Runs an image.
#[derive(clap::Args)]
pub struct Run {
    /// The name of the pod or replication controller.
    name: String,
    #[arg(long)]
    image: String,
    /// Make a replication controller with this many pods.
    #[arg(short, long)]
    replicas: Option<u32>,
    /// The port that the container serves.
    #[arg(long)]
    port: Option<u16>,
    /// Make a service for the port too.
    #[arg(long)]
    expose: bool,
    /// NAME=VALUE; may be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Labels instead of run=NAME: a=b,c=d.
    #[arg(short, long, default_value = "", hide_default_value = true)]
    labels: String,
    /// a=b; may be repeated.
    #[arg(long)]
    annotations: Vec<String>,
    /// Always, OnFailure or Never.
    #[arg(long, default_value = "Always")]
    restart: String,
    #[arg(long)]
    image_pull_policy: Option<String>,
    #[arg(long)]
    privileged: bool,
    /// A merge patch for the object before it is created.
    #[arg(long, default_value = "", hide_default_value = true)]
    overrides: String,
    /// What follows `--` is the command, not its arguments.
    #[arg(long)]
    command: bool,
    /// Keep standard input open, and attach.
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the container a terminal.
    #[arg(short = 't', long)]
    tty: bool,
    /// Attach once the pod runs.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    attach: Option<bool>,
    /// Delete the pod afterwards.
    #[arg(long)]
    rm: bool,
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    printing: Printing,
    /// Arguments (or, with --command, the command) of the container.
    #[arg(last = true)]
    arguments: Vec<String>,
}

impl Run {
    pub async fn run(self, session: &Session) -> Result<(), Error> {
        // Whoever keeps standard input open means to use it, unless they say otherwise.
        let attach = self.attach.unwrap_or(self.stdin);
        self.check(attach)?;
        let item = create::place(session, self.object()?).await?;
        let output =
            Output { writing: self.writing.clone(), printing: self.printing.clone(), save_config: false };
        let item = match attach {
            true => self.create_quietly(session, item).await?,
            false => {
                let kind = item.kind.clone();
                Item::new(kind, create::create(session, item, &output, MANAGER).await?)
            }
        };
        if self.expose {
            let service = create::place(session, self.service(&item.object)).await?;
            create::create(session, service, &output, MANAGER).await?;
        }
        if !attach {
            return Ok(());
        }
        let result = self.attach(session, &item).await;
        if self.rm {
            How::default().one(session, item).await?;
        }
        result
    }

    fn check(&self, attach: bool) -> Result<(), Error> {
        if self.rm && !attach {
            return Err(Error::usage("--rm should only be used for attached containers"));
        }
        if attach && self.replicas.is_some() {
            return Err(Error::usage("-i, --attach and --rm need a single pod: leave out --replicas"));
        }
        if attach && self.writing.dry_run != DryRun::None {
            return Err(Error::usage("--dry-run=none must be specified when attaching to a container"));
        }
        if self.tty && !self.stdin {
            return Err(Error::usage("-i/--stdin is required for containers with -t/--tty=true"));
        }
        if self.expose && self.port.is_none() {
            return Err(Error::usage("--port must be set when exposing a service"));
        }
        if !["Always", "OnFailure", "Never"].contains(&self.restart.as_str()) {
            return Err(Error::usage(format!("invalid restart policy: {}", self.restart)));
        }
        if self.replicas.is_some() && self.restart != "Always" {
            return Err(Error::usage("--restart must be Always with --replicas"));
        }
        Ok(())
    }

    async fn create_quietly(&self, session: &Session, item: Item) -> Result<Item, Error> {
        let path = with_query(&item.collection(), &self.writing.parameters(MANAGER));
        Ok(Item::new(item.kind, session.post(&path, &item.object).await?))
    }

    fn object(&self) -> Result<Value, Error> {
        let labels = match self.labels.as_str() {
            "" => json!({"run": self.name}),
            text => pairs(text)?,
        };
        let pod = self.pod_spec()?;
        let mut metadata = json!({"name": self.name, "labels": labels});
        if !self.annotations.is_empty() {
            metadata["annotations"] = pairs(&self.annotations.join(","))?;
        }
        let object = match self.replicas {
            None => json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod}),
            Some(replicas) => json!({
                "apiVersion": "v1",
                "kind": "ReplicationController",
                "metadata": metadata,
                "spec": {
                    "replicas": replicas,
                    "selector": labels,
                    "template": {"metadata": {"labels": labels}, "spec": pod},
                },
            }),
        };
        if self.overrides.is_empty() {
            return Ok(object);
        }
        let patch = serde_json::from_str(&self.overrides)
            .map_err(|error| Error::usage(format!("Invalid JSON in --overrides: {error}")))?;
        Ok(machinery::patch::merge_patch(&object, &patch))
    }

    fn pod_spec(&self) -> Result<Value, Error> {
        let mut container = json!({"name": self.name, "image": self.image});
        if !self.arguments.is_empty() {
            container[if self.command { "command" } else { "args" }] = json!(self.arguments);
        }
        if let Some(port) = self.port {
            container["ports"] = json!([{"containerPort": port}]);
        }
        if let Some(policy) = &self.image_pull_policy {
            container["imagePullPolicy"] = json!(policy);
        }
        if self.privileged {
            container["securityContext"] = json!({"privileged": true});
        }
        let variable = |text: &String| match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(json!({"name": name, "value": value})),
            _ => Err(Error::usage(format!("invalid env: {text}"))),
        };
        let env: Vec<_> = self.env.iter().map(variable).collect::<Result<_, _>>()?;
        if !env.is_empty() {
            container["env"] = Value::Array(env);
        }
        if self.stdin {
            container["stdin"] = Value::from(true);
            container["stdinOnce"] = Value::from(self.restart != "Always" || self.rm);
        }
        if self.tty {
            container["tty"] = Value::from(true);
        }
        let mut spec = json!({"containers": [container], "restartPolicy": self.restart});
        if self.replicas.is_none() {
            spec["dnsPolicy"] = Value::from("ClusterFirst");
        }
        Ok(spec)
    }

    fn service(&self, object: &Value) -> Value {
        let port = self.port.unwrap_or_default();
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": self.name},
            "spec": {
                "selector": object["metadata"]["labels"],
                "ports": [{"port": port, "protocol": "TCP", "targetPort": port}],
            },
        })
    }

    async fn attach(&self, session: &Session, item: &Item) -> Result<(), Error> {
        let pod = watch::until(session, item, |object| {
            let pod = object.ok_or_else(|| Error::usage("the pod was deleted before it ran"))?;
            let started = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
                || pods::is_ready(pod)
                || pod["status"]["containerStatuses"][0]["state"]["running"].is_object();
            Ok(if started { Verdict::Done(pod.clone()) } else { Verdict::More })
        })
        .await?;
        let item = Item { object: pod, ..item.clone() };
        if matches!(item.object["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
            // Too short-lived to be attached to: what it said is in its log.
            return crate::logs::whole(session, &item).await.and_then(|()| exit(&item.object));
        }
        let tty = self.tty && std::io::stdin().is_terminal();
        if tty && !self.quiet {
            session.err.line("If you don't see a command prompt, try pressing enter.")?;
        }
        let streams = Streams { stdin: self.stdin, tty };
        match exec::attach(session, &item, &self.name, streams).await {
            Err(error) if !matches!(error, Error::Exit(_)) => {
                // The container may have ended meanwhile; what it said is in its log.
                let name = &self.name;
                let warning =
                    format!("couldn't attach to pod/{name}, falling back to streaming logs: {error}");
                session.err.line(format!("warning: {warning}"))?;
                crate::logs::whole(session, &item).await?;
            }
            attached => attached?,
        }
        if self.restart == "Always" {
            return Ok(());
        }
        let ended = watch::until(session, &item, |object| {
            let phase = object.and_then(|pod| pod["status"]["phase"].as_str());
            let over = matches!(phase, None | Some("Succeeded" | "Failed"));
            Ok(if over { Verdict::Done(object.cloned().unwrap_or_default()) } else { Verdict::More })
        })
        .await?;
        exit(&ended)
    }
}

fn exit(pod: &Value) -> Result<(), Error> {
    let code = pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"].as_i64().unwrap_or(0);
    match i32::try_from(code) {
        Ok(0) => Ok(()),
        code => Err(Error::Exit(code.unwrap_or(1))),
    }
}
