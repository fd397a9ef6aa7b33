//! Questions through real sockets.

#[path = "../../../proxy/tests/it/api.rs"]
mod api;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use client::Caches;
use dns::{Config, Dns, Metrics};
use env::{Env, Shutdown};
use hickory_proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::oneshot;

use api::Api;

struct Running {
    api: Api,
    at: SocketAddr,
    metrics: std::sync::Arc<Metrics>,
    shutdown: Shutdown,
}

async fn start(api: Api, upstream: Option<SocketAddr>) -> Running {
    let shutdown = Shutdown::new();
    let caches = Caches::new(api.client(), shutdown.clone());
    let config = Config {
        listen: vec![(Ipv4Addr::LOCALHOST, 0).into()],
        resolv_conf: "/nonexistent".into(),
        stub_domains: upstream.into_iter().map(|server| ("example.com".to_owned(), vec![server])).collect(),
        ..Config::default()
    };
    let server = Dns::build(config, &caches, Env::system()).await.unwrap();
    let (at, metrics) = (server.addresses()[0], server.metrics());
    let (ready, is_ready) = oneshot::channel();
    tokio::spawn(server.run(ready, shutdown.clone()));
    is_ready.await.unwrap();
    Running { api, at, metrics, shutdown }
}

fn cluster() -> Api {
    let api = Api::default();
    api.put("namespaces", json!({"metadata": {"name": "d"}}));
    put_service(&api, "web", json!({"clusterIP": "10.96.0.7", "ports": [{"port": 80}]}));
    put_service(&api, "db", json!({"clusterIP": "None"}));
    put_service(&api, "out", json!({"type": "ExternalName", "externalName": "www.example.com"}));
    api
}

fn put_service(api: &Api, name: &str, spec: Value) {
    api.put("services", json!({"metadata": {"name": name, "namespace": "d"}, "spec": spec}));
}

fn put_pods(api: &Api, count: u8) {
    let endpoints: Vec<Value> = (1..=count).map(|n| json!({"addresses": [format!("10.42.0.{n}")]})).collect();
    api.put(
        "endpointslices",
        json!({"metadata": {"name": "db-1", "namespace": "d",
        "labels": {"kubernetes.io/service-name": "db"}}, "addressType": "IPv4", "endpoints": endpoints}),
    );
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.id = 4711;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

async fn ask_udp(at: SocketAddr, request: &[u8]) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(request, at).await.unwrap();
    let mut buffer = vec![0; 65536];
    let received = tokio::time::timeout(Duration::from_secs(15), socket.recv(&mut buffer)).await;
    let length = received.expect("an answer").unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

async fn ask(at: SocketAddr, name: &str, kind: RecordType) -> Message {
    let answer = ask_udp(at, &question(name, kind).to_vec().unwrap()).await;
    assert_eq!(answer.metadata.id, 4711);
    answer
}

fn data(message: &Message) -> Vec<String> {
    let mut data: Vec<String> = message.answers.iter().map(|record| record.data.to_string()).collect();
    data.sort();
    data
}

#[tokio::test]
async fn the_cluster_is_answered_as_it_changes() {
    let dns = start(cluster(), None).await;
    let answer = ask(dns.at, "web.d.svc.cluster.local.", RecordType::A).await;
    assert_eq!(data(&answer), ["10.96.0.7"]);
    assert!(
        answer.metadata.authoritative
            && answer.metadata.recursion_available
            && answer.metadata.recursion_desired
    );
    let missing = ask(dns.at, "web.d.svc.cluster.local.svc.cluster.local.", RecordType::A).await;
    assert_eq!((missing.metadata.response_code, missing.authorities.len()), (ResponseCode::NXDomain, 1));
    put_pods(&dns.api, 2);
    let mut seen = Vec::new();
    for _ in 0..200 {
        seen = data(&ask(dns.at, "db.d.svc.cluster.local.", RecordType::A).await);
        if seen.len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(seen, ["10.42.0.1", "10.42.0.2"]);
    dns.api.remove("services", "web");
    for _ in 0..200 {
        let answer = ask(dns.at, "web.d.svc.cluster.local.", RecordType::A).await;
        if answer.metadata.response_code == ResponseCode::NXDomain {
            let mut text = String::new();
            dns.metrics.render(&mut text);
            assert!(text.contains("coredns_dns_responses_total{rcode=\"NXDOMAIN\"}"), "{text}");
            dns.shutdown.cancel();
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the name is still there");
}

#[tokio::test]
async fn long_answers_are_cut_for_udp_and_whole_for_tcp() {
    let api = cluster();
    put_pods(&api, 100);
    let dns = start(api, None).await;
    let name = "db.d.svc.cluster.local.";
    let cut = ask(dns.at, name, RecordType::A).await;
    assert!(cut.metadata.truncation && (1..100).contains(&cut.answers.len()), "{}", cut.answers.len());
    let mut large = question(name, RecordType::A);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    large.set_edns(edns);
    let whole = ask_udp(dns.at, &large.to_vec().unwrap()).await;
    let seen = (whole.metadata.truncation, whole.answers.len(), whole.edns.is_some());
    assert_eq!(seen, (false, 100, true));
    let mut stream = TcpStream::connect(dns.at).await.unwrap();
    let request = question(name, RecordType::A).to_vec().unwrap();
    for _ in 0..2 {
        stream.write_u16(request.len() as u16).await.unwrap();
        stream.write_all(&request).await.unwrap();
        let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(Message::from_vec(&answer).unwrap().answers.len(), 100);
    }
}

/// Answers A with an address, TXT only by TCP, and fails for `broken`.
async fn upstream() -> SocketAddr {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(at).await.unwrap();
    let answer = |request: &[u8], is_tcp: bool| {
        let request = Message::from_vec(request).unwrap();
        let query = request.queries[0].clone();
        let mut response = Message::response(request.metadata.id, OpCode::Query);
        response.add_query(query.clone());
        match query.query_type {
            _ if query.name.to_ascii().starts_with("broken") => {
                response.metadata.response_code = ResponseCode::ServFail
            }
            RecordType::TXT if !is_tcp => response.metadata.truncation = true,
            RecordType::TXT => {
                response.add_answer(Record::from_rdata(
                    query.name,
                    60,
                    RData::TXT(TXT::new(vec!["long".into()])),
                ));
            }
            _ => {
                response.add_answer(Record::from_rdata(query.name, 60, RData::A(A::new(192, 0, 2, 9))));
            }
        }
        response.to_vec().unwrap()
    };
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
            udp.send_to(&answer(&buffer[..length], false), from).await.unwrap();
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let mut request = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut request).await.unwrap();
            let response = answer(&request, true);
            stream.write_u16(response.len() as u16).await.unwrap();
            stream.write_all(&response).await.unwrap();
        }
    });
    at
}

