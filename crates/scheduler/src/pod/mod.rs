//! What scheduling needs to know of a pod, taken out of it once.

pub mod requests;
pub mod terms;
pub mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{NodeAffinity, Toleration};
use machinery::{Key, Object, Status};

use crate::{Amounts, volumes};
use terms::{Spread, Terms};
use view::{PodView, SpecView};

/// The `schedulerName` that pods are scheduled for.
pub const NAME: &str = "default-scheduler";

/// `DefaultMilliCPURequest` and `DefaultMemoryRequest` upstream.
const SCORED_CPU: i64 = 100;
const SCORED_MEMORY: i64 = 200 << 20;

/// A port on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    pub protocol: Box<str>,
    /// `0.0.0.0` for all addresses.
    pub address: Box<str>,
    pub number: i32,
}

/// A pod in the eyes of the scheduler.
#[derive(Clone, Debug)]
pub struct PodInfo {
    pub key: Key,
    /// Shared with the cache; its metadata is read here.
    pub object: Arc<Object>,
    pub priority: i32,
    pub created: Option<Timestamp>,
    pub started: Option<Timestamp>,
    /// Where it runs, if anywhere.
    pub node: Option<Arc<str>>,
    pub requests: Amounts,
    /// What it asks of CPU and memory for scoring: pods that ask nothing count a little, as upstream.
    pub scored: [i64; 2],
    pub host_ports: Vec<HostPort>,
    pub terms: Option<Box<Terms>>,
    /// Names of its claims.
    pub claims: Vec<Box<str>>,
    /// It was preempted and is on its way out.
    pub preempted: bool,
    /// What only pods that wait for a node need.
    pub wish: Option<Box<Wish>>,
}

/// What a pod that waits for a node asks of it.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    pub node_selector: BTreeMap<String, String>,
    pub node_affinity: Option<NodeAffinity>,
    pub tolerations: Vec<Toleration>,
    pub spreads: Vec<Spread>,
    /// The default constraints hold instead of `spreads`.
    pub spreads_by_default: bool,
    pub images: Vec<String>,
    pub never_preempts: bool,
    pub nominated: Option<String>,
    /// It asks for devices by claims, which this scheduler does not allocate.
    pub claims_devices: bool,
    /// Claims with the name of the volume for generic ephemeral ones.
    pub volumes: Vec<volumes::Wanted>,
    /// What the claims need of the node; filled in when the pod is tried.
    pub needs: volumes::Needs,
    /// The message of its `PodScheduled` condition.
    pub told: Option<String>,
}

/// What a pod is to the scheduler.
#[derive(Debug)]
pub enum Seen {
    /// It is on a node, or was assigned one.
    Placed(PodInfo),
    /// It waits for this scheduler to find it a node.
    Waiting(PodInfo),
    /// It is finished, gated, deleted before it had a node, or another scheduler's.
    Other,
}

impl PodInfo {
    /// Reads a stored pod.
    pub fn read(object: &Arc<Object>) -> Result<Seen, Status> {
        let view: PodView = serde_json::from_slice(object.stored())
            .map_err(|error| Status::internal(format!("pod {}: {error}", object.key())))?;
        if matches!(view.status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            return Ok(Seen::Other);
        }
        let node = view.spec.node_name.as_deref().filter(|node| !node.is_empty()).map(Arc::from);
        if node.is_some() {
            return Ok(Seen::Placed(Self::new(object, &view, node)));
        }
        if object.meta().deletion_timestamp.is_some() || !is_ours(&view.spec) {
            return Ok(Seen::Other);
        }
        let mut info = Self::new(object, &view, None);
        info.wish = Some(Box::new(Wish::read(view, object)));
        Ok(Seen::Waiting(info))
    }

    fn new(object: &Arc<Object>, view: &PodView, node: Option<Arc<str>>) -> Self {
        let (meta, spec) = (object.meta(), &view.spec);
        let requests = requests::requests(view);
        let or = |amount: i64, least: i64| if amount == 0 { least } else { amount };
        let scored = [or(requests.cpu, SCORED_CPU), or(requests.memory, SCORED_MEMORY)];
        let terms = spec.affinity.as_ref().and_then(|a| Terms::read(a, &meta.namespace, &meta.labels));
        Self {
            key: object.key(),
            object: object.clone(),
            priority: spec.priority.unwrap_or(0),
            created: view.metadata.creation_timestamp,
            started: view.status.start_time,
            node,
            requests,
            scored,
            host_ports: host_ports(spec),
            terms,
            claims: volumes::claim_names(spec, &meta.name),
            preempted: is_preempted(object, view),
            wish: None,
        }
    }

