//! Connections: TLS, HTTP/1.1 and HTTP/2, limits, and an orderly end.

use std::sync::Arc;
use std::time::Duration;

use env::Shutdown;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::service::{self, Peer};
use crate::core::Core;

const CONNECTIONS_MAX: usize = 10_000;
const STREAMS_MAX: u32 = 250;
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
const HEADERS_MAX: Duration = Duration::from_secs(32);
/// How long running requests may take to end when the server stops.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// After a failed `accept` (no file descriptors left), others get a chance to close theirs.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The protocols that are offered in the TLS handshake.
pub const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Serves connections until `shutdown`, then ends watches and waits for running requests.
pub async fn serve(core: Arc<Core>, listener: TcpListener, tls: Arc<ServerConfig>, shutdown: Shutdown) {
    let acceptor = TlsAcceptor::from(with_alpn(tls));
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(core.clone(), acceptor.clone(), stream, graceful.watcher());
                tokio::spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    core.shutdown.cancel();
    if tokio::time::timeout(DRAIN_MAX, graceful.shutdown()).await.is_err() {
        tracing::info!("requests were still running when the server stopped");
    }
}

fn with_alpn(tls: Arc<ServerConfig>) -> Arc<ServerConfig> {
    if !tls.alpn_protocols.is_empty() {
        return tls;
    }
    let mut own = ServerConfig::clone(&tls);
    own.alpn_protocols = ALPN.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(own)
}

async fn connection(core: Arc<Core>, acceptor: TlsAcceptor, stream: TcpStream, watcher: Watcher) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let stream = match tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_elapsed) => return tracing::debug!("TLS handshake took too long"),
    };
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = Peer { certificates: certificates.iter().map(|one| one.clone().into_owned()).collect() };
    let service = service_fn(move |request| {
        let (core, peer) = (core.clone(), peer.clone());
        async move { Ok::<_, std::convert::Infallible>(service::serve(core, peer, request).await) }
    });
    let builder = builder();
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection ended early");
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS_MAX);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS_MAX);
    builder
}
