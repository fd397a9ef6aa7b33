//! The nodes and what runs on them, kept up to date in place: nothing is copied for a decision.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use machinery::selector::LabelSelector;
use machinery::{Key, Object};
use parking_lot::Mutex;

use crate::tally::{Tallies, Tally};
use crate::topology::Topology;
use crate::{NodeInfo, PodInfo};

type Labels = BTreeMap<String, String>;

/// How many topology keys are remembered.
const TOPOLOGIES: usize = 16;

/// All nodes with their pods. Reading it is a pure matter: what is computed on the way is only remembered.
#[derive(Default)]
pub struct Snapshot {
    nodes: Vec<NodeInfo>,
    by_name: HashMap<Arc<str>, usize>,
    /// Nodes in the order in which they are looked at: zones take turns.
    order: OnceLock<Vec<usize>>,
    placed: HashMap<Key, Arc<PodInfo>>,
    /// Pods whose node is not known (yet).
    homeless: BTreeMap<Arc<str>, Vec<Arc<PodInfo>>>,
    /// Waiting pods for which room is being made, by node.
    nominated: BTreeMap<Arc<str>, Vec<Arc<PodInfo>>>,
    namespaces: BTreeMap<String, Arc<Object>>,
    /// On how many nodes an image is.
    images: BTreeMap<String, usize>,
    /// How many placed pods have terms about other pods.
    with_terms: usize,
    tallies: Mutex<Tallies>,
    topologies: Mutex<BTreeMap<String, Arc<Topology>>>,
}

