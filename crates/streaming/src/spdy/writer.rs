//! The sending half of a connection.

use std::sync::Arc;

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Mutex, Notify};

use super::frame::{self, DATA_MAX, FLAG_FIN};
use super::headers::{Headers, Storer};
use super::windows::Windows;
use super::{CANCEL, Role};
use crate::StreamError;

/// Writes frames; its clones take turns. A frame that was begun is completed by the next one, so that a caller may
/// give up waiting.
#[derive(Clone)]
pub struct Writer {
    shared: Arc<Shared>,
}

struct Shared {
    output: Mutex<Output>,
    windows: parking_lot::Mutex<Windows>,
    granted: Notify,
}

struct Output {
    io: Box<dyn AsyncWrite + Send + Unpin>,
    pending: BytesMut,
    storer: Storer,
    next_id: u32,
}

impl Output {
    async fn flush(&mut self) -> Result<(), StreamError> {
        while self.pending.has_remaining() {
            if self.io.write_buf(&mut self.pending).await? == 0 {
                return Err(StreamError::Disconnected);
            }
        }
        Ok(self.io.flush().await?)
    }
}

impl Writer {
    pub(super) fn new(io: Box<dyn AsyncWrite + Send + Unpin>, role: Role) -> Self {
        let next_id = if role == Role::Client { 1 } else { 2 };
        let output = Output { io, pending: BytesMut::new(), storer: Storer::default(), next_id };
        Self {
            shared: Arc::new(Shared {
                output: Mutex::new(output),
                windows: parking_lot::Mutex::default(),
                granted: Notify::new(),
            }),
        }
    }

    async fn push(&self, parts: &[&[u8]]) -> Result<(), StreamError> {
        let mut output = self.shared.output.lock().await;
        output.flush().await?;
        parts.iter().for_each(|part| output.pending.put_slice(part));
        output.flush().await
    }

    async fn control(&self, kind: u16, numbers: &[u32]) -> Result<(), StreamError> {
        let payload: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
        self.push(&[&frame::control(kind, 0, &payload)]).await
    }

    /// Opens a stream. `register` is told its number before the peer can answer.
    pub async fn open(&self, headers: &Headers, register: impl FnOnce(u32)) -> Result<u32, StreamError> {
        let mut output = self.shared.output.lock().await;
        output.flush().await?;
        let id = output.next_id;
        output.next_id += 2;
        let mut payload = Vec::new();
        payload.put_u32(id);
        payload.put_u32(0);
        payload.put_u16(0);
        payload.extend_from_slice(&output.storer.write(headers)?);
        output.pending.put_slice(&frame::control(frame::SYN_STREAM, 0, &payload));
        self.shared.windows.lock().open(id);
        register(id);
        output.flush().await?;
        Ok(id)
    }

    /// Accepts a stream that the peer opened.
    pub async fn reply(&self, id: u32) -> Result<(), StreamError> {
        let mut output = self.shared.output.lock().await;
        output.flush().await?;
        let mut payload = id.to_be_bytes().to_vec();
        payload.extend_from_slice(&output.storer.write(&Headers::default())?);
        output.pending.put_slice(&frame::control(frame::SYN_REPLY, 0, &payload));
        self.shared.windows.lock().open(id);
        output.flush().await
    }

    /// Sends data on a stream and waits until it is on the wire.
    pub async fn data(&self, id: u32, mut bytes: &[u8]) -> Result<(), StreamError> {
        while !bytes.is_empty() {
            let granted = self.take(id, bytes.len().min(DATA_MAX)).await;
            let (now, later) = bytes.split_at(granted);
            self.push(&[&frame::data_head(id, 0, now.len()), now]).await?;
            bytes = later;
        }
        Ok(())
    }

    async fn take(&self, id: u32, wanted: usize) -> usize {
        loop {
            let changed = self.shared.granted.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let granted = self.shared.windows.lock().take(id, wanted);
            if granted > 0 {
                return granted;
            }
            changed.await;
        }
    }

    /// Says that nothing more follows on a stream.
    pub async fn end(&self, id: u32) -> Result<(), StreamError> {
        self.forget(id);
        self.push(&[&frame::data_head(id, FLAG_FIN, 0)]).await
    }

    /// Refuses or gives up a stream.
    pub async fn reset(&self, id: u32, why: u32) -> Result<(), StreamError> {
        self.forget(id);
        self.control(frame::RST_STREAM, &[id, why]).await
    }

    /// Gives up a stream that nobody listens to any more.
    pub async fn cancel(&self, id: u32) -> Result<(), StreamError> {
        self.reset(id, CANCEL).await
    }

    pub(super) async fn pong(&self, id: u32) -> Result<(), StreamError> {
        self.control(frame::PING, &[id]).await
    }

    /// Allows the peer to send more, if it keeps to windows.
    pub(super) async fn consumed(&self, id: u32, length: usize) -> Result<(), StreamError> {
        if !self.shared.windows.lock().are_kept() {
            return Ok(());
        }
        let length = length as u32;
        self.control(frame::WINDOW_UPDATE, &[id, length]).await?;
        self.control(frame::WINDOW_UPDATE, &[0, length]).await
    }

    pub(super) fn granted(&self, change: impl FnOnce(&mut Windows)) {
        change(&mut self.shared.windows.lock());
        self.shared.granted.notify_waiters();
    }

    pub(super) fn forget(&self, id: u32) {
        self.shared.windows.lock().close(id);
    }

    /// Says goodbye and closes our direction of the connection.
    pub async fn shutdown(&self) -> Result<(), StreamError> {
        self.control(frame::GOAWAY, &[0, 0]).await?;
        Ok(self.shared.output.lock().await.io.shutdown().await?)
    }
}
