//! Everything that is not the cluster's: asked of other name servers, and remembered for a while.
//!
//! Questions are passed on and answers handed back as they are, whatever kinds of records they hold.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use env::Env;
use hickory_proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::Config;

const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
const ROUNDS: usize = 2;
const SERVERS_MAX: usize = 5;
const OUTSTANDING_MAX: usize = 512;
const CACHE_ENTRIES_MAX: usize = 4096;
/// Upstream's usual configuration remembers answers this long at most.
const CACHE_SECONDS_MAX: u32 = 30;
const UDP_ANSWER_MAX: usize = 4096;
/// What fits a packet everywhere (DNS flag day 2020).
const PAYLOAD: u16 = 1232;
/// The list of name servers is read again no more often than this.
const LIST_KEPT: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("no name server is configured for this")]
    NoServer,
    #[error("too many questions are waiting")]
    Busy,
    #[error("no name server answered")]
    Silent(#[source] Option<std::io::Error>),
}

/// The other name servers and what they said lately.
pub(crate) struct Upstream {
    env: Env,
    configured: Vec<SocketAddr>,
    resolv_conf: PathBuf,
    /// Never asked: they are this server.
    own: Vec<SocketAddr>,
    stub_domains: Vec<(Name, Vec<SocketAddr>)>,
    listed: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
    outstanding: Semaphore,
    cache: Mutex<Cache>,
}

type CacheKey = (Name, RecordType, bool);

#[derive(Default)]
struct Cache {
    answers: HashMap<CacheKey, Cached>,
    /// In order of arrival; the oldest goes first.
    order: VecDeque<CacheKey>,
}

#[derive(Clone)]
struct Cached {
    message: Message,
    since: Instant,
    until: Instant,
}

impl Upstream {
    /// `own` are the addresses of this server.
    pub fn new(env: Env, config: &Config, own: Vec<SocketAddr>) -> Self {
        let stubs = config.stub_domains.iter().filter_map(|(domain, servers)| {
            let mut name = Name::from_ascii(domain).ok()?.to_lowercase();
            name.set_fqdn(true);
            Some((name, servers.clone()))
        });
        let mut stub_domains: Vec<_> = stubs.collect();
        // The most specific domain decides.
        stub_domains.sort_by_key(|(name, _)| std::cmp::Reverse(name.num_labels()));
        Self {
            env,
            configured: config.upstreams.clone(),
            resolv_conf: config.resolv_conf.clone(),
            own,
            stub_domains,
            listed: Mutex::new(None),
            outstanding: Semaphore::new(OUTSTANDING_MAX),
            cache: Mutex::default(),
        }
    }

    /// An answer remembered; its times to live are what is left of them.
    pub fn remembered(&self, query: &Query, dnssec: bool) -> Option<Message> {
        self.cache.lock().get(query, dnssec, Instant::now())
    }

    /// Asks until somebody answers, and remembers that.
    pub async fn ask(&self, query: &Query, dnssec: bool) -> Result<Message, UpstreamError> {
        if let Some(message) = self.remembered(query, dnssec) {
            return Ok(message);
        }
        let _slot = self.outstanding.try_acquire().map_err(|_| UpstreamError::Busy)?;
        let servers = self.servers(&query.name).await;
        if servers.is_empty() {
            return Err(UpstreamError::NoServer);
        }
        let mut failure = None;
        for server in servers.iter().cycle().take(servers.len() * ROUNDS) {
            match tokio::time::timeout(ATTEMPT_TIMEOUT, self.exchange(*server, query, dnssec)).await {
                Ok(Ok(message)) if is_final(&message) => {
                    self.cache.lock().insert(query, dnssec, &message, Instant::now());
                    return Ok(message);
                }
                Ok(Ok(_)) | Err(_) => {}
                Ok(Err(error)) => failure = Some(error),
            }
        }
        Err(UpstreamError::Silent(failure))
    }

    async fn servers(&self, name: &Name) -> Vec<SocketAddr> {
        if let Some((_, servers)) = self.stub_domains.iter().find(|(domain, _)| domain.zone_of(name)) {
            return servers.clone();
        }
        if !self.configured.is_empty() {
            return self.configured.clone();
        }
        let now = Instant::now();
        if let Some((read, servers)) = &*self.listed.lock()
            && now - *read < LIST_KEPT
        {
            return servers.clone();
        }
        let text = tokio::fs::read_to_string(&self.resolv_conf).await.unwrap_or_default();
        let mut servers = parse_resolv_conf(&text);
        servers.retain(|server| !self.own.contains(server));
        *self.listed.lock() = Some((now, servers.clone()));
        servers
    }

    async fn exchange(&self, server: SocketAddr, query: &Query, dnssec: bool) -> std::io::Result<Message> {
        let request = self.request(query, dnssec)?;
        let message = ask_udp(server, &request, query).await?;
        if message.metadata.truncation { ask_tcp(server, &request, query).await } else { Ok(message) }
    }