    pub fn uid(&self) -> &str {
        &self.object.meta().uid
    }

    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.object.meta().labels
    }

    pub fn namespace(&self) -> &str {
        &self.key.namespace
    }

    pub fn is_deleting(&self) -> bool {
        self.object.meta().deletion_timestamp.is_some()
    }

    /// What it asks of a node; nothing more if it has one.
    pub fn wish(&self) -> &Wish {
        static NOTHING: std::sync::LazyLock<Wish> = std::sync::LazyLock::new(Wish::default);
        self.wish.as_deref().unwrap_or(&NOTHING)
    }

    /// The same pod on a node.
    pub fn on(&self, node: &Arc<str>) -> Self {
        Self { node: Some(node.clone()), wish: None, ..self.clone() }
    }

    /// Whether `other` is more important: by priority, then by age.
    pub fn yields_to(&self, other: &Self) -> bool {
        // One that has not started counts as starting now.
        let rank = |pod: &Self| (pod.priority, std::cmp::Reverse(pod.started.unwrap_or(Timestamp::MAX)));
        rank(other) > rank(self)
    }
}

impl Wish {
    fn read(view: PodView, object: &Object) -> Self {
        let labels = &object.meta().labels;
        let spec = view.spec;
        let volumes = volumes::wanted(&spec, object);
        let images = spec.init_containers.iter().chain(&spec.containers).flatten();
        let images = images.filter_map(|container| container.image.as_deref()).map(normal_image).collect();
        let spreads: Vec<Spread> = spec
            .topology_spread_constraints
            .iter()
            .flatten()
            .map(|spread| Spread::read(spread, labels))
            .collect();
        let condition = view.status.conditions.into_iter().flatten().find(|c| c.kind == "PodScheduled");
        Self {
            node_selector: spec.node_selector.unwrap_or_default(),
            node_affinity: spec.affinity.and_then(|affinity| affinity.node_affinity),
            tolerations: spec.tolerations.unwrap_or_default(),
            spreads_by_default: spreads.is_empty(),
            spreads,
            images,
            never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
            nominated: view.status.nominated_node_name.filter(|node| !node.is_empty()),
            claims_devices: spec.resource_claims.is_some_and(|claims| !claims.is_empty()),
            volumes,
            needs: volumes::Needs::default(),
            told: condition.and_then(|condition| condition.message),
        }
    }
}

/// Pods of other schedulers and gated ones are not scheduled.
fn is_ours(spec: &SpecView) -> bool {
    spec.scheduler_name.as_deref().unwrap_or(NAME) == NAME
        && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
}

fn is_preempted(object: &Object, view: &PodView) -> bool {
    object.meta().deletion_timestamp.is_some()
        && view.status.conditions.iter().flatten().any(|condition| {
            condition.kind == "DisruptionTarget"
                && condition.status == "True"
                && condition.reason.as_deref() == Some("PreemptionByScheduler")
        })
}

fn host_ports(spec: &SpecView) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|container| container.is_sidecar());
    let containers = spec.containers.iter().flatten().chain(sidecars);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let taken = ports.filter_map(|port| {
        let number = port.host_port.filter(|number| *number > 0)?;
        let address = port.host_ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or("0.0.0.0");
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        Some(HostPort { protocol: protocol.into(), address: address.into(), number })
    });
    taken.collect()
}

/// `nginx` is `docker.io/library/nginx:latest`, as nodes report it.
pub(crate) fn normal_image(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    let tag = if last.contains([':', '@']) { "" } else { ":latest" };
    let host = image.split_once('/').map(|(host, _)| host);
    match host {
        None => format!("docker.io/library/{image}{tag}"),
        Some(host) if host.contains(['.', ':']) || host == "localhost" => format!("{image}{tag}"),
        Some(_) => format!("docker.io/{image}{tag}"),
    }
}

#[cfg(test)]
mod tests;
