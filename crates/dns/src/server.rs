//! Packets in, packets out: UDP and TCP (RFC 1035, 7766), EDNS (RFC 6891).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use env::Env;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, RData, RecordType};
use parking_lot::RwLock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use crate::answer::{Settings, answer};
use crate::metrics::{Count, Metrics};
use crate::upstream::Upstream;
use crate::zone::Zone;

const UDP_MIN: u16 = 512;
const UDP_MAX: u16 = 4096;
const TCP_IDLE: Duration = Duration::from_secs(10);
const CONNECTIONS_MAX: usize = 256;
const WAITING_MAX: usize = 1024;
/// What we say we can take.
const PAYLOAD: u16 = 1232;

/// Everything that answering takes; shared by all sockets.
pub(crate) struct Shared {
    pub env: Env,
    pub settings: Settings,
    pub zone: RwLock<Zone>,
    /// Until the zone is complete a name that is not in it may still exist.
    pub loaded: AtomicBool,
    pub upstream: Upstream,
    pub metrics: Arc<Metrics>,
}

/// What comes of a packet.
enum Reply {
    Ready(Message),
    /// Others must be asked: the question and the answer so far.
    Wait(Query, Message),
    /// It is not worth an answer.
    Silence,
}

impl Shared {
    fn reply(&self, packet: &[u8]) -> (Reply, Option<Message>) {
        let request = match Message::from_vec(packet) {
            Ok(request) => request,
            Err(_) => return (malformed(packet), None),
        };
        if request.metadata.message_type != MessageType::Query {
            return (Reply::Silence, None);
        }
        let mut response = Message::response(request.metadata.id, request.metadata.op_code);
        response.metadata.recursion_desired = request.metadata.recursion_desired;
        response.metadata.recursion_available = true;
        response.queries = request.queries.clone();
        if request.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(PAYLOAD);
            response.set_edns(edns);
        }
        let refusal = match (&request.queries[..], request.metadata.op_code, &request.edns) {
            (_, op, _) if op != OpCode::Query => Some(ResponseCode::NotImp),
            ([_], _, Some(edns)) if edns.version() > 0 => Some(ResponseCode::BADVERS),
            ([query], ..) if query.query_class != DNSClass::IN => Some(ResponseCode::Refused),
            ([_], ..) => None,
            _ => Some(ResponseCode::FormErr),
        };
        let reply = match refusal {
            Some(code) => Reply::Ready(with_code(response, code)),
            None => self.resolve(request.queries[0].clone(), response),
        };
        (reply, Some(request))
    }

    fn resolve(&self, query: Query, mut response: Message) -> Reply {
        let found = answer(&self.zone.read(), &self.settings, &query.name, query.query_type);
        match found {
            Some(_) if !self.loaded.load(Ordering::Acquire) => {
                Reply::Ready(with_code(response, ResponseCode::ServFail))
            }
            Some(mut found) => {
                response.metadata.authoritative = true;
                response.metadata.response_code = found.code;
                self.rotate(&mut found.answers);
                response.answers = found.answers;
                response.authorities = found.authorities;
                response.additionals = found.additionals;
                match found.elsewhere {
                    Some(name) => Reply::Wait(Query::query(name, query.query_type), response),
                    None => Reply::Ready(response),
                }
            }
            None if matches!(query.query_type, RecordType::AXFR | RecordType::IXFR) => {
                Reply::Ready(with_code(response, ResponseCode::Refused))
            }
            None => Reply::Wait(query, response),
        }
    }

    /// Spreads clients that take the first address.
    fn rotate(&self, records: &mut [hickory_proto::rr::Record]) {
        let addresses = records.iter().all(|record| matches!(record.data, RData::A(_) | RData::AAAA(_)));
        if records.len() > 1 && addresses {
            let by = self.env.random_u64() as usize % records.len();
            records.rotate_left(by);
        }
    }

    /// Completes an answer with what others know.
    async fn complete(&self, query: Query, mut response: Message, dnssec: bool) -> Message {
        let remembered = self.upstream.remembered(&query, dnssec);
        self.metrics.count(if remembered.is_some() { Count::CacheHit } else { Count::CacheMiss });
        let found = match remembered {
            Some(found) => Ok(found),
            None => {
                self.metrics.count(Count::Forwarded);
                self.upstream.ask(&query, dnssec).await
            }
        };
        match found {
            Ok(found) => {
                response.metadata.response_code = found.metadata.response_code;
                response.answers.extend(found.answers);
                response.authorities = found.authorities;
                response.additionals.extend(found.additionals);
                response
            }
            Err(error) => {
                tracing::debug!(name = %query.name, error = &error as &dyn std::error::Error, "no answer");
                with_code(response, ResponseCode::ServFail)
            }
        }
    }

    fn count_response(&self, response: &Message) {
        self.metrics.count(Count::Response(u16::from(response.metadata.response_code)));
    }
}

