//! `kobune up --demo`: the walk of the article, by itself: two replicas, twenty replicas, an answer from each.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use clap::Args;
use client::{Cache, Client, ListOptions, Patch, typed};
use env::Shutdown;
use indicatif::{ProgressBar, ProgressStyle};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cli::Failure;
use crate::config::Settings;
use crate::node::WEB_IMAGE;
use crate::progress::Progress;

const NAME: &str = "my-nginx";
const NAMESPACE: &str = "default";
/// How long the whole of one step may take before the demonstration gives up with what it saw.
const STEP_TIMEOUT: Duration = Duration::from_secs(120);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The demonstration's flags.
#[derive(Args)]
pub struct Demo {
    /// Walk through an example when the node is ready: a web workload with 2 replicas, scaled to 20.
    #[arg(long)]
    demo: bool,
    /// The image of the example; it must serve HTTP on port 80.
    #[arg(long, value_name = "IMAGE", default_value = WEB_IMAGE, requires = "demo")]
    image: String,
}

impl Demo {
    pub fn is_wanted(&self) -> bool {
        self.demo
    }

    /// Runs the walk and prints a table at the end.
    pub async fn run(self, progress: &Progress, settings: &Settings) -> Result<(), Failure> {
        let client = super::token::admin(settings)?;
        let options = ListOptions { label_selector: format!("run={NAME}"), ..ListOptions::default() };
        let pods = Cache::new(client.namespaced::<Pod>(NAMESPACE), options, Vec::new());
        let stop = Shutdown::new();
        let (following, stopped) = (pods.clone(), stop.clone());
        tokio::spawn(async move { following.run(stopped).await });
        let result = self.walk(progress, &client, &pods).await;
        stop.cancel();
        result
    }

    async fn walk(&self, progress: &Progress, client: &Client, pods: &Cache) -> Result<(), Failure> {
        let controllers = client.namespaced::<ReplicationController>(NAMESPACE);
        match controllers.create(&self.body()).await {
            Err(status) if !status.is_already_exists() => return Err(Failure::new(status)),
            Err(_) => scale(&controllers, 2).await?,
            Ok(_) => {}
        }
        progress
            .say(format_args!("replicationcontroller {NAME:?} created with 2 replicas of {}", self.image));
        running(pods, 2, progress).await?;
        scale(&controllers, 20).await?;
        progress.say(format_args!("replicationcontroller {NAME:?} scaled to 20"));
        let addresses = running(pods, 20, progress).await?;
        let answers = ask_all(addresses).await?;
        print_table(&answers)?;
        progress.say(format_args!("{} pods answered; Ctrl-C stops everything", answers.len()));
        Ok(())
    }

    fn body(&self) -> serde_json::Value {
        json!({
            "apiVersion": "v1",
            "kind": "ReplicationController",
            "metadata": {"name": NAME, "namespace": NAMESPACE},
            "spec": {
                "replicas": 2,
                "selector": {"run": NAME},
                "template": {
                    "metadata": {"labels": {"run": NAME}},
                    "spec": {"containers": [{
                        "name": NAME,
                        "image": self.image,
                        "ports": [{"containerPort": 80}],
                        "imagePullPolicy": "IfNotPresent",
                        "readinessProbe": {"httpGet": {"path": "/", "port": 80}},
                    }]},
                },
            },
        })
    }
}

async fn scale(controllers: &client::Resources, replicas: u32) -> Result<(), Failure> {
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    controllers.patch(NAME, patch).await.map(drop).map_err(Failure::new)
}

/// Waits until just `wanted` pods run; returns their addresses.
async fn running(
    pods: &Cache,
    wanted: usize,
    progress: &Progress,
) -> Result<BTreeMap<String, IpAddr>, Failure> {
    let bar = ProgressBar::new(wanted as u64);
    let style = ProgressStyle::with_template("  pods running {bar:40} {pos}/{len}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut events = pods.subscribe();
    let waiting = async {
        pods.synced().await;
        loop {
            let addresses = ready_addresses(pods);
            bar.set_position(addresses.len() as u64);
            if addresses.len() == wanted && pods.len() == wanted {
                return addresses;
            }
            // Lagging only means another look at the whole.
            let _event = events.recv().await;
        }
    };
    let outcome = tokio::time::timeout(STEP_TIMEOUT, waiting).await;
    bar.finish_and_clear();
    let addresses = outcome.map_err(|_| Failure::new(not_running(pods, wanted)))?;
    progress.say(format_args!("{wanted} pods running"));
    Ok(addresses)
}

fn not_running(pods: &Cache, wanted: usize) -> String {
    let running = ready_addresses(pods).len();
    format!(
        "only {running} of {wanted} pods run after 2 minutes; see: kobune kubectl describe pods -l run={NAME}"
    )
}

fn ready_addresses(pods: &Cache) -> BTreeMap<String, IpAddr> {
    let address = |pod: &Pod| {
        let status = pod.status.as_ref()?;
        let conditions = status.conditions.as_deref().unwrap_or_default();
        let ready =
            conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        let name = pod.metadata.name.clone()?;
        let alive = pod.metadata.deletion_timestamp.is_none();
        status.pod_ip.as_ref().filter(|_| ready && alive)?.parse().ok().map(|ip| (name, ip))
    };
    pods.all().iter().filter_map(|object| address(&*typed::<Pod>(object).ok()?)).collect()
}

/// A pod's name, address and the first line of what it answered.
type Answer = (String, IpAddr, String);

async fn ask_all(addresses: BTreeMap<String, IpAddr>) -> Result<Vec<Answer>, Failure> {
    let ask = |(name, address): (String, IpAddr)| async move {
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, ask(address)).await;
        let answer =
            answer.map_err(|_| Failure::new(format!("pod {name} at {address} did not answer in 10 s")))?;
        let text = answer.map_err(|error| Failure::new(format!("pod {name} at {address}: {error}")))?;
        Ok::<_, Failure>((name, address, text))
    };
    futures::future::try_join_all(addresses.into_iter().map(ask)).await
}

/// One HTTP request; the first line of the body.
async fn ask(address: IpAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((address, 80)).await?;
    stream.write_all(format!("GET / HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(1 << 20).read_to_end(&mut answer).await?;
    let text = String::from_utf8_lossy(&answer);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok(body.lines().next().unwrap_or_default().trim().to_owned())
}

fn print_table(answers: &[Answer]) -> Result<(), Failure> {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_BORDERS_ONLY).set_header(["POD", "ADDRESS", "ANSWER"]);
    for (name, address, answer) in answers {
        table.add_row([name.clone(), address.to_string(), answer.clone()]);
    }
    writeln!(std::io::stdout(), "{table}").map_err(|error| Failure::chain(&error))
}
