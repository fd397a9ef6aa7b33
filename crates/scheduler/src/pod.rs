//! What scheduling needs to know of a pod, taken out of it once.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use machinery::Key;
use machinery::quantity::Quantity;

/// Amounts by resource name; CPU in thousandths, everything else in units.
pub type Amounts = BTreeMap<String, i64>;

/// A port on the node: protocol, address, number.
pub type HostPort = (String, String, i32);

/// A pod in the eyes of the scheduler.
#[derive(Clone, Debug)]
pub struct PodInfo {
    pub key: Key,
    pub uid: String,
    pub priority: i32,
    pub created: Option<Timestamp>,
    /// Where it runs, if anywhere.
    pub node: Option<String>,
    pub requests: Amounts,
    /// What it asks of CPU and memory for scoring: pods that ask nothing count a little, as upstream.
    pub scored: Amounts,
    pub host_ports: Vec<HostPort>,
    pub spec: Arc<Pod>,
}

/// `DefaultMilliCPURequest` and `DefaultMemoryRequest` upstream.
const SCORED_CPU: i64 = 100;
const SCORED_MEMORY: i64 = 200 << 20;

impl PodInfo {
    pub fn new(key: Key, pod: Arc<Pod>) -> Self {
        let spec = pod.spec.as_ref();
        let requests = spec.map(requests).unwrap_or_default();
        let mut scored = requests.clone();
        for (resource, least) in [("cpu", SCORED_CPU), ("memory", SCORED_MEMORY)] {
            scored.entry(resource.to_owned()).or_insert(least);
        }
        Self {
            key,
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            priority: spec.and_then(|spec| spec.priority).unwrap_or(0),
            created: pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
            node: spec.and_then(|spec| spec.node_name.clone()).filter(|node| !node.is_empty()),
            requests,
            scored,
            host_ports: spec.map(host_ports).unwrap_or_default(),
            spec: pod,
        }
    }
}

/// An amount in the unit in which its resource is counted.
pub fn amount(resource: &str, quantity: &Text) -> i64 {
    let quantity: Quantity = quantity.0.parse().unwrap_or_default();
    if resource == "cpu" { quantity.milli_value() } else { quantity.value() }
}

/// What the pod asks for: the larger of its running containers (with sidecars) and of each step of initialization,
/// plus the overhead of its runtime class (`PodRequests` upstream).
fn requests(spec: &PodSpec) -> Amounts {
    let mut running = Amounts::new();
    for container in &spec.containers {
        add(&mut running, &of(container));
    }
    let (mut sidecars, mut initializing) = (Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut sidecars, &of(container));
            maximum(&mut initializing, &sidecars);
        } else {
            let mut step = sidecars.clone();
            add(&mut step, &of(container));
            maximum(&mut initializing, &step);
        }
    }
    add(&mut running, &sidecars);
    maximum(&mut running, &initializing);
    for (resource, quantity) in
        spec.resources.iter().flat_map(|resources| resources.requests.iter().flatten())
    {
        running.insert(resource.clone(), amount(resource, quantity));
    }
    let overhead = spec.overhead.iter().flatten().map(|(name, q)| (name.clone(), amount(name, q))).collect();
    add(&mut running, &overhead);
    running
}

fn of(container: &Container) -> Amounts {
    let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    requests.into_iter().flatten().map(|(name, quantity)| (name.clone(), amount(name, quantity))).collect()
}

pub fn add(sum: &mut Amounts, more: &Amounts) {
    for (resource, amount) in more {
        *sum.entry(resource.clone()).or_insert(0) += amount;
    }
}

fn maximum(most: &mut Amounts, other: &Amounts) {
    for (resource, amount) in other {
        let slot = most.entry(resource.clone()).or_insert(0);
        *slot = (*slot).max(*amount);
    }
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars =
        spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let taken = ports.filter_map(|port| {
        let number = port.host_port.filter(|number| *number > 0)?;
        let address =
            port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".to_owned());
        Some((port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), address, number))
    });
    taken.collect()
}
