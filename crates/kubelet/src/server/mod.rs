//! The kubelet's HTTPS server: what the API server, and whoever is allowed, asks of this node.
//!
//! Every request is authenticated and authorized as one on the node's object. There are no redirects.

mod access;
mod delegated;
mod files;
mod locate;
mod metrics;
mod stats;
mod streams;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use auth::{AccessReviewer, Authenticator};
use bytes::Bytes;
use env::Shutdown;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use crate::pods::Pods;
use crate::pods::shared::Shared;

pub use delegated::{DelegatedAuthenticator, DelegatedAuthorizer};

/// A response's body.
pub type Body = BoxBody<Bytes, io::Error>;

/// What the server is given.
pub struct ServerConfig {
    pub listener: TcpListener,
    pub tls: Arc<rustls::ServerConfig>,
    pub authenticator: Arc<dyn Authenticator>,
    pub authorizer: Arc<dyn AccessReviewer>,
}

/// The server of one node.
pub struct Server {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pods: Arc<Pods>,
    authenticator: Arc<dyn Authenticator>,
    authorizer: Arc<dyn AccessReviewer>,
    samples: stats::Samples,
    tasks: TaskTracker,
    shutdown: Shutdown,
}

/// Who is at the other end of a connection.
#[derive(Clone)]
struct Peer {
    certificates: Arc<[CertificateDer<'static>]>,
}

/// An answer that is no success: plain text, as upstream's kubelet gives it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub code: StatusCode,
    pub message: String,
}

impl Failure {
    pub fn new(code: StatusCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }
}

pub(crate) type Answer = Result<Response<Body>, Failure>;

/// A body that is there at once.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed()
}

pub(crate) fn text(body: impl Into<Bytes>) -> Response<Body> {
    typed("text/plain; charset=utf-8", body)
}

pub(crate) fn json(value: &serde_json::Value) -> Response<Body> {
    typed("application/json", value.to_string())
}

fn typed(kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(body));
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

/// Serves until `shutdown`.
pub(crate) async fn run(config: ServerConfig, shared: Arc<Shared>, pods: Arc<Pods>, shutdown: Shutdown) {
    let acceptor = tokio_rustls::TlsAcceptor::from(config.tls);
    let server = Arc::new(Server {
        shared,
        pods,
        authenticator: config.authenticator,
        authorizer: config.authorizer,
        samples: stats::Samples::default(),
        tasks: TaskTracker::new(),
        shutdown: shutdown.clone(),
    });
    while let Some(accepted) = shutdown.run_until_cancelled(config.listener.accept()).await {
        match accepted {
            Ok((stream, _peer)) => {
                let (server, acceptor) = (server.clone(), acceptor.clone());
                let tasks = server.tasks.clone();
                tasks.spawn(async move { server.connection(stream, acceptor).await });
            }
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                // Out of descriptors, most likely: others must end first.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
    server.tasks.close();
    server.tasks.wait().await;
}

impl Server {
    async fn connection(self: Arc<Self>, stream: TcpStream, acceptor: tokio_rustls::TlsAcceptor) {
        let handshake = async {
            stream.set_nodelay(true)?;
            acceptor.accept(stream).await
        };
        let stream = match self.shutdown.run_until_cancelled(handshake).await {
            Some(Ok(stream)) => stream,
            Some(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
            None => return,
        };
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let peer = Peer { certificates: certificates.iter().map(|one| one.clone().into_owned()).collect() };
        let server = self.clone();
        let service = hyper::service::service_fn(move |request| {
            let (server, peer) = (server.clone(), peer.clone());
            async move { Ok::<_, Infallible>(server.answer(request, peer).await) }
        });
        let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        if let Some(Err(error)) = self.shutdown.run_until_cancelled(connection).await {
            tracing::debug!(%error, "connection failed")
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        let answer = match self.admit(&request, &peer).await {
            Ok(()) => self.route(request).await,
            Err(failure) => Err(failure),
        };
        answer.unwrap_or_else(|failure| {
            let mut response = text(format!("{}\n", failure.message.trim_end_matches('\n')));
            *response.status_mut() = failure.code;
            response
        })
    }

    async fn route(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        match parts.as_slice() {
            ["healthz" | "livez" | "readyz"] | ["healthz", "ping" | "log" | "syncloop"] => Ok(text("ok")),
            ["pods"] => Ok(json(&self.pod_list())),
            ["runningpods"] => self.running_pods().await,
            ["stats", "summary"] => self.summary().await,
            ["metrics"] => self.metrics().await,
            ["metrics", "resource"] => self.resource_metrics().await,
            ["metrics", "cadvisor"] => self.cadvisor_metrics().await,
            ["metrics", "probes"] => self.probe_metrics(),
            ["configz"] => Ok(json(&self.configz())),
            ["containerLogs", namespace, pod, container] => {
                let query = request.uri().query().unwrap_or_default();
                let log = self.container_log(namespace, pod, container, query).await?;
                Ok(if streaming::is_websocket(request.headers()) {
                    self.as_messages(request, log)
                } else {
                    log
                })
            }
            ["exec" | "attach" | "run", ..] | ["portForward", ..] => self.stream(request).await,
            ["logs", ..] => self.node_log(&path),
            _ => Err(Failure::new(StatusCode::NOT_FOUND, "404 page not found")),
        }
    }

    fn configz(&self) -> serde_json::Value {
        let settings = &self.shared.settings;
        serde_json::json!({"kubeletconfig": {
            "kind": "KubeletConfiguration",
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "clusterDNS": settings.dns.servers,
            "clusterDomain": settings.dns.domain,
            "maxPods": self.shared.max_pods,
            "podPidsLimit": if settings.pids_limit > 0 { settings.pids_limit } else { -1 },
            "nodeStatusUpdateFrequency": "10s",
            "nodeStatusReportFrequency": "5m0s",
            "nodeLeaseDurationSeconds": 40,
            "containerLogMaxSize": "10Mi",
            "containerLogMaxFiles": 5,
        }})
    }
}
