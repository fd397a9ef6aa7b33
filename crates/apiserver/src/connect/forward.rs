//! One request passed on to another server, with its upgrade if it becomes one. Nothing is buffered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming as Answer;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use machinery::Status;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

use super::Connection;
use crate::core::Core;
use crate::http::body::{Body, BoxError, full};
use crate::http::service::{Incoming, RequestBody};

const DIAL_MAX: Duration = Duration::from_secs(30);
/// How much of another server's error text is read.
const ERROR_MAX: usize = 64 * 1024;

/// Where a request goes.
pub(super) struct Destination {
    pub address: SocketAddr,
    pub tls: Option<Arc<ClientConfig>>,
    pub path_and_query: String,
}

/// What becomes of error answers.
#[derive(Clone, Copy)]
pub(super) enum ErrorStyle<'a> {
    /// They are passed on as they are.
    Verbatim,
    /// Their text becomes a `Status` about this resource.
    Status { resource: &'a str, name: &'a str },
}

/// Passes the request on and the answer back.
pub(super) async fn pass(
    core: &Arc<Core>,
    destination: Destination,
    request: Incoming,
    style: ErrorStyle<'_>,
) -> Result<Response<Body>, Status> {
    let Incoming { method, headers, body, upgrade, .. } = request;
    let mut sender = tokio::time::timeout(DIAL_MAX, connect(core, &destination))
        .await
        .map_err(|_elapsed| unreachable_status(&destination, &"the connection took too long"))??;
    let body = match body {
        RequestBody::Stream(body) => body.map_err(BoxError::from).boxed_unsync(),
        RequestBody::Empty => Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync(),
    };
    let mut outgoing = Request::new(body);
    *outgoing.method_mut() = method;
    *outgoing.uri_mut() =
        destination.path_and_query.parse().map_err(|error| Status::bad_request(format!("{error}")))?;
    *outgoing.headers_mut() = passed_on(&headers, upgrade.is_some(), &destination);
    let answer =
        sender.send_request(outgoing).await.map_err(|error| unreachable_status(&destination, &error))?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return switch(answer, upgrade, &core.shutdown);
    }
    match style {
        ErrorStyle::Status { resource, name } if !answer.status().is_success() => {
            Err(as_status(answer, resource, name).await)
        }
        _ => Ok(relayed(answer)),
    }
}

/// The body of a GET that this server makes itself.
pub(super) async fn fetch(
    core: &Core,
    destination: &Destination,
    length_max: usize,
) -> Result<Bytes, Status> {
    let mut sender = connect(core, destination).await?;
    let failed = |error: &dyn std::fmt::Display| unreachable_status(destination, error);
    let mut request = Request::new(full(Bytes::new()));
    *request.uri_mut() =
        destination.path_and_query.parse().map_err(|error| Status::bad_request(format!("{error}")))?;
    if let Ok(host) = destination.address.to_string().parse() {
        request.headers_mut().insert(header::HOST, host);
    }
    let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
    if !answer.status().is_success() {
        return Err(failed(&answer.status()));
    }
    let body = Limited::new(answer.into_body(), length_max).collect().await;
    body.map(http_body_util::Collected::to_bytes).map_err(|error| failed(&error))
}

async fn connect(core: &Core, destination: &Destination) -> Result<SendRequest<Body>, Status> {
    let failed = |error: &dyn std::fmt::Display| unreachable_status(destination, error);
    let stream = core.connectors.dialer.dial(destination.address).await.map_err(|error| failed(&error))?;
    let stream: Box<dyn Connection> = match &destination.tls {
        None => stream,
        Some(config) => {
            let connector = tokio_rustls::TlsConnector::from(config.clone());
            let name = ServerName::IpAddress(destination.address.ip().into());
            Box::new(connector.connect(name, stream).await.map_err(|error| failed(&error))?)
        }
    };
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    // Ends with the answer or the upgraded connection.
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a forwarded connection ended early");
        }
    });
    Ok(sender)
}

