//! Counts of pods by selector and node, kept up to date while pods come and go, so that spreading the thousandth pod
//! of a workload costs what the first did.

use std::sync::Arc;

use machinery::selector::LabelSelector;

use crate::{NodeInfo, PodInfo};

/// How many selectors are remembered.
const REMEMBERED: usize = 32;

/// How many pods of a namespace a selector selects, by node.
#[derive(Clone)]
pub struct Tally {
    namespace: String,
    selector: LabelSelector,
    counts: Vec<u32>,
}

impl Tally {
    pub fn count(&self, node: usize) -> i64 {
        self.counts.get(node).copied().map_or(0, i64::from)
    }

    fn selects(&self, pod: &PodInfo) -> bool {
        pod.namespace() == self.namespace && !pod.is_deleting() && self.selector.matches(pod.labels())
    }
}

/// The remembered tallies, the last used at the end.
#[derive(Default)]
pub struct Tallies {
    known: Vec<Arc<Tally>>,
}

impl Tallies {
    pub fn get(&mut self, namespace: &str, selector: &LabelSelector, nodes: &[NodeInfo]) -> Arc<Tally> {
        let is_it = |tally: &Arc<Tally>| tally.namespace == namespace && tally.selector == *selector;
        let tally = match self.known.iter().position(is_it) {
            Some(at) => self.known.remove(at),
            None => Arc::new(tally(namespace, selector, nodes)),
        };
        if self.known.len() >= REMEMBERED {
            self.known.remove(0);
        }
        self.known.push(tally.clone());
        tally
    }

    pub fn add(&mut self, pod: &PodInfo, node: usize) {
        self.change(pod, node, |count| *count += 1);
    }

    pub fn remove(&mut self, pod: &PodInfo, node: usize) {
        self.change(pod, node, |count| *count = count.saturating_sub(1));
    }

    fn change(&mut self, pod: &PodInfo, node: usize, change: impl Fn(&mut u32)) {
        for tally in &mut self.known {
            if tally.selects(pod)
                && let Some(count) = Arc::make_mut(tally).counts.get_mut(node)
            {
                change(count);
            }
        }
    }
}

fn tally(namespace: &str, selector: &LabelSelector, nodes: &[NodeInfo]) -> Tally {
    let mut tally = Tally { namespace: namespace.to_owned(), selector: selector.clone(), counts: Vec::new() };
    let count = |node: &NodeInfo| node.pods.iter().filter(|pod| tally.selects(pod)).count();
    let counts = nodes.iter().map(|node| u32::try_from(count(node)).unwrap_or(u32::MAX)).collect();
    tally.counts = counts;
    tally
}
