//! The client's side, over WebSocket: `v5.channel.k8s.io` for exec and attach, `SPDY/3.1+portforward.k8s.io` for
//! port-forward. The handshake is the caller's; here begins what follows it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use machinery::Status;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::channels::Channel;
use crate::spdy::{self, Event, Headers};
use crate::tunnel::Tunnel;
use crate::websocket::{self, ChannelReader, ChannelWriter, Encoding, Received};
use crate::{Duplex, Io, Reader, StreamError, Writer, exit};

/// The subprotocol of [`remote_command`].
pub const REMOTE_COMMAND_PROTOCOL: &str = "v5.channel.k8s.io";
/// The subprotocol of [`PortForward`].
pub const PORT_FORWARD_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";

const BUFFER: usize = 16 << 10;
/// The longest status or error text that is kept, in bytes.
const ERROR_MAX: usize = 64 << 10;
/// How many parts of data may wait for a local connection.
const QUEUE: usize = 8;

/// The user's ends of a remote command.
#[derive(Default)]
pub struct Terminal {
    pub stdin: Option<Reader>,
    pub stdout: Option<Writer>,
    pub stderr: Option<Writer>,
    /// Columns and rows, at the start and whenever they change.
    pub resize: Option<mpsc::Receiver<(u16, u16)>>,
}

/// Carries a remote command's streams until it has ended; the answer is the server's status: a success, or a failure
/// (reason `NonZeroExitCode` with the cause `ExitCode`).
pub async fn remote_command(io: impl Duplex + 'static, terminal: Terminal) -> Result<Status, StreamError> {
    let (mut reader, writer) = websocket::channels(Box::new(io), Role::Client, Encoding::Binary, 5).await;
    let Terminal { stdin, stdout, stderr, resize } = terminal;
    let sent = async {
        tokio::try_join!(send_stdin(stdin, &writer), send_sizes(resize, &writer))?;
        std::future::pending::<Result<(), StreamError>>().await
    };
    let status = tokio::select! {
        biased;
        status = receive(&mut reader, stdout, stderr) => status?,
        // What is sent never ends, unless it fails; then the other half knows better why.
        result = sent => {
            result?;
            return Err(StreamError::Disconnected);
        }
    };
    writer.close().await?;
    Ok(status)
}

/// The exit code that a status tells of.
pub fn exit_code(status: &Status) -> Option<i32> {
    if status.status == "Success" {
        return Some(0);
    }
    let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
    causes.iter().find(|cause| cause.reason == "ExitCode")?.message.parse().ok()
}

async fn send_stdin(stdin: Option<Reader>, writer: &ChannelWriter) -> Result<(), StreamError> {
    let Some(mut stdin) = stdin else { return Ok(()) };
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = stdin.read(&mut buffer).await?;
        if length == 0 {
            return writer.end(Channel::Stdin as u8).await;
        }
        writer.send(Channel::Stdin as u8, &buffer[..length]).await?;
    }
}

async fn send_sizes(
    resize: Option<mpsc::Receiver<(u16, u16)>>,
    writer: &ChannelWriter,
) -> Result<(), StreamError> {
    let Some(mut resize) = resize else { return Ok(()) };
    while let Some((columns, rows)) = resize.recv().await {
        writer.send(Channel::Resize as u8, &exit::resize(columns, rows)).await?;
    }
    Ok(())
}

async fn receive(
    reader: &mut ChannelReader,
    mut stdout: Option<Writer>,
    mut stderr: Option<Writer>,
) -> Result<Status, StreamError> {
    let mut error = Vec::new();
    while let Some(received) = reader.next().await? {
        let Received::Data(channel, bytes) = received else { continue };
        let into = match Channel::from_number(channel) {
            Some(Channel::Stdout) => stdout.as_mut(),
            Some(Channel::Stderr) => stderr.as_mut(),
            Some(Channel::Error) => {
                error.extend_from_slice(&bytes[..bytes.len().min(ERROR_MAX - error.len())]);
                None
            }
            _ => None,
        };
        if let Some(into) = into {
            into.write_all(&bytes).await?;
            into.flush().await?;
        }
    }
    if error.is_empty() {
        return Err(StreamError::Disconnected);
    }
    serde_json::from_slice(&error)
        .map_err(|_| StreamError::Remote(String::from_utf8_lossy(&error).into_owned()))
}

/// Where the data of each stream goes; `None` once the connection has ended.
type Routes = Arc<parking_lot::Mutex<Option<BTreeMap<u32, mpsc::Sender<Bytes>>>>>;

