//! Answering an upgrade request: which protocol the client and we have in common.

use std::time::Duration;

use http::header::{CONNECTION, HeaderName, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::idle::IdleTimeout;
use crate::websocket::Encoding;
use crate::{Connection, StreamError};

const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_PROTOCOLS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
const SPDY: &str = "spdy/3.1";
/// A connection without any traffic ends after this time: upstream's `streamingConnectionIdleTimeout`.
const IDLE_MAX: Duration = Duration::from_secs(4 * 60 * 60);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// exec and attach.
    RemoteCommand,
    PortForward,
    /// One stream of bytes to the client, such as a log.
    Output,
}

/// What is spoken on an upgraded connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Messages whose first byte is a channel. From version 4 on the exit is told as a `metav1.Status`, from version
    /// 5 on a channel can be closed.
    WebSocket { encoding: Encoding, version: u8 },
    /// SPDY/3.1 streams.
    Spdy { version: u8 },
    /// SPDY/3.1 inside WebSocket messages, for port-forward.
    Tunnel,
    /// WebSocket messages without channels, for output.
    Messages { encoding: Encoding },
}

impl Protocol {
    pub(crate) fn version(self) -> u8 {
        match self {
            Self::WebSocket { version, .. } | Self::Spdy { version } => version,
            Self::Tunnel | Self::Messages { .. } => 1,
        }
    }
}

/// An accepted request; send the response, then await [`Accepted::connection`].
pub struct Accepted {
    pub protocol: Protocol,
    upgrade: OnUpgrade,
}

impl Accepted {
    /// The connection, once the response (101) is on the wire.
    pub async fn connection(self) -> Result<Connection, StreamError> {
        let upgraded = self.upgrade.await.map_err(StreamError::Upgrade)?;
        Ok(Connection::new(IdleTimeout::new(TokioIo::new(upgraded), IDLE_MAX), self.protocol))
    }
}

/// Why a request is not upgraded.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub code: StatusCode,
    pub message: String,
    /// For a client that speaks other protocols than we do: ours.
    pub accepted: Vec<&'static str>,
}

impl Refusal {
    /// The HTTP answer, in plain text as upstream gives it.
    pub fn response(&self) -> Response<String> {
        let mut response = Response::new(format!("{}\n", self.message));
        *response.status_mut() = self.code;
        for protocol in &self.accepted {
            response.headers_mut().append(ACCEPTED_PROTOCOLS, HeaderValue::from_static(protocol));
        }
        response
    }
}

/// Whether a client would rather have an answer as WebSocket messages.
pub fn is_websocket(headers: &HeaderMap) -> bool {
    let has = |name: &HeaderName, token: &str| tokens(headers, name).iter().any(|known| known == token);
    has(&CONNECTION, "upgrade") && has(&UPGRADE, "websocket")
}

/// Chooses the protocol of an upgrade request and makes the answer that starts it.
pub fn accept<B>(request: &mut Request<B>, purpose: Purpose) -> Result<(Accepted, Response<()>), Refusal> {
    let headers = request.headers();
    let wanted = tokens(headers, &UPGRADE);
    let upgrades = tokens(headers, &CONNECTION).iter().any(|token| token == "upgrade");
    let (protocol, response) = match () {
        () if upgrades && wanted.iter().any(|token| token == "websocket") => websocket(headers, purpose)?,
        () if upgrades && wanted.iter().any(|token| token == SPDY) => spdy(headers, purpose)?,
        () => return Err(refuse(StatusCode::BAD_REQUEST, "Upgrade request required")),
    };
    Ok((Accepted { protocol, upgrade: hyper::upgrade::on(request) }, response))
}

fn refuse(code: StatusCode, message: impl Into<String>) -> Refusal {
    Refusal { code, message: message.into(), accepted: Vec::new() }
}

/// The comma-separated parts of all headers of a name, in lower case.
fn tokens(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    values(headers, name).iter().map(|text| text.to_ascii_lowercase()).collect()
}

fn values(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let texts = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(|part| part.trim().to_owned()).collect()
}

