//! One stream of bytes as WebSocket messages (`binary.k8s.io`, `base64.binary.k8s.io`): logs for browsers.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{SinkExt, Stream, StreamExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::websocket::{self, Encoding};
use crate::{Connection, Protocol, StreamError};

/// How long the client may take to close a connection that is over.
const LINGER: Duration = Duration::from_secs(5);

impl Connection {
    /// Sends a stream until its end, or until the client goes away.
    pub async fn output(
        self,
        parts: impl Stream<Item = std::io::Result<Bytes>> + Send,
    ) -> Result<(), StreamError> {
        let Protocol::Messages { encoding } = self.protocol else {
            return Err(StreamError::Protocol("the agreed protocol carries no plain output"));
        };
        let message = |bytes: Bytes| match encoding {
            Encoding::Binary => Message::Binary(bytes),
            Encoding::Base64 => Message::text(STANDARD.encode(&bytes)),
        };
        let (mut sink, mut stream) = websocket::over(self.io, Role::Server).await.split();
        let sent = async {
            // An empty message tells the client that the connection stands.
            sink.send(message(Bytes::new())).await?;
            tokio::pin!(parts);
            while let Some(part) = parts.next().await {
                sink.send(message(part?)).await?;
            }
            Ok(sink.send(Message::Close(None)).await?)
        };
        // What the client says is of no interest, except that it goes.
        let gone = async { while let Some(Ok(_)) = stream.next().await {} };
        tokio::pin!(gone);
        let result: Result<(), StreamError> = tokio::select! {
            result = sent => result,
            () = &mut gone => return Err(StreamError::Disconnected),
        };
        if result.is_ok() && tokio::time::timeout(LINGER, gone).await.is_err() {
            tracing::debug!("the client did not close its stream connection in time");
        }
        result
    }
}
