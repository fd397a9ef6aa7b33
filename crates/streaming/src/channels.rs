//! The five channels of a remote command, whatever carries them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::remote_command::Wanted;
use crate::spdy::{self, Event};
use crate::websocket::{self, ChannelReader, ChannelWriter, Received};
use crate::{Connection, Protocol, StreamError};

/// How long a SPDY client may take to open its streams.
const STREAMS_WITHIN: Duration = Duration::from_secs(30);
/// How long the peer may take to close a connection that is over.
const LINGER: Duration = Duration::from_secs(5);
/// The first version in which the exit is told as a `metav1.Status`.
const STATUS_SINCE: u8 = 4;
/// The first version of SPDY in which terminals can be resized.
const RESIZE_SINCE: u8 = 3;

/// A channel; the numbers are those of WebSocket messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    Stdin,
    Stdout,
    Stderr,
    Error,
    Resize,
}

const ALL: [Channel; 5] = [Channel::Stdin, Channel::Stdout, Channel::Stderr, Channel::Error, Channel::Resize];

impl Channel {
    pub fn from_number(number: u8) -> Option<Self> {
        ALL.get(usize::from(number)).copied()
    }

    fn from_stream_type(name: &str) -> Option<Self> {
        ["stdin", "stdout", "stderr", "error", "resize"]
            .iter()
            .position(|known| *known == name)
            .map(|at| ALL[at])
    }
}

/// What the peer sent on a channel.
#[derive(Debug)]
pub enum Input {
    Data(Channel, Bytes),
    End(Channel),
}

/// The receiving half.
#[expect(clippy::large_enum_variant, reason = "there is one per connection")]
pub enum Incoming {
    WebSocket(ChannelReader),
    Spdy { reader: spdy::Reader, channels: BTreeMap<u32, Channel> },
}

/// The sending half.
pub struct Outgoing {
    carrier: Carrier,
    version: u8,
}

enum Carrier {
    WebSocket(ChannelWriter),
    Spdy { writer: spdy::Writer, streams: BTreeMap<Channel, u32> },
}

/// The server's halves of a connection, once all channels are there.
pub async fn open(connection: Connection, wanted: &Wanted) -> Result<(Incoming, Outgoing), StreamError> {
    let Connection { io, protocol } = connection;
    let version = protocol.version();
    match protocol {
        Protocol::WebSocket { encoding, .. } => {
            let (reader, writer) = websocket::channels(io, Role::Server, encoding, version).await;
            // An empty message tells the client that the connection stands.
            writer.send(wanted.first_output() as u8, &[]).await?;
            let outgoing = Outgoing { carrier: Carrier::WebSocket(writer), version };
            Ok((Incoming::WebSocket(reader), outgoing))
        }
        Protocol::Spdy { .. } => {
            let (reader, writer) = spdy::over(io, spdy::Role::Server);
            let opening = open_streams(reader, writer, version, wanted);
            tokio::time::timeout(STREAMS_WITHIN, opening).await.map_err(|_| StreamError::StreamsMissing)?
        }
        Protocol::Tunnel | Protocol::Messages { .. } => {
            Err(StreamError::Protocol("the agreed protocol carries no remote command"))
        }
    }
}

async fn open_streams(
    mut reader: spdy::Reader,
    writer: spdy::Writer,
    version: u8,
    wanted: &Wanted,
) -> Result<(Incoming, Outgoing), StreamError> {
    let mut expected = wanted.channels(version >= RESIZE_SINCE);
    let (mut channels, mut streams) = (BTreeMap::new(), BTreeMap::new());
    while !expected.is_empty() {
        match reader.next().await?.ok_or(StreamError::Disconnected)? {
            Event::Open(id, headers) => {
                let channel = Channel::from_stream_type(headers.get("streamtype"));
                let Some(at) = expected.iter().position(|expected| Some(*expected) == channel) else {
                    writer.reset(id, spdy::REFUSED_STREAM).await?;
                    continue;
                };
                let channel = expected.remove(at);
                writer.reply(id).await?;
                channels.insert(id, channel);
                streams.insert(channel, id);
            }
            // Clients close their direction of the streams they only read.
            Event::End(id) if channels.get(&id).is_some_and(|channel| *channel != Channel::Stdin) => {}
            _ => return Err(StreamError::Protocol("data before all streams were open")),
        }
    }
    let outgoing = Outgoing { carrier: Carrier::Spdy { writer, streams }, version };
    Ok((Incoming::Spdy { reader, channels }, outgoing))
}

