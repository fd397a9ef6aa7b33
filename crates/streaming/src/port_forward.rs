//! port-forward, the server's side: a stream for the data and one for errors per forwarded connection.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::spdy::{self, Event, Headers};
use crate::tunnel::Tunnel;
use crate::websocket::{self, ChannelWriter, Encoding, Received};
use crate::{Connection, Io, Protocol, StreamError};

/// Connects to a port of the pod. The error is the text that the client is shown, such as
/// `error forwarding port 80 to pod …, uid …: connection refused`.
pub type Connect = Arc<dyn Fn(u16) -> BoxFuture<'static, Result<Io, String>> + Send + Sync>;

/// The most streams of one connection at a time.
const STREAMS_MAX: usize = 1024;
/// The most ports of one WebSocket connection.
const PORTS_MAX: usize = 64;
/// How many parts of data may wait for the pod before the connection is read no further.
const QUEUE: usize = 8;
const BUFFER: usize = 16 << 10;

impl Connection {
    /// Forwards connections until the client closes this one. `ports` are those of the request's query; only
    /// WebSocket without tunnel needs them.
    pub async fn port_forward(self, ports: &[u16], connect: Connect) -> Result<(), StreamError> {
        let io: Io = match self.protocol {
            Protocol::WebSocket { encoding, .. } => {
                return over_websocket(self.io, encoding, ports, connect).await;
            }
            Protocol::Messages { .. } => {
                return Err(StreamError::Protocol("the agreed protocol carries no port-forward"));
            }
            Protocol::Spdy { .. } => self.io,
            Protocol::Tunnel => Box::new(Tunnel::new(websocket::over(self.io, Role::Server).await)),
        };
        let (reader, writer) = spdy::over(io, spdy::Role::Server);
        Streams { writer, connect, waiting: BTreeMap::new(), routes: BTreeMap::new(), tasks: JoinSet::new() }
            .run(reader)
            .await
    }
}

/// Where forwarded data goes back to.
#[derive(Clone)]
enum Back {
    Spdy { writer: spdy::Writer, data: u32, error: u32 },
    WebSocket { writer: Arc<ChannelWriter>, data: u8, error: u8 },
}

impl Back {
    async fn data(&self, bytes: &[u8]) -> Result<(), StreamError> {
        match self {
            Self::Spdy { writer, data, .. } => writer.data(*data, bytes).await,
            Self::WebSocket { writer, data, .. } => writer.send(*data, bytes).await,
        }
    }

    async fn error(&self, text: &str) -> Result<(), StreamError> {
        match self {
            Self::Spdy { writer, error, .. } => writer.data(*error, text.as_bytes()).await,
            Self::WebSocket { writer, error, .. } => writer.send(*error, text.as_bytes()).await,
        }
    }

    async fn end_data(&self) -> Result<(), StreamError> {
        match self {
            Self::Spdy { writer, data, .. } => writer.end(*data).await,
            Self::WebSocket { .. } => Ok(()),
        }
    }

    async fn end_error(&self) -> Result<(), StreamError> {
        match self {
            Self::Spdy { writer, error, .. } => writer.end(*error).await,
            Self::WebSocket { .. } => Ok(()),
        }
    }
}

/// What comes from the client for one forwarded connection.
struct Input {
    bytes: mpsc::Receiver<Bytes>,
    /// Resolves when the client gives up the connection.
    given_up: oneshot::Receiver<()>,
}

/// The other end of [`Input`]. Dropping `bytes` ends the client's direction.
struct Route {
    bytes: mpsc::Sender<Bytes>,
    given_up: oneshot::Sender<()>,
}

fn route() -> (Route, Input) {
    let (bytes, received) = mpsc::channel(QUEUE);
    let (give_up, given_up) = oneshot::channel();
    (Route { bytes, given_up: give_up }, Input { bytes: received, given_up })
}

/// One forwarded connection, from connecting to the end of both directions.
async fn forward(back: Back, port: u16, connect: Connect, input: Input) {
    let result = match connect(port).await {
        Ok(io) => copy(&back, io, input).await,
        Err(text) => back.error(&text).await,
    };
    let ended = async {
        back.end_data().await?;
        back.end_error().await
    };
    if let Err(error) = result.and(ended.await) {
        tracing::debug!(%error, port, "a forwarded connection was cut");
    }
}

async fn copy(back: &Back, io: Io, input: Input) -> Result<(), StreamError> {
    let (from, to) = tokio::io::split(io);
    let down = downward(back, from, input.given_up);
    match back {
        Back::Spdy { .. } => tokio::join!(upward(to, input.bytes), down).1,
        // A WebSocket's channels cannot be ended one by one: what the pod has closed is over as a whole.
        Back::WebSocket { .. } => tokio::select! {
            result = down => result,
            ((), result) = async { (upward(to, input.bytes).await, std::future::pending().await) } => result,
        },
    }
}

