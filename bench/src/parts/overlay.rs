//! Throughput and latency between pods of two nodes, by each backend, beside the link of the two nodes themselves:
//! a veth pair each on a common bridge, which is what every packet of the overlay goes through as well.
//!
//! Programs of this machine (iperf3, and the bench itself for round trips) run in the network namespaces of the pods.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use linux::net::namespace::within;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Machine, has_condition, target};
use crate::load::Durations;
use crate::parts::start::{pod, pods};
use crate::report::Report;
use crate::{Extent, Failure, processes};

const BACKENDS: [&str; 3] = ["vxlan", "host-gw", "udp"];
const NODES: [&str; 2] = ["node-1", "node-2"];
/// `up --nodes` numbers its nodes from here.
const NODE_ADDRESSES: [IpAddr; 2] =
    [IpAddr::V4(std::net::Ipv4Addr::new(10, 44, 0, 2)), IpAddr::V4(std::net::Ipv4Addr::new(10, 44, 0, 3))];
const IPERF: &str = "iperf3";
const IPERF_PORT: u16 = 5201;
const ECHO_PORT: u16 = 5202;
/// Bytes of a request, and of its answer.
const MESSAGE_BYTES: usize = 64;

/// A place on the network: a namespace and the address in it.
struct End {
    namespace: PathBuf,
    address: IpAddr,
}

/// What two ends see of each other.
struct Seen {
    gigabits: f64,
    trips: Durations,
}

pub async fn measure(machine: &Machine, extent: Extent, report: &mut Report) -> Result<(), Failure> {
    for backend in BACKENDS {
        let config = machine.directory()?;
        let file = config.path().join("config.yaml");
        std::fs::write(&file, format!("backend: {{Type: {backend}}}\n"))?;
        let file = file.to_str().ok_or("the temporary directory's name is not text")?;
        let cluster = machine.launch_with(&["--nodes", "2", "--config", file])?;
        let (plain, overlay) = (nodes(&cluster), ends(&cluster).await?);
        let measured = tokio::task::spawn_blocking(move || {
            Ok::<_, Failure>((best(&plain, extent)?, best(&overlay, extent)?))
        });
        let (plain, overlay) = measured.await??;
        add(report, backend, &plain, &overlay);
    }
    Ok(())
}

fn add(report: &mut Report, backend: &str, plain: &Seen, overlay: &Seen) {
    let share = overlay.gigabits / plain.gigabits * 100.0;
    let note = format!("{share:.0} % of the plain link's {:.2} Gbit/s beside it", plain.gigabits);
    report.add(&format!("{backend}, throughput between pods"), overlay.gigabits, "Gbit/s", note);
    for percent in [50, 99] {
        let (plain, overlay) = (plain.trips.percentile_ms(percent), overlay.trips.percentile_ms(percent));
        let note = format!("{:.2} times the plain link's {:.1} µs", overlay / plain, plain * 1e3);
        report.add(&format!("{backend}, round trip, p{percent}"), overlay * 1e3, "µs", note);
    }
}

/// The nodes' own ends of their link.
fn nodes(cluster: &Cluster) -> [End; 2] {
    [0, 1].map(|index| End {
        namespace: cluster.data().join("nodes/run").join(NODES[index]),
        address: NODE_ADDRESSES[index],
    })
}

/// A pod on each node.
async fn ends(cluster: &Cluster) -> Result<[End; 2], Failure> {
    cluster.api_ready().await?;
    for node in NODES {
        let is_ready = |node: &Value| has_condition(node, "Ready");
        cluster.until(&target("", "v1", "nodes", ""), &format!("metadata.name={node}"), is_ready).await?;
    }
    let accounts = target("", "v1", "serviceaccounts", "default");
    cluster.until(&accounts, "metadata.name=default", |_| true).await?;
    Ok([end(cluster, NODES[0]).await?, end(cluster, NODES[1]).await?])
}

async fn end(cluster: &Cluster, node: &str) -> Result<End, Failure> {
    let mut wanted = pod(node);
    wanted["spec"]["nodeName"] = json!(node);
    let client = cluster.client()?;
    client.target(pods()).create(&wanted).await.map_err(|status| status.to_string())?;
    let name = format!("metadata.name={node}");
    cluster.until(&pods(), &name, |pod| pod["status"]["phase"] == "Running").await?;
    let running = client.target(pods()).get(node).await.map_err(|status| status.to_string())?;
    let value = running.value();
    let address: IpAddr = value["status"]["podIP"].as_str().ok_or("the pod has no address")?.parse()?;
    let pid = processes::below(cluster.pid())?
        .into_iter()
        .find(|pid| has_address(*pid, address))
        .ok_or("no process has the pod's address")?;
    Ok(End { namespace: format!("/proc/{pid}/ns/net").into(), address })
}