fn switching(headers: &[(HeaderName, &str)]) -> Result<Response<()>, Refusal> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    for (name, value) in headers {
        let value = HeaderValue::from_str(value)
            .map_err(|_| refuse(StatusCode::BAD_REQUEST, "invalid header value"))?;
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

fn websocket(headers: &HeaderMap, purpose: Purpose) -> Result<(Protocol, Response<()>), Refusal> {
    let bad = |text: &str| refuse(StatusCode::BAD_REQUEST, text);
    let key = headers.get("sec-websocket-key").ok_or_else(|| bad("missing Sec-WebSocket-Key"))?;
    if headers.get("sec-websocket-version").is_none_or(|version| version != "13") {
        return Err(bad("missing or bad WebSocket Version"));
    }
    let names = values(headers, &http::header::SEC_WEBSOCKET_PROTOCOL);
    let found = names.iter().find_map(|name| Some((name, websocket_protocol(name, purpose)?)));
    let accept = derive_accept_key(key.as_bytes());
    let mut answer = vec![(UPGRADE, "websocket"), (http::header::SEC_WEBSOCKET_ACCEPT, accept.as_str())];
    let protocol = match found {
        Some((name, protocol)) => {
            answer.push((http::header::SEC_WEBSOCKET_PROTOCOL, name));
            protocol
        }
        None if names.is_empty() && purpose == Purpose::Output => {
            Protocol::Messages { encoding: Encoding::Binary }
        }
        None if names.is_empty() => Protocol::WebSocket { encoding: Encoding::Binary, version: 1 },
        None => {
            let message = format!("requested protocol(s) are not supported: [{}]", names.join(" "));
            return Err(refuse(StatusCode::FORBIDDEN, message));
        }
    };
    Ok((protocol, switching(&answer)?))
}

fn websocket_protocol(name: &str, purpose: Purpose) -> Option<Protocol> {
    let channels = |encoding, version| Some(Protocol::WebSocket { encoding, version });
    match (name, purpose) {
        ("v5.channel.k8s.io", Purpose::RemoteCommand) => channels(Encoding::Binary, 5),
        ("binary.k8s.io", Purpose::Output) => Some(Protocol::Messages { encoding: Encoding::Binary }),
        ("base64.binary.k8s.io", Purpose::Output) => Some(Protocol::Messages { encoding: Encoding::Base64 }),
        (_, Purpose::Output) => None,
        ("v4.channel.k8s.io", _) => channels(Encoding::Binary, 4),
        ("v4.base64.channel.k8s.io", _) => channels(Encoding::Base64, 4),
        ("channel.k8s.io", Purpose::RemoteCommand) => channels(Encoding::Binary, 1),
        ("base64.channel.k8s.io", Purpose::RemoteCommand) => channels(Encoding::Base64, 1),
        ("SPDY/3.1+portforward.k8s.io", Purpose::PortForward) => Some(Protocol::Tunnel),
        _ => None,
    }
}

fn spdy(headers: &HeaderMap, purpose: Purpose) -> Result<(Protocol, Response<()>), Refusal> {
    let ours: &[(&'static str, u8)] = match purpose {
        Purpose::RemoteCommand => &[
            ("v4.channel.k8s.io", 4),
            ("v3.channel.k8s.io", 3),
            ("v2.channel.k8s.io", 2),
            ("channel.k8s.io", 1),
        ],
        Purpose::PortForward => &[("portforward.k8s.io", 1)],
        Purpose::Output => return Err(refuse(StatusCode::BAD_REQUEST, "output is sent over WebSocket only")),
    };
    let names = values(headers, &STREAM_PROTOCOL);
    let found = names.iter().find_map(|name| ours.iter().find(|(our, _)| our == name));
    let mut answer = vec![(UPGRADE, "SPDY/3.1")];
    let version = match found {
        Some((name, version)) => {
            answer.push((STREAM_PROTOCOL, name));
            *version
        }
        None if names.is_empty() => {
            let message = "unable to upgrade: X-Stream-Protocol-Version is required";
            return Err(refuse(StatusCode::BAD_REQUEST, message));
        }
        None => {
            let accepted: Vec<_> = ours.iter().map(|(name, _)| *name).collect();
            let message = format!(
                "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
                names.join(" "),
                accepted.join(" ")
            );
            return Err(Refusal { code: StatusCode::FORBIDDEN, message, accepted });
        }
    };
    Ok((Protocol::Spdy { version }, switching(&answer)?))
}
