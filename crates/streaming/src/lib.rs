//! The wire protocols of exec, attach and port-forward: WebSocket channels and SPDY/3.1, over any upgraded
//! connection.
//!
//! [`accept`] answers the upgrade request; the [`Connection`] that follows runs one [`remote_command`] or any number
//! of forwarded ports. [`client`] is the other end, over WebSocket. Nothing here knows of pods or containers: the
//! caller brings the process's streams or a way to connect to a port.
//!
//! Back-pressure is the connection's own: a writer waits until its frame is on the wire, and a reader that is not
//! served stops the reading of the connection. Source: `k8s.io/apimachinery/pkg/util/httpstream`,
//! `k8s.io/apimachinery/pkg/util/remotecommand`, KEP-4006, the SPDY/3.1 draft.
//!
//! [`remote_command`]: Connection::remote_command

mod accept;
mod channels;
pub mod client;
mod exit;
mod idle;
mod output;
mod port_forward;
mod remote_command;
mod spdy;
mod tunnel;
mod websocket;

use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

pub use accept::{Accepted, Protocol, Purpose, Refusal, accept, is_websocket};
pub use port_forward::Connect;
pub use remote_command::{Process, Wanted};
pub use websocket::Encoding;

/// A byte stream in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection of any kind.
pub type Io = Box<dyn Duplex>;
/// Where bytes come from.
pub type Reader = Pin<Box<dyn AsyncRead + Send>>;
/// Where bytes go.
pub type Writer = Pin<Box<dyn AsyncWrite + Send>>;

/// An upgraded connection and what is spoken on it.
pub struct Connection {
    io: Io,
    protocol: Protocol,
}

impl Connection {
    /// A connection whose protocol has been agreed upon.
    pub fn new(io: impl Duplex + 'static, protocol: Protocol) -> Self {
        Self { io: Box::new(io), protocol }
    }
}

/// Why a stream ended other than by its own end.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("the connection failed")]
    Io(#[from] std::io::Error),
    #[error("the WebSocket connection failed")]
    WebSocket(#[source] Box<tokio_tungstenite::tungstenite::Error>),
    #[error("the connection was not upgraded")]
    Upgrade(#[source] hyper::Error),
    /// The peer does not keep to the protocol.
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
    #[error("timed out waiting for client to create streams")]
    StreamsMissing,
    /// The other end went away while there was something left to do.
    #[error("the other end closed the connection")]
    Disconnected,
    /// What the other end said went wrong.
    #[error("{0}")]
    Remote(String),
}

impl From<tokio_tungstenite::tungstenite::Error> for StreamError {
    fn from(error: tokio_tungstenite::tungstenite::Error) -> Self {
        if websocket::is_end(&error) { Self::Disconnected } else { Self::WebSocket(Box::new(error)) }
    }
}

#[cfg(test)]
mod tests;