/// Whether the network that a process sees has this address.
fn has_address(pid: u32, address: IpAddr) -> bool {
    let trie = std::fs::read_to_string(format!("/proc/{pid}/net/fib_trie")).unwrap_or_default();
    let mut lines = trie.lines().map(str::trim);
    let leaf = format!("|-- {address}");
    // The line behind an address says what it is to this machine.
    while lines.any(|line| line == leaf) {
        if lines.next().is_some_and(|line| line == "/32 host LOCAL") {
            return true;
        }
    }
    false
}

/// The best of a few turns: whatever else the machine does can only make a turn worse.
fn best(ends: &[End; 2], extent: Extent) -> Result<Seen, Failure> {
    let mut seen = Seen { gigabits: 0.0, trips: round_trips(ends, extent.pick(20_000, 3_000))? };
    for _ in 0..extent.pick(3, 2) {
        seen.gigabits = seen.gigabits.max(throughput(ends, extent.pick(4, 2))?);
        let trips = round_trips(ends, extent.pick(20_000, 3_000))?;
        if trips.median_ms() < seen.trips.median_ms() {
            seen.trips = trips;
        }
    }
    Ok(seen)
}

/// One TCP stream from the second end to the first, in Gbit/s.
fn throughput([to, from]: &[End; 2], seconds: u32) -> Result<f64, Failure> {
    let (port, address) = (IPERF_PORT.to_string(), to.address.to_string());
    let arguments = ["-s", "-1", "--forceflush", "-p", &port];
    let mut server = start(&to.namespace, Command::new(IPERF).args(arguments).stdout(Stdio::piped()))?;
    let output = server.stdout.take().ok_or("iperf3 has no output")?;
    let mut lines = BufReader::new(output).lines();
    if !lines.by_ref().map_while(Result::ok).any(|line| line.contains("listening")) {
        return Err(format!("iperf3 does not listen: {}", server.wait()?).into());
    }
    let seconds = seconds.to_string();
    let mut client = Command::new(IPERF);
    client.args(["-c", &address, "-p", &port, "-t", &seconds, "-J"]).stdout(Stdio::piped());
    let answer = start(&from.namespace, &mut client)?.wait_with_output()?;
    lines.for_each(drop);
    server.wait()?;
    let answer: Value = serde_json::from_slice(&answer.stdout)?;
    match answer["end"]["sum_received"]["bits_per_second"].as_f64() {
        Some(rate) => Ok(rate / 1e9),
        None => Err(format!("iperf3 to {address}: {}", answer["error"]).into()),
    }
}

fn start(namespace: &Path, command: &mut Command) -> Result<Child, Failure> {
    let file = File::open(namespace).map_err(|error| format!("{}: {error}", namespace.display()))?;
    Ok(within(file, || command.stdin(Stdio::null()).spawn())??)
}

/// Small requests and answers over one connection of TCP.
fn round_trips([to, from]: &[End; 2], count: usize) -> Result<Durations, Failure> {
    let at = SocketAddr::new(to.address, ECHO_PORT);
    let listener = within(File::open(&to.namespace)?, || TcpListener::bind(at))??;
    let server = std::thread::spawn(move || echo(&listener));
    let mut stream = within(File::open(&from.namespace)?, || TcpStream::connect(at))??;
    stream.set_nodelay(true)?;
    let (mut message, mut taken) = ([0; MESSAGE_BYTES], Vec::with_capacity(count));
    for _ in 0..count {
        let start = Instant::now();
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
        taken.push(start.elapsed());
    }
    drop(stream);
    server.join().map_err(|_| "the echo server panicked")??;
    Ok(Durations::new(warm(taken)))
}

/// Without the first tenth: the way is being learned.
fn warm(mut taken: Vec<Duration>) -> Vec<Duration> {
    taken.split_off(taken.len() / 10)
}

fn echo(listener: &TcpListener) -> std::io::Result<()> {
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let mut message = [0; MESSAGE_BYTES];
    loop {
        match stream.read(&mut message)? {
            0 => return Ok(()),
            length => stream.write_all(&message[..length])?,
        }
    }
}
