//! Probes: each runs in a task of its own with its own timer; the machine counts what they say.

pub mod grpc;
pub mod http;
pub mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use containers::{ContainerId, RuntimeError};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::sync::mpsc;

use crate::machine::Event;
use crate::machine::probe::{Outcome, ProbeKind};
use crate::machine::time::{after, between};
use crate::pods::executor::chain;
use crate::pods::shared::Shared;
use crate::text::head;

/// How much of a probe's output goes into messages.
const MESSAGE_BYTES: usize = 1024;
/// How soon a readiness probe is made again before its first success.
const FIRST_RETRY: Duration = Duration::from_millis(25);

/// What network probes share: one TLS configuration that trusts everybody, as upstream's probes do.
pub struct Prober {
    pub tls: Arc<rustls::ClientConfig>,
    pub counts: Counts,
}

/// How many probes were made, by kind and by result.
#[derive(Default)]
pub struct Counts([[AtomicU64; 3]; 3]);

impl Counts {
    fn add(&self, kind: ProbeKind, outcome: &Outcome) {
        let result = match outcome {
            Outcome::Success => 0,
            Outcome::Failure(_) => 1,
            Outcome::Error(_) => 2,
        };
        self.0[kind as usize][result].fetch_add(1, Ordering::Relaxed);
    }

    /// Kind, result and count of all that were made.
    pub fn all(&self) -> Vec<(&'static str, &'static str, u64)> {
        let mut list = Vec::new();
        for kind in ProbeKind::ALL {
            for (index, result) in ["successful", "failed", "unknown"].into_iter().enumerate() {
                let count = self.0[kind as usize][index].load(Ordering::Relaxed);
                if count > 0 {
                    list.push((kind.title(), result, count));
                }
            }
        }
        list
    }
}

/// A probe to be run until its task is aborted.
pub struct Plan {
    pub probe: Probe,
    pub container: Arc<Container>,
    pub id: ContainerId,
    pub kind: ProbeKind,
    pub started_at: Timestamp,
    /// Where network probes go unless they name a host.
    pub pod_ip: String,
}

/// Runs a probe again and again. `spread` delays the first one, so that a restarted kubelet does not probe all
/// containers at once.
pub async fn run(shared: Arc<Shared>, plan: Plan, spread: Duration, answers: mpsc::Sender<Event>) {
    let seconds = |value: Option<i32>, default| {
        Duration::from_secs(value.unwrap_or(default).max(0).unsigned_abs().into())
    };
    let initial = after(plan.started_at, seconds(plan.probe.initial_delay_seconds, 0));
    tokio::time::sleep(between(shared.env.now(), initial) + spread).await;
    let period = seconds(plan.probe.period_seconds, 10).max(Duration::from_secs(1));
    if plan.kind == ProbeKind::Readiness && plan.probe.exec.is_none() {
        first_success(&shared, &plan, period, &answers).await;
    }
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let outcome = once(&shared, &plan).await;
        if !report(&shared, &plan, outcome, &answers).await {
            return;
        }
    }
}

/// Until its first success a server that is only just starting is asked again quickly, ever more slowly, for at most
/// one period; only success is told, as it is no failure not to be ready at once. With commands this would cost too
/// much.
async fn first_success(shared: &Shared, plan: &Plan, period: Duration, answers: &mpsc::Sender<Event>) {
    let begun = tokio::time::Instant::now();
    let mut wait = FIRST_RETRY;
    while begun.elapsed() + wait < period {
        if once(shared, plan).await == Outcome::Success {
            report(shared, plan, Outcome::Success, answers).await;
            tokio::time::sleep(period).await;
            return;
        }
        tokio::time::sleep(wait).await;
        wait *= 2;
    }
    tokio::time::sleep(period.saturating_sub(begun.elapsed())).await;
}

/// Tells the machine; false when the pod's worker is gone.
async fn report(shared: &Shared, plan: &Plan, outcome: Outcome, answers: &mpsc::Sender<Event>) -> bool {
    shared.prober.counts.add(plan.kind, &outcome);
    let container = plan.container.name.clone();
    answers.send(Event::Probed { container, id: plan.id.clone(), kind: plan.kind, outcome }).await.is_ok()
}