fn unreachable_status(destination: &Destination, error: &dyn std::fmt::Display) -> Status {
    Status::service_unavailable(format!("error trying to reach service: {}: {error}", destination.address))
}

/// The headers that go on: not those that identify the caller to this server.
fn passed_on(headers: &HeaderMap, upgrades: bool, destination: &Destination) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for (name, value) in headers {
        let private = *name == header::AUTHORIZATION
            || *name == header::HOST
            || name.as_str().starts_with("impersonate-");
        let hop = [header::CONNECTION, header::UPGRADE, header::TRANSFER_ENCODING, header::TE].contains(name);
        let keeps_alive = name.as_str() == "keep-alive" || name.as_str() == "proxy-connection";
        if private || keeps_alive || (hop && !upgrades) || *name == header::SEC_WEBSOCKET_PROTOCOL {
            continue;
        }
        kept.append(name.clone(), value.clone());
    }
    if let Some(protocols) = websocket_protocols(headers) {
        kept.insert(header::SEC_WEBSOCKET_PROTOCOL, protocols);
    }
    if let Ok(host) = destination.address.to_string().parse() {
        kept.insert(header::HOST, host);
    }
    kept
}

/// The offered protocols without the caller's token.
fn websocket_protocols(headers: &HeaderMap) -> Option<http::HeaderValue> {
    let offered =
        headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let kept: Vec<_> = offered
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|protocol| !protocol.starts_with("base64url.bearer.authorization.k8s.io."))
        .collect();
    if kept.is_empty() { None } else { kept.join(", ").parse().ok() }
}

/// Both ends speak another protocol from here on: bytes are copied until one closes.
fn switch(
    mut answer: Response<Answer>,
    upgrade: Option<hyper::upgrade::OnUpgrade>,
    shutdown: &env::Shutdown,
) -> Result<Response<Body>, Status> {
    let client = upgrade.ok_or_else(|| Status::internal("the other server switched protocols unasked"))?;
    let server = hyper::upgrade::on(&mut answer);
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        let (client, server) = match tokio::try_join!(client, server) {
            Ok(both) => both,
            Err(error) => return tracing::debug!(%error, "an upgrade failed"),
        };
        let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
        let copying = tokio::io::copy_bidirectional(&mut client, &mut server);
        if let Some(Err(error)) = shutdown.run_until_cancelled(copying).await {
            tracing::debug!(%error, "an upgraded connection ended early");
        }
    });
    let (parts, _) = answer.into_parts();
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = parts.headers;
    Ok(response)
}

fn relayed(answer: Response<Answer>) -> Response<Body> {
    let (mut parts, body) = answer.into_parts();
    for hop in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
        parts.headers.remove(hop);
    }
    parts.version = http::Version::default();
    parts.extensions.clear();
    Response::from_parts(parts, body.map_err(BoxError::from).boxed_unsync())
}

/// Upstream's `NewGenericHttpResponseChecker`.
async fn as_status(answer: Response<Answer>, resource: &str, name: &str) -> Status {
    let code = answer.status().as_u16();
    let text = Limited::new(answer.into_body(), ERROR_MAX).collect().await;
    let text =
        text.map(|text| String::from_utf8_lossy(&text.to_bytes()).trim().to_owned()).unwrap_or_default();
    match code {
        400 => Status::bad_request(text),
        404 => {
            let message = format!("the server could not find the requested resource ( {resource} {name})");
            Status::failure(404, "NotFound", if text.is_empty() { message } else { text })
        }
        500 => Status::internal(text),
        code => Status::failure(code, "Unknown", format!("the server responded with {code}: {text}")),
    }
}

/// TLS that encrypts without checking who answers, for proxied pods and services.
pub(super) fn unchecked_tls() -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("ring supports the default protocol versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unchecked(provider)))
        .with_no_client_auth();
    Arc::new(config)
}

#[derive(Debug)]
struct Unchecked(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