fn remove(routes: &Routes, id: u32) {
    if let Some(routes) = routes.lock().as_mut() {
        routes.remove(&id);
    }
}

/// A connection to a pod that carries any number of forwarded ones.
#[derive(Clone)]
pub struct PortForward {
    writer: spdy::Writer,
    routes: Routes,
    requests: Arc<AtomicU32>,
}

impl PortForward {
    /// Takes the connection after the handshake. The future drives it and ends with it.
    pub async fn over(
        io: impl Duplex + 'static,
    ) -> (Self, impl Future<Output = Result<(), StreamError>> + Send) {
        let tunnel: Io = Box::new(Tunnel::new(websocket::over(Box::new(io), Role::Client).await));
        let (reader, writer) = spdy::over(tunnel, spdy::Role::Client);
        let routes: Routes = Arc::new(parking_lot::Mutex::new(Some(BTreeMap::new())));
        let forward = Self { writer, routes: routes.clone(), requests: Arc::default() };
        (forward, drive(reader, routes))
    }

    /// Forwards one local connection to a port of the pod, until the pod has closed it or both sides are done.
    pub async fn forward(&self, port: u16, local: impl Duplex + 'static) -> Result<(), StreamError> {
        let request = self.requests.fetch_add(1, Ordering::Relaxed).to_string();
        let (error_id, errors) = self.open("error", port, &request).await?;
        let (data_id, data) = self.open("data", port, &request).await?;
        self.writer.end(error_id).await?;
        let (from, to) = tokio::io::split(Box::new(local) as Io);
        let received = async { tokio::join!(collect(errors), downward(data, to)) };
        let sent = async {
            if let Err(error) = upward(&self.writer, data_id, from).await {
                tracing::debug!(%error, port, "a forwarded connection was cut");
            }
            std::future::pending::<()>().await
        };
        let text = tokio::select! {
            (text, ()) = received => text,
            () = sent => String::new(),
        };
        if self.routes.lock().is_some() {
            remove(&self.routes, data_id);
            self.writer.cancel(data_id).await?;
        } else if text.is_empty() {
            return Err(StreamError::Disconnected);
        }
        if text.is_empty() { Ok(()) } else { Err(StreamError::Remote(text)) }
    }

    async fn open(
        &self,
        kind: &str,
        port: u16,
        request: &str,
    ) -> Result<(u32, mpsc::Receiver<Bytes>), StreamError> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let port = port.to_string();
        let headers = Headers::new(&[("streamtype", kind), ("port", &port), ("requestid", request)]);
        let register = |id| {
            if let Some(routes) = self.routes.lock().as_mut() {
                routes.insert(id, sender);
            }
        };
        let id = self.writer.open(&headers, register).await?;
        // Nobody would answer any more.
        if self.routes.lock().is_none() {
            return Err(StreamError::Disconnected);
        }
        Ok((id, receiver))
    }

    /// Ends the connection.
    pub async fn close(&self) -> Result<(), StreamError> {
        self.writer.shutdown().await
    }
}

/// Hands out what the server sends, until it closes the connection.
async fn drive(mut reader: spdy::Reader, routes: Routes) -> Result<(), StreamError> {
    let result = loop {
        match reader.next().await {
            Ok(Some(Event::Data(id, bytes))) => {
                let route = routes.lock().as_ref().and_then(|routes| routes.get(&id).cloned());
                if let Some(route) = route
                    && route.send(bytes).await.is_err()
                {
                    remove(&routes, id);
                }
            }
            Ok(Some(Event::End(id) | Event::Reset(id))) => remove(&routes, id),
            Ok(Some(Event::Open(..))) => {}
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    *routes.lock() = None;
    result
}

/// What the server says on an error stream.
async fn collect(mut errors: mpsc::Receiver<Bytes>) -> String {
    let mut text = Vec::new();
    while let Some(part) = errors.recv().await {
        text.extend_from_slice(&part[..part.len().min(ERROR_MAX - text.len())]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

async fn downward(mut data: mpsc::Receiver<Bytes>, mut to: WriteHalf<Io>) {
    while let Some(part) = data.recv().await {
        if to.write_all(&part).await.is_err() {
            return;
        }
    }
    if let Err(error) = to.shutdown().await {
        tracing::debug!(%error, "closing a local connection");
    }
}

async fn upward(writer: &spdy::Writer, id: u32, mut from: ReadHalf<Io>) -> Result<(), StreamError> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return writer.end(id).await;
        }
        writer.data(id, &buffer[..length]).await?;
    }
}
