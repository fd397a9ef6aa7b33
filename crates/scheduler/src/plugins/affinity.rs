//! `NodeAffinity`: node selectors and the affinity of pods to nodes.

use std::sync::Arc;

use k8s_openapi::api::core::v1::PreferredSchedulingTerm;

use machinery::selector::nodes;

use crate::NodeInfo;
use crate::plugin::{Context, Filter, Rejection, Score, normalize};
use crate::pod::Wish;
use crate::topology::Topology;

struct NodeAffinity<'a> {
    wish: &'a Wish,
    /// The labels that the pod's node selector names, and the number of the value that each is to have; `None`: no node
    /// has that value. Numbers are compared instead of texts, for there are thousands of nodes.
    labels: Vec<(Arc<Topology>, Option<usize>)>,
}

pub fn filter<'a>(context: Context<'a>) -> Option<Box<dyn Filter + 'a>> {
    let wish = context.pod.wish();
    if wish.node_selector.is_empty() && wish.required().is_none() {
        return None;
    }
    let labels = wish.node_selector.iter().map(|(key, value)| {
        let topology = context.snapshot.topology(key);
        let number = topology.number(value);
        (topology, number)
    });
    Some(Box::new(NodeAffinity { wish, labels: labels.collect() }))
}

/// The only nodes that come into question, if the pod says so by name (DaemonSets' pods do).
pub fn names<'a>(context: Context<'a>) -> Option<Vec<&'a str>> {
    nodes::names(context.pod.wish().required()?)
}

impl Filter for NodeAffinity<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let has = |(topology, wanted): &(Arc<Topology>, Option<usize>)| {
            wanted.is_some() && topology.value(node.index) == *wanted
        };
        if self.labels.iter().all(has) && self.wish.affine(node) {
            return Ok(());
        }
        Err(Rejection::by_node("node(s) didn't match Pod's node affinity/selector"))
    }
}

impl Wish {
    fn required(&self) -> Option<&k8s_openapi::api::core::v1::NodeSelector> {
        self.node_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref()
    }

    /// Whether the pod's node selector and required node affinity hold.
    pub fn selects(&self, node: &NodeInfo) -> bool {
        self.node_selector.iter().all(|(key, value)| node.labels().get(key) == Some(value))
            && self.affine(node)
    }

    /// Whether the required node affinity holds.
    fn affine(&self, node: &NodeInfo) -> bool {
        self.required().is_none_or(|required| nodes::selects(required, node.labels(), &node.name))
    }
}

struct Preferred<'a>(&'a [PreferredSchedulingTerm]);

pub fn score<'a>(context: Context<'a>) -> Option<Box<dyn Score + 'a>> {
    let affinity = context.pod.wish().node_affinity.as_ref()?;
    let terms = affinity.preferred_during_scheduling_ignored_during_execution.as_deref()?;
    (!terms.is_empty()).then(|| Box::new(Preferred(terms)) as Box<dyn Score>)
}

impl Score for Preferred<'_> {
    fn score(&self, nodes: &[&NodeInfo]) -> Vec<i64> {
        let weigh = |node: &&NodeInfo| {
            let holds =
                |term: &&PreferredSchedulingTerm| nodes::matches(&term.preference, node.labels(), &node.name);
            self.0.iter().filter(holds).map(|term| i64::from(term.weight)).sum()
        };
        normalize(nodes.iter().map(weigh).collect(), false)
    }
}
