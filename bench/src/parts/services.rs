//! Ten thousand Services of five endpoints each: how long the packet filter takes for all of them and for one change,
//! and what a connection through a Service costs beside them.
//!
//! The first application is that of a second proxy, in a table of its own, whose caches are full already: it plans,
//! encodes and commits what the program's own proxy did in the course of the creates.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::{Caches, Patch};
use env::Shutdown;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proxy::{Config, Proxy};
use rustix::net::sockopt::set_socket_linger;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::cluster::{Cluster, Machine, target};
use crate::load::Durations;
use crate::parts::stored::create;
use crate::report::Report;
use crate::{Extent, Failure, load, processes};

const NAMESPACE: &str = "services";
const CLIENTS: usize = 16;
const ENDPOINTS: usize = 5;
/// This node's own address among the pods', which the bench answers on.
const HERE: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 1);
/// Where the bench answers with its port's number; the Service that is measured leads to either.
const PORTS: [u16; 2] = [7001, 7002];
/// The address of the Service that is measured; the others have those behind it.
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 43, 64, 0);
const SERVICE_PORT: u16 = 80;
const TURNS: usize = 5;
const TABLE: &str = "bench-services";
/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

pub async fn measure(machine: &Machine, extent: Extent, report: &mut Report) -> Result<(), Failure> {
    let (count, shown) = extent.pick((10_000, "10,000"), (2_000, "2,000"));
    let cluster = machine.ready().await?;
    for port in PORTS {
        answer(SocketAddr::new(HERE.into(), port))?;
    }
    prepare(&cluster).await?;
    connected_to(PORTS[0]).await?;
    let before = costs(extent).await?;
    add_many(&cluster, count).await?;
    let changes = changes(&cluster, extent.pick(50, 10)).await?;
    let note = "from the PATCH of its EndpointSlice to the first connection that goes there".to_owned();
    report.add(&format!("one endpoint among {shown} Services, p50"), changes.median_ms(), "ms", note);
    report.add(&format!("one endpoint among {shown} Services, p99"), changes.percentile_ms(99), "ms", "");
    let after = costs(extent).await?;
    for ((name, one), (_, many)) in before.iter().zip(&after) {
        let note = format!("{:.2} times the {one:.1} µs with one; median, best of {TURNS}", many / one);
        report.add(&format!("{name} among {shown} Services"), *many, "µs", note);
    }
    let memory = processes::memory(cluster.pid()).ok_or("the program is gone")?;
    report.add(&format!("memory, {shown} Services"), memory.rss as f64 / 1e6, "MB", "RSS");
    let applied = applied(&cluster, extent.pick(5, 3)).await?;
    let note =
        format!("{ENDPOINTS} endpoints each; plan, encoding and transaction; median of {}", applied.len());
    report.add(&format!("{shown} Services applied"), applied.median_ms(), "ms", note);
    Ok(())
}

/// Answers every connection with the port's number, then every byte with itself.
fn answer(at: SocketAddr) -> Result<(), Failure> {
    let listener = TcpListener::bind(at)?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut byte = [0];
            // A client that goes away ends its turn, whatever it was about to do.
            let mut turn = || {
                stream.set_nodelay(true)?;
                stream.write_all(&at.port().to_be_bytes())?;
                while stream.read(&mut byte)? > 0 {
                    stream.write_all(&byte)?;
                }
                Ok::<(), std::io::Error>(())
            };
            if turn().is_err() {
                continue;
            }
        }
    });
    Ok(())
}

/// One connection to the Service that is measured, and which port it came to.
fn connect() -> std::io::Result<(TcpStream, u16)> {
    let at = SocketAddr::new(FIRST.into(), SERVICE_PORT);
    let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(1))?;
    stream.set_nodelay(true)?;
    // Closed by a reset: ports that linger would make it longer and longer to find a free one.
    set_socket_linger(&stream, Some(Duration::ZERO))?;
    let mut port = [0; 2];
    stream.read_exact(&mut port)?;
    Ok((stream, u16::from_be_bytes(port)))
}

/// Connects until a connection comes to that port; refusals until then are expected.
async fn connected_to(port: u16) -> Result<(), Failure> {
    let start = Instant::now();
    tokio::task::spawn_blocking(move || {
        while !connect().is_ok_and(|(_, reached)| reached == port) {
            if start.elapsed() > PATIENCE {
                return Err(Failure::from(format!("no connection comes to port {port}")));
            }
            std::thread::yield_now();
        }
        Ok(())
    })
    .await?
}

