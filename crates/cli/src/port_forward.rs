//! `port-forward`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::Value;
use streaming::client::{self, PORT_FORWARD_PROTOCOL};
use tokio::net::TcpListener;

use crate::selection::{self, Item};
use crate::session::Session;
use crate::{Error, pods};

/// Forwards local ports.
#[derive(clap::Args)]
pub struct PortForward {
    /// POD, or TYPE/NAME of something with pods.
    target: String,
    /// LOCAL:REMOTE, PORT for both, or :REMOTE for any free local port.
    #[arg(required = true)]
    ports: Vec<String>,
    /// Where to listen: addresses or localhost.
    #[arg(long, value_delimiter = ',', default_value = "localhost")]
    address: Vec<String>,
}

/// One forwarded port.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Pair {
    /// 0 for any.
    local: u16,
    remote: u16,
}

impl PortForward {
    pub async fn run(self, session: &Session) -> Result<(), Error> {
        let item = selection::one(session, &self.target, "pods").await?;
        let label = item.label();
        let found = pods::of(session, item.clone()).await?.into_iter();
        let pod = found.into_iter().find(|pod| pod.object["status"]["phase"] == "Running");
        let pod = pod.ok_or_else(|| {
            Error::usage(format!(
                "unable to forward port because pod is not running. No running pod for {label}"
            ))
        })?;
        let pairs = self.ports.iter().map(|text| pair(text, &item, &pod)).collect::<Result<Vec<_>, _>>()?;
        let io = session.api.upgrade(&pod.path("portforward"), PORT_FORWARD_PROTOCOL).await?;
        let (forward, driver) = client::PortForward::over(io).await;
        let forward = Arc::new(forward);
        let mut listeners = FuturesUnordered::new();
        for pair in pairs {
            for (listener, local) in self.listen(session, pair).await? {
                listeners.push(serve(session, listener, local, pair.remote, forward.clone()));
            }
        }
        tokio::select! {
            ended = driver => ended.map_err(Error::from).and(Err(Error::usage("lost connection to pod"))),
            failed = listeners.next() => failed.unwrap_or(Ok(())),
            interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        }
    }

    /// Listens on all addresses; of `localhost` one of the two is enough.
    async fn listen(&self, session: &Session, pair: Pair) -> Result<Vec<(TcpListener, u16)>, Error> {
        let mut listeners = Vec::new();
        let mut local = pair.local;
        for address in &self.address {
            let (addresses, need): (Vec<IpAddr>, bool) = match address.as_str() {
                "localhost" => (vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()], false),
                text => {
                    let address =
                        text.parse().map_err(|_| Error::usage(format!("{text} is not a valid IP")))?;
                    (vec![address], true)
                }
            };
            let mut failure = None;
            for address in addresses {
                match TcpListener::bind((address, local)).await {
                    Ok(listener) => {
                        let at = listener.local_addr()?;
                        local = at.port();
                        session.out.line(format!("Forwarding from {at} -> {}", pair.remote))?;
                        listeners.push((listener, at.port()));
                    }
                    Err(error) if need => return Err(bind_failure(local, &error)),
                    Err(error) => failure = Some(error),
                }
            }
            if let (true, Some(error)) = (listeners.is_empty(), failure) {
                return Err(bind_failure(local, &error));
            }
        }
        Ok(listeners)
    }
}

fn bind_failure(port: u16, error: &std::io::Error) -> Error {
    Error::usage(format!("unable to listen on port {port}: {error}"))
}

async fn serve(
    session: &Session,
    listener: TcpListener,
    local: u16,
    remote: u16,
    forward: Arc<client::PortForward>,
) -> Result<(), Error> {
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                session.out.line(format!("Handling connection for {local}"))?;
                let forward = forward.clone();
                connections.push(async move { forward.forward(remote, stream).await });
            }
            Some(ended) = connections.next() => {
                if let Err(error) = ended {
                    session.err.line(format!("an error occurred forwarding {local} -> {remote}: {error}"))?;
                }
            }
        }
    }
}

/// Reads `8080:80`, `80`, `:80` or `8080:http`; a service's port becomes its pod's.
fn pair(text: &str, of: &Item, pod: &Item) -> Result<Pair, Error> {
    let invalid = || Error::usage(format!("invalid port format '{text}'"));
    let (local, remote) = text.split_once(':').unwrap_or((text, text));
    let remote = if of.kind.is("", "services") {
        service_port(&of.object, remote, &pod.object)
    } else {
        remote.parse().ok().or_else(|| container_port(&pod.object, remote))
    };
    let remote = remote.filter(|port| *port > 0);
    let remote = remote.ok_or_else(|| match of.kind.is("", "services") {
        true => Error::usage(format!("Service {} does not have a service port {text}", of.name)),
        false => invalid(),
    })?;
    let local = match local {
        "" => 0,
        number if number.parse::<u16>().is_ok() => number.parse().map_err(|_| invalid())?,
        _ if text.contains(':') => return Err(invalid()),
        // A name alone: the same port on this side.
        _ => remote,
    };
    Ok(Pair { local, remote })
}

fn number(value: &Value) -> Option<u16> {
    u16::try_from(value.as_u64()?).ok()
}

fn container_port(pod: &Value, name: &str) -> Option<u16> {
    let containers = pod["spec"]["containers"].as_array()?;
    let mut ports = containers.iter().filter_map(|container| container["ports"].as_array()).flatten();
    ports.find(|port| port["name"] == name).and_then(|port| number(&port["containerPort"]))
}

fn service_port(service: &Value, wanted: &str, pod: &Value) -> Option<u16> {
    let ports = service["spec"]["ports"].as_array()?;
    let port = ports.iter().find(|port| {
        port["name"] == wanted || number(&port["port"]).is_some_and(|number| number.to_string() == wanted)
    })?;
    match &port["targetPort"] {
        Value::String(name) => container_port(pod, name),
        Value::Null => number(&port["port"]),
        target => number(target).filter(|target| *target > 0).or_else(|| number(&port["port"])),
    }
}
