//! Connectors: `log`, `exec`, `attach`, `portforward` and `proxy`. They look up where the other end is and then copy
//! bytes both ways.
//!
//! Together with `computed` this folder is the only place of the API server that knows kinds.

mod forward;
mod kubelet;
mod proxy;

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use client::Target;
use http::{Method, Response};
use machinery::{Object, Status};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::core::Core;
use crate::http::body::Body;
use crate::http::service::Incoming;
use crate::pipeline::{Call, Selectors, attributes};

/// A byte stream to a node or pod.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Opens connections to nodes, pods and services. A seam: clusters may reach their nodes through tunnels.
#[async_trait]
pub trait Dialer: Send + Sync {
    async fn dial(&self, address: SocketAddr) -> std::io::Result<Box<dyn Connection>>;
}

/// Plain TCP from where the server runs.
pub struct TcpDialer;

#[async_trait]
impl Dialer for TcpDialer {
    async fn dial(&self, address: SocketAddr) -> std::io::Result<Box<dyn Connection>> {
        let stream = tokio::net::TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

/// Where connectors go.
pub struct Connectors {
    pub dialer: Arc<dyn Dialer>,
    /// Trusts the kubelets' certificates and presents the server's own; `None`: nodes cannot be reached.
    pub kubelet_tls: Option<Arc<rustls::ClientConfig>>,
}

/// Whether the target is a connection instead of an object.
pub fn is_connector(target: &Target) -> bool {
    let sub = target.subresource.as_str();
    target.group.is_empty()
        && match target.resource.as_str() {
            "pods" => matches!(sub, "log" | "exec" | "attach" | "portforward" | "proxy"),
            "services" | "nodes" => sub == "proxy",
            _ => false,
        }
}

/// Answers an authorized request for a connection.
pub async fn answer(core: &Arc<Core>, call: &Call, request: Incoming) -> Result<Response<Body>, Status> {
    let sub = call.target.subresource.as_str();
    // Since 1.35 a GET that becomes a WebSocket needs the same verb as the POST that becomes SPDY.
    if request.method == Method::GET && matches!(sub, "exec" | "attach" | "portforward") {
        core.judge(&attributes(&call.caller.user, "create", &call.target, Selectors::default()))?;
    }
    if sub != "log" {
        let mut options = connect_options(call, &request);
        core.admit_connect(call, &mut options).await?;
    }
    match sub {
        "log" => kubelet::log(core, call, request).await,
        "exec" | "attach" => kubelet::stream_into_container(core, call, request).await,
        "portforward" => kubelet::port_forward(core, call, request).await,
        _ => proxy::answer(core, call, request).await,
    }
}

/// The options object that admission sees.
fn connect_options(call: &Call, request: &Incoming) -> Value {
    let kind = call.row.subresource(&call.target.subresource).map_or("", |sub| sub.kind.as_str());
    let mut options = json!({"kind": kind, "apiVersion": call.row.api_version()});
    for name in ["container", "path"] {
        if request.query.has(name) {
            options[name] = json!(request.query.get(name));
        }
    }
    for name in ["stdin", "stdout", "stderr", "tty"] {
        if let Ok(Some(flag)) = request.query.flag(name) {
            options[name] = json!(flag);
        }
    }
    let command: Vec<_> = request.query.all("command").collect();
    if !command.is_empty() {
        options["command"] = json!(command);
    }
    options
}

/// What the kubelet of a node answers to a GET on the server's own behalf, up to a length in bytes.
pub async fn kubelet_page(core: &Core, node: &Value, path: &str, length_max: usize) -> Result<Bytes, Status> {
    forward::fetch(core, &kubelet::on_node(core, node, path.to_owned())?, length_max).await
}

/// An object that a connection needs to know, read on the server's own behalf.
async fn object(
    core: &Core,
    call: &Call,
    group: &str,
    resource: &str,
    namespace: &str,
    name: &str,
) -> Result<Arc<Object>, Status> {
    let target = Target {
        group: group.to_owned(),
        version: "v1".to_owned(),
        resource: resource.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        subresource: String::new(),
    };
    let call = core.call_within(&call.caller, "get", target)?;
    core.get(&call, &client::ListOptions::default()).await
}
