//! The receiving half of a connection. It answers pings and keeps the windows by itself.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, BufReader};

use super::frame::{self, DATA_MAX, FLAG_FIN, HEAD, Head};
use super::headers::{Headers, Inflater};
use super::{Role, Writer};
use crate::StreamError;

const BUFFER: usize = 4 << 10;

/// What the peer did.
#[derive(Debug, PartialEq)]
pub enum Event {
    /// It opened a stream, which is to be accepted or refused.
    Open(u32, Headers),
    Data(u32, Bytes),
    /// Nothing more follows on a stream.
    End(u32),
    /// It gave up a stream.
    Reset(u32),
}

/// Reads frames.
pub struct Reader {
    input: BufReader<Box<dyn AsyncRead + Send + Unpin>>,
    inflater: Inflater,
    writer: Writer,
    role: Role,
    /// What was read of the frame that is being read, but for its data.
    partial: Vec<u8>,
    /// The data frame that is being read.
    current: Option<Current>,
    /// The last data that was given out; asking for more means that it was consumed.
    given: Option<(u32, usize)>,
    /// A stream that was opened and ended by the same frame.
    ended: Option<u32>,
    last_opened: u32,
}

struct Current {
    id: u32,
    left: usize,
    fin: bool,
}

impl Reader {
    pub(super) fn new(input: Box<dyn AsyncRead + Send + Unpin>, writer: Writer, role: Role) -> Self {
        Self {
            input: BufReader::with_capacity(BUFFER, input),
            inflater: Inflater::new(),
            writer,
            role,
            partial: Vec::new(),
            current: None,
            given: None,
            ended: None,
            last_opened: 0,
        }
    }

    /// The next event; `None` when the peer closed the connection or said goodbye. A caller may
    /// give up waiting and ask again.
    pub async fn next(&mut self) -> Result<Option<Event>, StreamError> {
        if let Some((id, length)) = self.given.take() {
            self.writer.consumed(id, length).await?;
        }
        if let Some(id) = self.ended.take() {
            return Ok(Some(Event::End(id)));
        }
        loop {
            if let Some(event) = self.data().await? {
                return Ok(Some(event));
            }
            if !self.fill(HEAD).await? {
                return Ok(None);
            }
            let mut head = [0; HEAD];
            head.copy_from_slice(&self.partial[..HEAD]);
            match Head::read(head)? {
                Head::Data { id, flags, length } => {
                    self.partial.clear();
                    self.current = Some(Current { id, left: length, fin: flags & FLAG_FIN != 0 });
                }
                Head::Control { kind: frame::GOAWAY, .. } => return Ok(None),
                Head::Control { kind, flags, length } => {
                    if !self.fill(HEAD + length).await? {
                        return Err(StreamError::Protocol("a SPDY frame that is cut off"));
                    }
                    let payload = std::mem::take(&mut self.partial);
                    if let Some(event) = self.control(kind, flags, &payload[HEAD..]).await? {
                        return Ok(Some(event));
                    }
                }
            }
        }
    }

    /// Reads until `length` bytes of the frame are there; false at the connection's end.
    async fn fill(&mut self, length: usize) -> Result<bool, StreamError> {
        while self.partial.len() < length {
            let missing = (length - self.partial.len()) as u64;
            match (&mut self.input).take(missing).read_buf(&mut self.partial).await {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// The next part of the current data frame.
    async fn data(&mut self) -> Result<Option<Event>, StreamError> {
        let Some(current) = &mut self.current else { return Ok(None) };
        let id = current.id;
        if current.left == 0 {
            let fin = current.fin;
            self.current = None;
            return Ok(fin.then_some(Event::End(id)));
        }
        let mut bytes = vec![0; current.left.min(DATA_MAX)];
        let length = self.input.read(&mut bytes).await?;
        if length == 0 {
            return Err(StreamError::Protocol("a SPDY frame that is cut off"));
        }
        current.left -= length;
        bytes.truncate(length);
        self.given = Some((id, length));
        Ok(Some(Event::Data(id, bytes.into())))
    }

    async fn control(&mut self, kind: u16, flags: u8, payload: &[u8]) -> Result<Option<Event>, StreamError> {
        match kind {
            frame::SYN_STREAM => return self.opened(flags, payload).map(Some),
            frame::SYN_REPLY | frame::HEADERS => {
                let id = frame::stream_id(payload, 0)?;
                // The stream of compressed headers must be read on, whatever they say.
                self.inflater.read(&payload[4..])?;
                return Ok((flags & FLAG_FIN != 0).then_some(Event::End(id)));
            }
            frame::RST_STREAM => {
                let id = frame::stream_id(payload, 0)?;
                self.writer.forget(id);
                return Ok(Some(Event::Reset(id)));
            }
            frame::PING => {
                let id = frame::number(payload, 0)?;
                if self.is_peers(id) {
                    self.writer.pong(id).await?;
                }
            }
            frame::SETTINGS => self.settings(payload)?,
            frame::WINDOW_UPDATE => {
                let id = frame::stream_id(payload, 0)?;
                let delta = frame::stream_id(payload, 4)?;
                self.writer.granted(|windows| windows.grant(id, delta));
            }
            _ => {}
        }
        Ok(None)
    }

    fn is_peers(&self, id: u32) -> bool {
        (id % 2 == 1) == (self.role == Role::Server)
    }

    fn opened(&mut self, flags: u8, payload: &[u8]) -> Result<Event, StreamError> {
        let id = frame::stream_id(payload, 0)?;
        if !self.is_peers(id) || id <= self.last_opened {
            return Err(StreamError::Protocol("a SPDY stream number that is not the peer's next"));
        }
        self.last_opened = id;
        let block =
            payload.get(10..).ok_or(StreamError::Protocol("a SPDY control frame that is too short"))?;
        let headers = self.inflater.read(block)?;
        self.ended = (flags & FLAG_FIN != 0).then_some(id);
        Ok(Event::Open(id, headers))
    }

    fn settings(&self, payload: &[u8]) -> Result<(), StreamError> {
        let count = frame::number(payload, 0)? as usize;
        for entry in payload[4..].chunks_exact(8).take(count) {
            // The first byte of the identifier holds flags.
            if frame::number(entry, 0)? & 0x00ff_ffff == frame::INITIAL_WINDOW_SIZE {
                let size = frame::stream_id(entry, 4)?;
                self.writer.granted(|windows| windows.begin_at(size));
            }
        }
        Ok(())
    }
}