async fn once(shared: &Shared, plan: &Plan) -> Outcome {
    let probe = &plan.probe;
    let limit = Duration::from_secs(probe.timeout_seconds.unwrap_or(1).max(1).unsigned_abs().into());
    if let Some(exec) = &probe.exec {
        return exec_probe(shared, &plan.id, exec.command.as_deref().unwrap_or_default(), limit).await;
    }
    if let Some(get) = &probe.http_get {
        return match port_number(&get.port, &plan.container) {
            Ok(port) => {
                let request = http::Request::of(get, port, &plan.pod_ip);
                judge_http(http::get(&shared.prober, &request, limit).await)
            }
            Err(message) => Outcome::Error(message),
        };
    }
    if let Some(tcp) = &probe.tcp_socket {
        let host = tcp.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(&plan.pod_ip);
        return match port_number(&tcp.port, &plan.container) {
            Ok(port) => tcp_probe(host, port, limit).await,
            Err(message) => Outcome::Error(message),
        };
    }
    if let Some(grpc) = &probe.grpc {
        let service = grpc.service.as_deref().unwrap_or_default();
        let port = u16::try_from(grpc.port).unwrap_or(0);
        return grpc::probe(&plan.pod_ip, port, service, limit).await;
    }
    Outcome::Error(format!("missing probe handler for container {}", plan.container.name))
}

async fn exec_probe(shared: &Shared, id: &ContainerId, command: &[String], limit: Duration) -> Outcome {
    match shared.runtime.exec_sync(id, command, limit).await {
        Ok(result) if result.exit_code == 0 => Outcome::Success,
        Ok(result) => {
            let said = [result.stdout, result.stderr].concat();
            Outcome::Failure(head(&String::from_utf8_lossy(&said), MESSAGE_BYTES).to_owned())
        }
        Err(RuntimeError::Timeout(_)) => Outcome::Failure(format!(
            "command timed out: {:?} timed out after {}s",
            command.join(" "),
            limit.as_secs()
        )),
        Err(RuntimeError::Start(message)) => Outcome::Failure(message),
        Err(error) => Outcome::Error(chain(&error)),
    }
}

fn judge_http(answer: http::Answer) -> Outcome {
    match answer {
        http::Answer::Status { code, .. } if (200..400).contains(&code) => Outcome::Success,
        http::Answer::Status { code, .. } => {
            Outcome::Failure(format!("HTTP probe failed with statuscode: {code}"))
        }
        http::Answer::Failed(cause) => Outcome::Failure(cause),
    }
}

async fn tcp_probe(host: &str, port: u16, limit: Duration) -> Outcome {
    match tokio::time::timeout(limit, tokio::net::TcpStream::connect((host, port))).await {
        Ok(Ok(_connected)) => Outcome::Success,
        Ok(Err(error)) => {
            Outcome::Failure(format!("dial tcp {}: {}", address(host, port), connect_error(&error)))
        }
        Err(_late) => Outcome::Failure(format!("dial tcp {}: i/o timeout", address(host, port))),
    }
}

/// `host:port`, brackets around IPv6.
pub fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A failure to connect in Go's words.
pub fn connect_error(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        std::io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        std::io::ErrorKind::TimedOut => "connect: connection timed out".to_owned(),
        _ => format!("connect: {error}"),
    }
}

/// A port by number or by the name that the container gives it.
pub fn port_number(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports
                .find(|port| port.name.as_deref() == Some(name.as_str()))
                .map(|port| port.container_port);
            named.or_else(|| name.parse().ok())
        }
    };
    let number = number.ok_or_else(|| match port {
        IntOrString::String(name) => format!("couldn't find port: {name:?} in container {}", container.name),
        IntOrString::Int(_) => "invalid port".to_owned(),
    })?;
    u16::try_from(number)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("invalid port number: {number}"))
}