impl Incoming {
    /// The next input; `None` when the client is gone.
    pub async fn next(&mut self) -> Result<Option<Input>, StreamError> {
        loop {
            let input = match self {
                Self::WebSocket(reader) => {
                    let Some(received) = reader.next().await? else { return Ok(None) };
                    match received {
                        Received::Data(channel, bytes) => {
                            Channel::from_number(channel).map(|channel| Input::Data(channel, bytes))
                        }
                        Received::End(channel) => Channel::from_number(channel).map(Input::End),
                    }
                }
                Self::Spdy { reader, channels } => {
                    let Some(event) = reader.next().await? else { return Ok(None) };
                    let of = |id: u32| channels.get(&id).copied();
                    match event {
                        Event::Data(id, bytes) => of(id).map(|channel| Input::Data(channel, bytes)),
                        Event::End(id) | Event::Reset(id) => of(id).map(Input::End),
                        // A stream that nobody asked for is left without an answer.
                        Event::Open(..) => None,
                    }
                }
            };
            if input.is_some() {
                return Ok(input);
            }
        }
    }

    /// Waits a moment for the peer to close.
    async fn linger(mut self) {
        let closed = async { while let Ok(Some(_)) = self.next().await {} };
        if tokio::time::timeout(LINGER, closed).await.is_err() {
            tracing::debug!("the client did not close its stream connection in time");
        }
    }
}

impl Outgoing {
    /// Sends bytes and waits until they are on the wire. A channel that the client did not ask for swallows them.
    pub async fn send(&self, channel: Channel, bytes: &[u8]) -> Result<(), StreamError> {
        match &self.carrier {
            Carrier::WebSocket(writer) => writer.send(channel as u8, bytes).await,
            Carrier::Spdy { writer, streams } => match streams.get(&channel) {
                Some(id) => writer.data(*id, bytes).await,
                None => Ok(()),
            },
        }
    }

    /// Says that nothing more follows on a channel; WebSocket has no word for it in this direction.
    pub async fn end(&self, channel: Channel) -> Result<(), StreamError> {
        match &self.carrier {
            Carrier::Spdy { writer, streams } if streams.contains_key(&channel) => {
                writer.end(streams[&channel]).await
            }
            _ => Ok(()),
        }
    }

    /// Tells how the command ended. Versions before 4 know only the text of a failure.
    pub async fn status(&self, status: &Value) -> Result<(), StreamError> {
        if self.version >= STATUS_SINCE {
            return self.send(Channel::Error, status.to_string().as_bytes()).await;
        }
        match status["message"].as_str() {
            Some(text) => self.send(Channel::Error, text.as_bytes()).await,
            None => Ok(()),
        }
    }

    /// Ends what the client still reads and closes the connection, tidily for the client.
    ///
    /// Go's SPDY client drops what it has not dispatched yet when it sees the connection end, so there the client is
    /// let go first. Either way its last input is read: closing with unread input would take back what was sent.
    pub async fn finish(&self, incoming: Incoming) -> Result<(), StreamError> {
        for channel in [Channel::Error, Channel::Stdin, Channel::Resize] {
            self.end(channel).await?;
        }
        match &self.carrier {
            Carrier::WebSocket(writer) => {
                writer.close().await?;
                incoming.linger().await;
                Ok(())
            }
            Carrier::Spdy { writer, .. } => {
                incoming.linger().await;
                match writer.shutdown().await {
                    // The client was faster.
                    Err(StreamError::Io(_) | StreamError::Disconnected) => Ok(()),
                    result => result,
                }
            }
        }
    }
}
