//! A node with its load.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use machinery::{Key, Object, Status};
use serde::Deserialize;

use crate::pod::{HostPort, normal_image};
use crate::{Amounts, PodInfo};

pub const HOSTNAME: &str = "kubernetes.io/hostname";
pub const ZONE: &str = "topology.kubernetes.io/zone";
pub const REGION: &str = "topology.kubernetes.io/region";

/// A node in the eyes of the scheduler.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    pub name: Arc<str>,
    /// Where it stands in the snapshot.
    pub index: usize,
    object: Arc<Object>,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Amounts,
    pub allowed_pods: i64,
    /// Bytes by full image name.
    pub images: BTreeMap<String, i64>,
    pub requested: Amounts,
    /// CPU and memory with the least that a pod counts for in scores.
    pub scored: [i64; 2],
    pub pods: Vec<Arc<PodInfo>>,
    pub ports: Vec<HostPort>,
    /// How many of the pods have terms about other pods.
    pub with_terms: usize,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NodeView {
    spec: SpecView,
    status: StatusView,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SpecView {
    taints: Option<Vec<Taint>>,
    unschedulable: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StatusView {
    allocatable: Option<BTreeMap<String, Text>>,
    capacity: Option<BTreeMap<String, Text>>,
    images: Option<Vec<ImageView>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ImageView {
    names: Option<Vec<String>>,
    size_bytes: i64,
}

impl NodeInfo {
    /// Reads a stored node; it has no pods yet.
    pub fn read(object: &Arc<Object>) -> Result<Self, Status> {
        let view: NodeView = serde_json::from_slice(object.stored())
            .map_err(|error| Status::internal(format!("node {}: {error}", object.key())))?;
        let allocatable = view.status.allocatable.or(view.status.capacity).unwrap_or_default();
        let allocatable = Amounts::read(&allocatable);
        let images = view.status.images.into_iter().flatten().flat_map(|image| {
            let size = image.size_bytes;
            image.names.into_iter().flatten().map(move |name| (normal_image(&name), size))
        });
        Ok(Self {
            name: Arc::from(object.meta().name.as_str()),
            index: 0,
            object: object.clone(),
            taints: view.spec.taints.unwrap_or_default(),
            unschedulable: view.spec.unschedulable == Some(true),
            allowed_pods: allocatable.get("pods"),
            allocatable,
            images: images.collect(),
            requested: Amounts::default(),
            scored: [0; 2],
            pods: Vec::new(),
            ports: Vec::new(),
            with_terms: 0,
        })
    }

    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.object.meta().labels
    }

    /// Region and zone, by which nodes are taken in turn.
    pub fn place(&self) -> (String, String) {
        let label = |key: &str| self.labels().get(key).cloned().unwrap_or_default();
        (label(REGION), label(ZONE))
    }

    /// Counts a pod here.
    pub fn put(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.scored = [self.scored[0] + pod.scored[0], self.scored[1] + pod.scored[1]];
        self.with_terms += usize::from(pod.terms.is_some());
        self.ports.extend(pod.host_ports.iter().cloned());
        self.pods.push(pod);
    }

    /// No longer counts a pod here; returns it if it was.
    pub fn take(&mut self, key: &Key) -> Option<Arc<PodInfo>> {
        let at = self.pods.iter().position(|pod| pod.key == *key)?;
        let pod = self.pods.swap_remove(at);
        self.requested.subtract(&pod.requests);
        self.scored = [self.scored[0] - pod.scored[0], self.scored[1] - pod.scored[1]];
        self.with_terms -= usize::from(pod.terms.is_some());
        for port in &pod.host_ports {
            if let Some(at) = self.ports.iter().position(|used| used == port) {
                self.ports.swap_remove(at);
            }
        }
        Some(pod)
    }

    /// Takes over the load of the same node as it was before.
    pub fn carry(&mut self, before: &mut Self) {
        self.index = before.index;
        self.requested = std::mem::take(&mut before.requested);
        self.scored = before.scored;
        self.pods = std::mem::take(&mut before.pods);
        self.ports = std::mem::take(&mut before.ports);
        self.with_terms = before.with_terms;
    }

    /// Whether nothing that decides changed (a heartbeat changes only times).
    pub fn is_like(&self, other: &Self) -> bool {
        self.taints == other.taints
            && self.unschedulable == other.unschedulable
            && self.allocatable == other.allocatable
            && self.images == other.images
            && self.labels() == other.labels()
    }
}
