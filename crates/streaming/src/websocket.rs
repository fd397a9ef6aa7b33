//! WebSocket messages that begin with the number of a channel.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::sync::Mutex;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::{Io, StreamError};

/// The longest message that is taken from a peer, in bytes.
const MESSAGE_MAX: usize = 8 << 20;
const READ_BUFFER: usize = 8 << 10;
/// From version 5 on: a message on this channel closes the one it names.
const CLOSE: u8 = 255;

/// How bytes are put into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Binary,
    /// Text messages: the channel as a digit, the rest in base64.
    Base64,
}

/// WebSocket over a connection whose handshake is done.
pub async fn over(io: Io, role: Role) -> WebSocketStream<Io> {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(MESSAGE_MAX))
        .max_frame_size(Some(MESSAGE_MAX));
    WebSocketStream::from_raw_socket(io, role, Some(config)).await
}

/// What a peer sent.
#[derive(Debug, PartialEq)]
pub enum Received {
    Data(u8, Bytes),
    End(u8),
}

/// The receiving half.
pub struct ChannelReader {
    stream: SplitStream<WebSocketStream<Io>>,
    encoding: Encoding,
    version: u8,
}

/// The sending half; its users take turns.
pub struct ChannelWriter {
    sink: Mutex<SplitSink<WebSocketStream<Io>, Message>>,
    encoding: Encoding,
}

/// The halves of a connection.
pub async fn channels(io: Io, role: Role, encoding: Encoding, version: u8) -> (ChannelReader, ChannelWriter) {
    let (sink, stream) = over(io, role).await.split();
    (ChannelReader { stream, encoding, version }, ChannelWriter { sink: Mutex::new(sink), encoding })
}

impl ChannelReader {
    /// The next message; `None` when the peer has closed the connection, tidily or not.
    pub async fn next(&mut self) -> Result<Option<Received>, StreamError> {
        loop {
            let bytes = match self.stream.next().await {
                Some(Ok(Message::Binary(bytes))) => bytes,
                Some(Ok(Message::Text(text))) => Bytes::from(text),
                Some(Ok(Message::Close(_))) | None => return Ok(None),
                Some(Ok(_)) => continue,
                Some(Err(error)) if is_end(&error) => return Ok(None),
                Some(Err(error)) => return Err(error.into()),
            };
            if let Some(received) = self.decode(bytes)? {
                return Ok(Some(received));
            }
        }
    }

    fn decode(&self, bytes: Bytes) -> Result<Option<Received>, StreamError> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        let payload = bytes.slice(1..);
        match self.encoding {
            Encoding::Binary if self.version >= 5 && first == CLOSE => {
                let channel =
                    payload.first().ok_or(StreamError::Protocol("a close that names no channel"))?;
                Ok(Some(Received::End(*channel)))
            }
            Encoding::Binary => Ok(Some(Received::Data(first, payload))),
            Encoding::Base64 => {
                let payload = STANDARD.decode(&payload).map_err(|_| StreamError::Protocol("bad base64"))?;
                Ok(Some(Received::Data(first.wrapping_sub(b'0'), payload.into())))
            }
        }
    }
}

/// Whether an error says only that the peer went away.
pub fn is_end(error: &Error) -> bool {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => true,
        Error::Protocol(error) => {
            matches!(error, ProtocolError::ResetWithoutClosingHandshake | ProtocolError::SendAfterClosing)
        }
        Error::Io(error) => {
            use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
            matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
        }
        _ => false,
    }
}

impl ChannelWriter {
    /// Sends bytes on a channel and waits until they are on the wire.
    pub async fn send(&self, channel: u8, bytes: &[u8]) -> Result<(), StreamError> {
        let message = match self.encoding {
            Encoding::Binary => {
                let mut message = Vec::with_capacity(bytes.len() + 1);
                message.push(channel);
                message.extend_from_slice(bytes);
                Message::Binary(message.into())
            }
            Encoding::Base64 => {
                let mut text = String::from(char::from(b'0'.wrapping_add(channel)));
                STANDARD.encode_string(bytes, &mut text);
                Message::Text(text.into())
            }
        };
        Ok(self.sink.lock().await.send(message).await?)
    }

    /// Says that nothing more follows on a channel (version 5).
    pub async fn end(&self, channel: u8) -> Result<(), StreamError> {
        let message = Message::Binary(Bytes::copy_from_slice(&[CLOSE, channel]));
        Ok(self.sink.lock().await.send(message).await?)
    }

    /// Closes the connection.
    pub async fn close(&self) -> Result<(), StreamError> {
        let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        let mut sink = self.sink.lock().await;
        let sent = match sink.send(Message::Close(Some(normal))).await {
            // The peer closed first: the answer to that may still have to go out.
            Err(error) if is_end(&error) => sink.flush().await,
            sent => sent,
        };
        match sent {
            Err(error) if !is_end(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }
}