async fn upward(mut to: WriteHalf<Io>, mut bytes: mpsc::Receiver<Bytes>) {
    while let Some(part) = bytes.recv().await {
        if to.write_all(&part).await.is_err() {
            // Without a receiver, what the client still sends goes nowhere.
            return;
        }
    }
    if let Err(error) = to.shutdown().await {
        tracing::debug!(%error, "closing a forwarded connection");
    }
}

async fn downward(
    back: &Back,
    mut from: ReadHalf<Io>,
    given_up: oneshot::Receiver<()>,
) -> Result<(), StreamError> {
    let mut buffer = vec![0; BUFFER];
    // A route that is dropped without giving up has only ended the client's direction.
    let given_up = async {
        if given_up.await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::pin!(given_up);
    loop {
        let length = tokio::select! {
            () = &mut given_up => return Ok(()),
            read = from.read(&mut buffer) => read.unwrap_or(0),
        };
        if length == 0 {
            return back.end_data().await;
        }
        back.data(&buffer[..length]).await?;
    }
}

/// The streams of a SPDY connection.
struct Streams {
    writer: spdy::Writer,
    connect: Connect,
    /// Error streams whose data stream has not come yet, by request.
    waiting: BTreeMap<String, u32>,
    routes: BTreeMap<u32, Route>,
    tasks: JoinSet<()>,
}

impl Streams {
    async fn run(mut self, mut reader: spdy::Reader) -> Result<(), StreamError> {
        while let Some(event) = reader.next().await? {
            while self.tasks.try_join_next().is_some() {}
            match event {
                Event::Open(id, headers) => self.open(id, &headers).await?,
                Event::Data(id, bytes) => {
                    if let Some(route) = self.routes.get(&id)
                        && route.bytes.send(bytes).await.is_err()
                    {
                        self.routes.remove(&id);
                    }
                }
                Event::End(id) => {
                    self.routes.remove(&id);
                }
                Event::Reset(id) => {
                    self.waiting.retain(|_, error| *error != id);
                    if let Some(route) = self.routes.remove(&id) {
                        // A receiver that is gone has ended already.
                        let _ended = route.given_up.send(());
                    }
                }
            }
        }
        // Streams whose answers are still on their way end with the client's connection.
        Ok(())
    }

    async fn open(&mut self, id: u32, headers: &Headers) -> Result<(), StreamError> {
        let port = headers.get("port").parse::<u16>().ok().filter(|port| *port > 0);
        let full = self.tasks.len() + self.waiting.len() >= STREAMS_MAX;
        match (headers.get("streamtype"), port) {
            ("error", Some(_)) if !full => {
                self.waiting.insert(request_id(headers, id), id);
                self.writer.reply(id).await
            }
            ("data", Some(port)) if !full => {
                // Clients open the error stream first.
                let Some(error) = self.waiting.remove(&request_id(headers, id.wrapping_sub(2))) else {
                    return self.writer.reset(id, spdy::REFUSED_STREAM).await;
                };
                self.writer.reply(id).await?;
                let (route, input) = route();
                self.routes.insert(id, route);
                let back = Back::Spdy { writer: self.writer.clone(), data: id, error };
                self.tasks.spawn(forward(back, port, self.connect.clone(), input));
                Ok(())
            }
            _ => self.writer.reset(id, spdy::REFUSED_STREAM).await,
        }
    }
}

/// What a connection's two streams have in common; old clients send none but number them in a row.
fn request_id(headers: &Headers, error_stream: u32) -> String {
    match headers.get("requestid") {
        "" => format!("stream {error_stream}"),
        id => id.to_owned(),
    }
}

/// One connection per port of the query: channel 2n carries data, 2n+1 errors; both begin with the port's number.
async fn over_websocket(
    io: Io,
    encoding: Encoding,
    ports: &[u16],
    connect: Connect,
) -> Result<(), StreamError> {
    let ports = &ports[..ports.len().min(PORTS_MAX)];
    let (mut reader, writer) = websocket::channels(io, Role::Server, encoding, 4).await;
    let writer = Arc::new(writer);
    let mut routes: BTreeMap<u8, Route> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    for (data, port) in (0..).step_by(2).zip(ports) {
        writer.send(data, &port.to_le_bytes()).await?;
        writer.send(data + 1, &port.to_le_bytes()).await?;
        let (route, input) = route();
        routes.insert(data, route);
        let back = Back::WebSocket { writer: writer.clone(), data, error: data + 1 };
        tasks.spawn(forward(back, *port, connect.clone(), input));
    }
    let routed = async {
        while let Some(received) = reader.next().await? {
            if let Received::Data(channel, bytes) = received
                && let Some(route) = routes.get(&channel)
                && route.bytes.send(bytes).await.is_err()
            {
                routes.remove(&channel);
            }
        }
        Ok(())
    };
    let finished = async { while tasks.join_next().await.is_some() {} };
    tokio::select! {
        result = routed => result,
        () = finished => writer.close().await,
    }
}