    fn request(&self, query: &Query, dnssec: bool) -> std::io::Result<Vec<u8>> {
        let mut message = Message::query();
        message.metadata.id = self.env.random_u64() as u16;
        message.metadata.op_code = OpCode::Query;
        message.metadata.recursion_desired = true;
        message.add_query(query.clone());
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD).set_dnssec_ok(dnssec);
        message.set_edns(edns);
        message.to_vec().map_err(std::io::Error::other)
    }
}

/// Others may know better than a server that failed or refused.
fn is_final(message: &Message) -> bool {
    matches!(message.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain)
}

/// The name servers of a `resolv.conf`.
fn parse_resolv_conf(text: &str) -> Vec<SocketAddr> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addresses = lines.filter_map(|rest| {
        let address = rest.split_whitespace().next()?;
        // A zone after `%` names an interface, which a host's own resolver would look at.
        address.split('%').next()?.parse::<IpAddr>().ok()
    });
    addresses.map(|address| SocketAddr::new(address, 53)).take(SERVERS_MAX).collect()
}

async fn ask_udp(server: SocketAddr, request: &[u8], query: &Query) -> std::io::Result<Message> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // A socket, and so a port, of its own for each question makes forged answers hard.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(request).await?;
    let mut buffer = vec![0; UDP_ANSWER_MAX];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(message) = parse_answer(&buffer[..length], request, query) {
            return Ok(message);
        }
    }
}

async fn ask_tcp(server: SocketAddr, request: &[u8], query: &Query) -> std::io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let mut framed = (request.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(request);
    stream.write_all(&framed).await?;
    let mut buffer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut buffer).await?;
    let malformed = || std::io::Error::new(std::io::ErrorKind::InvalidData, "not an answer to the question");
    parse_answer(&buffer, request, query).ok_or_else(malformed)
}

fn parse_answer(bytes: &[u8], request: &[u8], query: &Query) -> Option<Message> {
    if bytes.get(..2) != request.get(..2) {
        return None;
    }
    let message = Message::from_vec(bytes).ok()?;
    let same = message
        .queries
        .first()
        .is_none_or(|asked| asked.name == query.name && asked.query_type == query.query_type);
    same.then_some(message)
}

impl Cache {
    fn get(&self, query: &Query, dnssec: bool, now: Instant) -> Option<Message> {
        let key = (query.name.to_lowercase(), query.query_type, dnssec);
        let cached = self.answers.get(&key).filter(|cached| cached.until > now)?;
        let age = u32::try_from((now - cached.since).as_secs()).unwrap_or(u32::MAX);
        let mut message = cached.message.clone();
        for record in
            message.answers.iter_mut().chain(&mut message.authorities).chain(&mut message.additionals)
        {
            record.ttl = record.ttl.saturating_sub(age);
        }
        Some(message)
    }

    fn insert(&mut self, query: &Query, dnssec: bool, message: &Message, since: Instant) {
        let Some(seconds) = lifetime_seconds(message).filter(|seconds| *seconds > 0) else { return };
        let key = (query.name.to_lowercase(), query.query_type, dnssec);
        let until = since + Duration::from_secs(u64::from(seconds));
        let cached = Cached { message: message.clone(), since, until };
        if self.answers.insert(key.clone(), cached).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > CACHE_ENTRIES_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.answers.remove(&oldest);
            }
        }
    }
}

/// How long an answer may be remembered: as its shortest record says, or for a denial as the zone says (RFC 2308).
fn lifetime_seconds(message: &Message) -> Option<u32> {
    let positive = message.answers.iter().map(|record| record.ttl).min();
    let negative = message.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(zone) => Some(record.ttl.min(zone.minimum)),
        _ => None,
    });
    positive.or(negative).map(|seconds| seconds.min(CACHE_SECONDS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read() {
        let text = "# nameserver 9.9.9.9\nsearch a b\nnameserver 10.0.0.2\n nameserver\tfe80::1%eth0 # c\nnameserver x\n";
        let servers: Vec<_> = parse_resolv_conf(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.2:53", "[fe80::1]:53"]);
    }

    #[test]
    fn answers_are_remembered_as_long_as_they_say_and_no_more_than_bounded() {
        let (mut cache, start) = (Cache::default(), Instant::now());
        let later = |seconds| start + Duration::from_secs(seconds);
        let question = |name: &str| Query::query(Name::from_ascii(name).unwrap(), RecordType::A);
        let mut message = Message::response(1, OpCode::Query);
        let data = RData::A(hickory_proto::rr::rdata::A::new(192, 0, 2, 1));
        message.add_answer(hickory_proto::rr::Record::from_rdata(Name::from_ascii("a.").unwrap(), 20, data));
        cache.insert(&question("a."), false, &message, start);
        assert_eq!(cache.get(&question("A."), false, later(15)).unwrap().answers[0].ttl, 5);
        assert!(cache.get(&question("a."), true, later(15)).is_none());
        assert!(cache.get(&question("a."), false, later(21)).is_none());
        for number in 0..CACHE_ENTRIES_MAX + 10 {
            cache.insert(&question(&format!("{number}.")), false, &message, start);
        }
        assert_eq!((cache.answers.len(), cache.order.len()), (CACHE_ENTRIES_MAX, CACHE_ENTRIES_MAX));
    }
}