#[tokio::test]
async fn the_rest_is_asked_of_others() {
    let dns = start(cluster(), Some(upstream().await)).await;
    let answer = ask(dns.at, "www.example.com.", RecordType::A).await;
    assert_eq!(data(&answer), ["192.0.2.9"]);
    assert!(!answer.metadata.authoritative);
    assert_eq!(data(&ask(dns.at, "WWW.example.com.", RecordType::A).await), ["192.0.2.9"]);
    assert_eq!(
        data(&ask(dns.at, "www.example.com.", RecordType::TXT).await),
        ["long"],
        "truncated answers are asked again by TCP"
    );
    let alias = ask(dns.at, "out.d.svc.cluster.local.", RecordType::A).await;
    assert_eq!(data(&alias), ["192.0.2.9", "www.example.com."]);
    let broken = ask(dns.at, "broken.example.com.", RecordType::A).await;
    assert_eq!(broken.metadata.response_code, ResponseCode::ServFail);
    let nobody = ask(dns.at, "example.org.", RecordType::A).await;
    assert_eq!(
        nobody.metadata.response_code,
        ResponseCode::ServFail,
        "without servers the answer comes at once"
    );
    let mut text = String::new();
    dns.metrics.render(&mut text);
    assert!(text.contains("coredns_cache_hits_total 2\n"), "{text}");
}

#[tokio::test]
async fn nonsense_is_answered_or_ignored() {
    let dns = start(cluster(), None).await;
    let short = ask_udp(dns.at, &[0x12, 0x67, 0, 0, 0, 1]).await;
    assert_eq!((short.metadata.id, short.metadata.response_code), (0x1267, ResponseCode::FormErr));
    let mut update = question("web.d.svc.cluster.local.", RecordType::A);
    update.metadata.op_code = OpCode::Notify;
    let refused = ask_udp(dns.at, &update.to_vec().unwrap()).await;
    assert_eq!(refused.metadata.response_code, ResponseCode::NotImp);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let response = Message::response(1, OpCode::Query).to_vec().unwrap();
    socket.send_to(&response, dns.at).await.unwrap();
    let silence = tokio::time::timeout(Duration::from_millis(100), socket.recv(&mut [0; 512])).await;
    assert!(silence.is_err(), "answers are not answered");
}