fn with_code(mut response: Message, code: ResponseCode) -> Message {
    response.metadata.response_code = code;
    response
}

fn malformed(packet: &[u8]) -> Reply {
    let is_response = packet.get(2).is_none_or(|flags| flags & 0x80 != 0);
    match packet.first_chunk() {
        Some(id) if !is_response => {
            Reply::Ready(Message::error_msg(u16::from_be_bytes(*id), OpCode::Query, ResponseCode::FormErr))
        }
        _ => Reply::Silence,
    }
}

fn wants_dnssec(request: Option<&Message>) -> bool {
    request.and_then(|request| request.edns.as_ref()).is_some_and(|edns| edns.flags().dnssec_ok)
}

/// Encodes an answer in at most `max` bytes: records are left out from the end, and the client is told.
fn encode(mut response: Message, max: usize) -> Option<Vec<u8>> {
    loop {
        let bytes = response.to_vec().ok()?;
        if bytes.len() <= max {
            return Some(bytes);
        }
        // Additional records are a courtesy: leaving them out is no truncation.
        if response.additionals.pop().is_some() {
            continue;
        }
        response.metadata.truncation = true;
        if response.authorities.pop().is_some() {
            continue;
        }
        let over = response.answers.len().div_ceil(8);
        if over == 0 {
            return None;
        }
        response.answers.truncate(response.answers.len() - over);
    }
}

/// Answers packets until the task is dropped. What the cluster knows is answered at once, in order.
pub(crate) async fn serve_udp(shared: Arc<Shared>, socket: Arc<UdpSocket>) {
    let waiting = Arc::new(Semaphore::new(WAITING_MAX));
    let mut buffer = vec![0; usize::from(UDP_MAX)];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // The kernel reports that an earlier answer did not arrive; that is the client's business.
            Err(error) => {
                tracing::debug!(%error, "receiving DNS");
                tokio::task::yield_now().await;
                continue;
            }
        };
        shared.metrics.count(Count::Udp);
        let (reply, request) = shared.reply(&buffer[..length]);
        let max = usize::from(request.as_ref().map_or(UDP_MIN, Message::max_payload).clamp(UDP_MIN, UDP_MAX));
        match reply {
            Reply::Silence => {}
            Reply::Ready(response) => send(&shared, &socket, response, max, from).await,
            Reply::Wait(query, response) => {
                // Beyond the bound packets are dropped; clients ask again.
                let Ok(slot) = waiting.clone().try_acquire_owned() else { continue };
                let (shared, socket, dnssec) =
                    (shared.clone(), socket.clone(), wants_dnssec(request.as_ref()));
                tokio::spawn(async move {
                    let response = shared.complete(query, response, dnssec).await;
                    send(&shared, &socket, response, max, from).await;
                    drop(slot);
                });
            }
        }
    }
}

async fn send(shared: &Shared, socket: &UdpSocket, response: Message, max: usize, to: SocketAddr) {
    shared.count_response(&response);
    let Some(bytes) = encode(response, max) else { return };
    if let Err(error) = socket.send_to(&bytes, to).await {
        tracing::debug!(%error, %to, "sending DNS");
    }
}

/// Answers connections until the task is dropped.
pub(crate) async fn serve_tcp(shared: Arc<Shared>, listener: TcpListener) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // The semaphore is never closed.
        let Ok(slot) = connections.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, from)) => {
                let shared = shared.clone();
                tokio::spawn(async move {
                    if let Err(error) = serve_connection(&shared, stream).await {
                        tracing::debug!(%error, %from, "DNS connection");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting DNS connections");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_connection(shared: &Shared, mut stream: TcpStream) -> std::io::Result<()> {
    loop {
        let Ok(packet) = tokio::time::timeout(TCP_IDLE, read_packet(&mut stream)).await else {
            return Ok(());
        };
        let Some(packet) = packet? else { return Ok(()) };
        shared.metrics.count(Count::Tcp);
        let (reply, request) = shared.reply(&packet);
        let response = match reply {
            Reply::Silence => return Ok(()),
            Reply::Ready(response) => response,
            Reply::Wait(query, response) => {
                shared.complete(query, response, wants_dnssec(request.as_ref())).await
            }
        };
        shared.count_response(&response);
        let Some(bytes) = encode(response, usize::from(u16::MAX)) else { return Ok(()) };
        let mut framed = (bytes.len() as u16).to_be_bytes().to_vec();
        framed.extend(bytes);
        stream.write_all(&framed).await?;
    }
}

async fn read_packet(stream: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let mut packet = vec![0; usize::from(length)];
    stream.read_exact(&mut packet).await?;
    Ok(Some(packet))
}