/// What a connection costs, and a round trip over one that is there: the best of a few turns, as whatever else the
/// machine does can only make one worse.
async fn costs(extent: Extent) -> Result<[(&'static str, f64); 2], Failure> {
    let (mut connection, mut trip) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..TURNS {
        let (connections, trips) = turn(extent.pick(3_000, 500)).await?;
        connection = connection.min(connections.median_ms() * 1e3);
        trip = trip.min(trips.median_ms() * 1e3);
    }
    Ok([("connection to a ClusterIP", connection), ("round trip through a ClusterIP", trip)])
}

async fn turn(times: usize) -> Result<(Durations, Durations), Failure> {
    let measured = tokio::task::spawn_blocking(move || {
        let mut connections = Vec::new();
        for _ in 0..times {
            let start = Instant::now();
            let (stream, _) = connect()?;
            connections.push(start.elapsed());
            drop(stream);
        }
        let (mut stream, mut trips, mut byte) = (connect()?.0, Vec::new(), [0]);
        for _ in 0..times * 3 {
            let start = Instant::now();
            stream.write_all(&byte)?;
            stream.read_exact(&mut byte)?;
            trips.push(start.elapsed());
        }
        Ok::<_, std::io::Error>((connections, trips))
    });
    let (connections, trips) = measured.await??;
    Ok((Durations::new(connections), Durations::new(trips)))
}

async fn prepare(cluster: &Cluster) -> Result<(), Failure> {
    let client = cluster.client()?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    let text = |status: machinery::Status| status.to_string();
    client.target(target("", "v1", "namespaces", "")).create(&namespace).await.map_err(text)?;
    client.target(target("", "v1", "services", NAMESPACE)).create(&service(0)).await.map_err(text)?;
    let slices = client.target(target("discovery.k8s.io", "v1", "endpointslices", NAMESPACE));
    slices.create(&slice(0, &[HERE], PORTS[0])).await.map_err(text)?;
    Ok(())
}

async fn add_many(cluster: &Cluster, count: usize) -> Result<(), Failure> {
    let work = |http, index: usize| async move {
        let (index, is_slice) = (index / 2 + 1, index % 2 == 1);
        let (path, body) = match is_slice {
            false => (format!("/api/v1/namespaces/{NAMESPACE}/services"), service(index)),
            true => (
                format!("/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"),
                slice(index, &pods(index), 8080),
            ),
        };
        let http: std::sync::Arc<client::Http> = http;
        create(&http, &path, Bytes::from(body.to_string())).await
    };
    let rate = load::drive(cluster.https(CLIENTS)?, (count - 1) * 2, work).await?;
    eprintln!("  {count} Services and their EndpointSlices: {rate:.0} creates/s");
    Ok(())
}

/// How long it takes until a change of one endpoint shows.
async fn changes(cluster: &Cluster, times: usize) -> Result<Durations, Failure> {
    let slices = cluster.client()?.target(target("discovery.k8s.io", "v1", "endpointslices", NAMESPACE));
    let mut taken = Vec::new();
    // The first one waits for what the creates left to do.
    for turn in 0..=times {
        let port = PORTS[(turn + 1) % PORTS.len()];
        let patch = Patch::Merge(json!({"ports": [{"name": "", "port": port, "protocol": "TCP"}]}));
        let start = Instant::now();
        slices.patch("service-0", patch).await.map_err(|status| status.to_string())?;
        connected_to(port).await?;
        taken.push(start.elapsed());
    }
    taken.remove(0);
    Ok(Durations::new(taken))
}

/// How long a proxy takes from full caches to a full table.
async fn applied(cluster: &Cluster, times: usize) -> Result<Durations, Failure> {
    let shutdown = Shutdown::new();
    let caches = Caches::new(cluster.client()?, shutdown.clone());
    caches.of::<Service>().synced().await;
    caches.of::<EndpointSlice>().synced().await;
    caches.of::<Pod>().synced().await;
    caches.of::<Node>().synced().await;
    let mut taken = Vec::new();
    for _ in 0..times {
        let stop = Shutdown::new();
        let proxy = Proxy::build(config()?, &caches)?;
        let (ready, is_ready) = oneshot::channel();
        let start = Instant::now();
        let running = tokio::spawn(proxy.run(ready, stop.clone()));
        tokio::time::timeout(PATIENCE, is_ready).await??;
        taken.push(start.elapsed());
        stop.cancel();
        running.await??;
        proxy::teardown(TABLE)?;
    }
    shutdown.cancel();
    Ok(Durations::new(taken))
}

fn config() -> Result<Config, Failure> {
    Ok(Config {
        table: TABLE.into(),
        node: "bench".into(),
        cluster_cidrs: vec!["10.42.0.0/16".parse()?],
        service_cidrs: vec!["10.43.0.0/16".parse()?],
    })
}

fn service(index: usize) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": format!("service-{index}"), "namespace": NAMESPACE},
        "spec": {
            "clusterIP": IpAddr::from(numbered(FIRST, index)),
            "ports": [{"port": SERVICE_PORT, "targetPort": 8080}],
        },
    })
}

fn slice(index: usize, addresses: &[Ipv4Addr], port: u16) -> Value {
    let name = format!("service-{index}");
    let endpoints: Vec<Value> = addresses
        .iter()
        .map(
            |address| json!({"addresses": [address], "conditions": {"ready": true}, "nodeName": "elsewhere"}),
        )
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "", "port": port, "protocol": "TCP"}],
    })
}

/// Addresses of other nodes' pods.
fn pods(index: usize) -> Vec<Ipv4Addr> {
    (0..ENDPOINTS).map(|number| numbered(Ipv4Addr::new(10, 42, 1, 0), index * ENDPOINTS + number)).collect()
}

fn numbered(first: Ipv4Addr, number: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(first) + u32::try_from(number).unwrap_or(u32::MAX >> 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_all_different_and_in_their_ranges() {
        assert_eq!(numbered(FIRST, 256), Ipv4Addr::new(10, 43, 65, 0));
        assert_eq!(pods(9_999).last(), Some(&Ipv4Addr::new(10, 42, 196, 79)));
        assert_eq!(pods(0).len(), ENDPOINTS);
        assert!(pods(1)[0] > pods(0)[ENDPOINTS - 1]);
    }
}
