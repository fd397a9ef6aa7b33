//! The nodes and what runs on them, as one decision sees them.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use machinery::Key;

use crate::pod::{Amounts, HostPort, PodInfo, add, amount};

/// A node with its load.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    pub name: String,
    pub node: Arc<Node>,
    pub allocatable: Amounts,
    pub requested: Amounts,
    /// Requests with the least that a pod counts for in scores.
    pub scored: Amounts,
    pub pods: BTreeMap<Key, Arc<PodInfo>>,
}

impl NodeInfo {
    fn new(name: &str, node: Arc<Node>) -> Self {
        let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
        let allocatable = allocatable
            .into_iter()
            .flatten()
            .map(|(name, quantity)| (name.clone(), amount(name, quantity)))
            .collect();
        Self {
            name: name.to_owned(),
            node,
            allocatable,
            requested: Amounts::new(),
            scored: Amounts::new(),
            pods: BTreeMap::new(),
        }
    }

    pub fn labels(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.node.metadata.labels.as_ref().unwrap_or(&NONE)
    }

    pub fn host_ports(&self) -> impl Iterator<Item = &HostPort> {
        self.pods.values().flat_map(|pod| &pod.host_ports)
    }

    fn put(&mut self, pod: Arc<PodInfo>) {
        self.take(&pod.key);
        add(&mut self.requested, &pod.requests);
        add(&mut self.scored, &pod.scored);
        self.pods.insert(pod.key.clone(), pod);
    }

    fn take(&mut self, key: &Key) {
        if let Some(pod) = self.pods.remove(key) {
            subtract(&mut self.requested, &pod.requests);
            subtract(&mut self.scored, &pod.scored);
        }
    }
}

fn subtract(sum: &mut Amounts, less: &Amounts) {
    for (resource, amount) in less {
        if let Some(slot) = sum.get_mut(resource) {
            *slot -= amount;
        }
    }
}

/// All nodes, kept up to date in place.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    nodes: BTreeMap<String, NodeInfo>,
    /// Where each placed pod is counted; its node may not be known (yet).
    placed: BTreeMap<Key, Arc<PodInfo>>,
}

impl Snapshot {
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.values()
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.nodes.get(name)
    }

    /// A node came or changed.
    pub fn set_node(&mut self, name: &str, node: Arc<Node>) {
        let mut info = NodeInfo::new(name, node);
        for pod in self.placed.values().filter(|pod| pod.node.as_deref() == Some(name)) {
            info.put(pod.clone());
        }
        self.nodes.insert(name.to_owned(), info);
    }

    pub fn remove_node(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// A pod is on its node, or about to be.
    pub fn place(&mut self, pod: Arc<PodInfo>) {
        self.remove_pod(&pod.key);
        if let Some(node) = pod.node.as_ref().and_then(|node| self.nodes.get_mut(node)) {
            node.put(pod.clone());
        }
        self.placed.insert(pod.key.clone(), pod);
    }

    /// Whether the pod of this key and uid is counted.
    pub fn has(&self, key: &Key, uid: &str) -> bool {
        self.placed.get(key).is_some_and(|pod| pod.uid == uid)
    }

    /// A pod is gone or finished; returns whether it was counted.
    pub fn remove_pod(&mut self, key: &Key) -> bool {
        let Some(pod) = self.placed.remove(key) else { return false };
        if let Some(node) = pod.node.as_ref().and_then(|node| self.nodes.get_mut(node)) {
            node.take(key);
        }
        true
    }
}