impl Snapshot {
    /// All nodes; a node's `index` is its place here.
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    /// Indexes of the nodes in the order in which they are to be looked at.
    pub fn order(&self) -> &[usize] {
        self.order.get_or_init(|| in_turns(&self.nodes))
    }

    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.by_name.get(name).map(|index| &self.nodes[*index])
    }

    /// A node came or changed. Returns how it was.
    pub fn set_node(&mut self, mut node: NodeInfo) -> Option<NodeInfo> {
        for image in node.images.keys() {
            *self.images.entry(image.clone()).or_insert(0) += 1;
        }
        let Some(index) = self.by_name.get(&node.name).copied() else {
            self.add_node(node);
            return None;
        };
        let slot = &mut self.nodes[index];
        node.carry(slot);
        let labels_changed = node.labels() != slot.labels();
        let before = std::mem::replace(slot, node);
        self.forget_images(&before);
        if labels_changed {
            self.reorder();
        }
        Some(before)
    }

    fn add_node(&mut self, mut node: NodeInfo) {
        node.index = self.nodes.len();
        for pod in self.homeless.remove(&node.name).into_iter().flatten() {
            self.with_terms += usize::from(pod.terms.is_some());
            node.put(pod);
        }
        self.by_name.insert(node.name.clone(), node.index);
        self.nodes.push(node);
        self.reorder();
    }

    pub fn remove_node(&mut self, name: &str) {
        let Some(index) = self.by_name.remove(name) else { return };
        let node = self.nodes.swap_remove(index);
        if let Some(moved) = self.nodes.get_mut(index) {
            moved.index = index;
            self.by_name.insert(moved.name.clone(), index);
        }
        self.forget_images(&node);
        self.with_terms -= node.with_terms;
        if !node.pods.is_empty() {
            self.homeless.insert(node.name, node.pods);
        }
        self.reorder();
    }

    fn forget_images(&mut self, node: &NodeInfo) {
        for image in node.images.keys() {
            if let Some(count) = self.images.get_mut(image) {
                *count -= 1;
                if *count == 0 {
                    self.images.remove(image);
                }
            }
        }
    }

    /// What was computed from the nodes' places and labels no longer holds.
    fn reorder(&mut self) {
        self.order.take();
        *self.tallies.get_mut() = Tallies::default();
        self.topologies.get_mut().clear();
    }

    /// A pod is on its node, or about to be. Returns how it was.
    pub fn place(&mut self, pod: Arc<PodInfo>) -> Option<Arc<PodInfo>> {
        let before = self.remove_pod(&pod.key);
        let Some(name) = pod.node.clone() else { return before };
        match self.by_name.get(&name) {
            None => self.homeless.entry(name).or_default().push(pod.clone()),
            Some(index) => {
                self.with_terms += usize::from(pod.terms.is_some());
                self.tallies.get_mut().add(&pod, *index);
                self.nodes[*index].put(pod.clone());
            }
        }
        self.placed.insert(pod.key.clone(), pod);
        before
    }

    /// The placed pod of this key.
    pub fn placed(&self, key: &Key) -> Option<&Arc<PodInfo>> {
        self.placed.get(key)
    }

    /// A pod is gone or finished; returns it if it was counted.
    pub fn remove_pod(&mut self, key: &Key) -> Option<Arc<PodInfo>> {
        let pod = self.placed.remove(key)?;
        let name = pod.node.as_ref()?;
        if let Some(index) = self.by_name.get(name) {
            self.with_terms -= usize::from(pod.terms.is_some());
            self.tallies.get_mut().remove(&pod, *index);
            self.nodes[*index].take(key);
        } else if let Some(pods) = self.homeless.get_mut(name) {
            pods.retain(|other| other.key != *key);
            if pods.is_empty() {
                self.homeless.remove(name);
            }
        }
        Some(pod)
    }

    /// Room is being made for a waiting pod on a node (or no longer, with `None`).
    pub fn nominate(&mut self, pod: &Arc<PodInfo>, node: Option<&str>) {
        self.nominated.retain(|_, pods| {
            pods.retain(|other| other.key != pod.key);
            !pods.is_empty()
        });
        if let Some(node) = node {
            self.nominated.entry(Arc::from(node)).or_default().push(pod.clone());
        }
    }

    /// The waiting pods for which room is being made on a node.
    pub fn nominated(&self, node: &str) -> &[Arc<PodInfo>] {
        if self.nominated.is_empty() {
            return &[];
        }
        self.nominated.get(node).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether room is being made for this pod somewhere.
    pub fn is_nominated(&self, key: &Key) -> bool {
        self.nominated.values().flatten().any(|pod| pod.key == *key)
    }

    pub fn set_namespace(&mut self, namespace: &Arc<Object>) {
        self.namespaces.insert(namespace.meta().name.clone(), namespace.clone());
    }

    pub fn remove_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
    }

    pub fn namespace_labels(&self, name: &str) -> &Labels {
        static NONE: Labels = BTreeMap::new();
        self.namespaces.get(name).map_or(&NONE, |namespace| &namespace.meta().labels)
    }

    /// On how many nodes an image is.
    pub fn nodes_with_image(&self, image: &str) -> usize {
        self.images.get(image).copied().unwrap_or(0)
    }

    pub fn has_images(&self) -> bool {
        !self.images.is_empty()
    }

    /// Whether any pod on a node has terms about other pods.
    pub fn has_terms(&self) -> bool {
        self.with_terms > 0
    }

    /// How many pods of a namespace a selector selects, by node. Pods on their way out do not count.
    pub fn tally(&self, namespace: &str, selector: &LabelSelector) -> Arc<Tally> {
        self.tallies.lock().get(namespace, selector, &self.nodes)
    }

    /// The nodes' values of a label.
    pub fn topology(&self, key: &str) -> Arc<Topology> {
        let mut known = self.topologies.lock();
        if let Some(topology) = known.get(key) {
            return topology.clone();
        }
        if known.len() >= TOPOLOGIES {
            known.clear();
        }
        let topology = Arc::new(Topology::of(key, &self.nodes));
        known.insert(key.to_owned(), topology.clone());
        topology
    }
}

/// Zones take turns, so that the first nodes looked at are in different ones.
fn in_turns(nodes: &[NodeInfo]) -> Vec<usize> {
    let mut zones: BTreeMap<(String, String), Vec<usize>> = BTreeMap::new();
    for node in nodes {
        zones.entry(node.place()).or_default().push(node.index);
    }
    let longest = zones.values().map(Vec::len).max().unwrap_or(0);
    (0..longest).flat_map(|turn| zones.values().filter_map(move |zone| zone.get(turn))).copied().collect()
}
