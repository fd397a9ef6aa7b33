//! `InterPodAffinity`: pods that want to be near others, or far from them.
//!
//! A term counts pods by the value of a node label. Terms of pods that are there already hold for the new pod, too:
//! required anti-affinity both ways, and in scores the wishes of both sides.

use std::sync::Arc;

use crate::plugin::{Context, Filter, Rejection, SCORE_MAX, Score};
use crate::pod::terms::{Term, Terms};
use crate::topology::Topology;
use crate::{NodeInfo, PodInfo, Snapshot};

/// What the required affinity of a pod that is there counts in scores (`hardPodAffinityWeight` upstream).
const HARD_WEIGHT: i64 = 1;

/// Counts by the value of one label.
struct Counts {
    topology: Arc<Topology>,
    by_value: Vec<i64>,
}

impl Counts {
    fn new(key: &str, snapshot: &Snapshot) -> Self {
        let topology = snapshot.topology(key);
        let by_value = vec![0; topology.len()];
        Self { topology, by_value }
    }

    fn add(&mut self, node: usize, by: i64) {
        if let Some(value) = self.topology.value(node) {
            self.by_value[value] += by;
        }
    }

    /// 0 for nodes without the label.
    fn at(&self, node: usize) -> i64 {
        self.topology.value(node).map_or(0, |value| self.by_value[value])
    }
}

/// One sort of count per label key.
struct ByKey<'a> {
    snapshot: &'a Snapshot,
    all: Vec<(String, Counts)>,
}

impl<'a> ByKey<'a> {
    fn new(snapshot: &'a Snapshot) -> Self {
        Self { snapshot, all: Vec::new() }
    }

    fn add(&mut self, key: &str, node: usize, by: i64) {
        let at = self.all.iter().position(|(known, _)| known == key).unwrap_or_else(|| {
            self.all.push((key.to_owned(), Counts::new(key, self.snapshot)));
            self.all.len() - 1
        });
        self.all[at].1.add(node, by);
    }

    fn sum(&self, node: usize) -> i64 {
        self.all.iter().map(|(_, counts)| counts.at(node)).sum()
    }
}

struct Required<'a> {
    pod: &'a PodInfo,
    snapshot: &'a Snapshot,
    /// By term: pods that match all of the pod's affinity terms.
    affinity: Vec<(&'a Term, Counts)>,
    anti_affinity: Vec<(&'a Term, Counts)>,
    /// Pods that are there and do not want this one near.
    unwelcoming: ByKey<'a>,
}

fn terms(pod: &PodInfo) -> &Terms {
    static NONE: Terms =
        Terms { affinity: Vec::new(), anti_affinity: Vec::new(), preferred: Vec::new(), avoided: Vec::new() };
    pod.terms.as_deref().unwrap_or(&NONE)
}

/// Whether a term is about a pod.
fn is_about(term: &Term, pod: &PodInfo, snapshot: &Snapshot) -> bool {
    term.matches(pod.namespace(), snapshot.namespace_labels(pod.namespace()), pod.labels())
}

pub fn filter<'a>(context: Context<'a>) -> Option<Box<dyn Filter + 'a>> {
    let (pod, snapshot) = (context.pod, context.snapshot);
    let own = terms(pod);
    let looks_at_pods = !own.affinity.is_empty() || !own.anti_affinity.is_empty();
    if !looks_at_pods && !snapshot.has_terms() && pod.terms.is_none() {
        return None;
    }
    let counted = |terms: &'a [Term]| {
        terms.iter().map(|term| (term, Counts::new(&term.topology_key, snapshot))).collect::<Vec<_>>()
    };
    let mut required = Required {
        pod,
        snapshot,
        affinity: counted(&own.affinity),
        anti_affinity: counted(&own.anti_affinity),
        unwelcoming: ByKey::new(snapshot),
    };
    for node in snapshot.nodes() {
        if !looks_at_pods && node.with_terms == 0 {
            continue;
        }
        for other in &node.pods {
            required.change(other, node, 1);
        }
    }
    Some(Box::new(required))
}

impl Required<'_> {
    fn change(&mut self, other: &PodInfo, node: &NodeInfo, by: i64) {
        for term in &terms(other).anti_affinity {
            if is_about(term, self.pod, self.snapshot) {
                self.unwelcoming.add(&term.topology_key, node.index, by);
            }
        }
        let snapshot = self.snapshot;
        if !self.affinity.is_empty() && self.affinity.iter().all(|(term, _)| is_about(term, other, snapshot))
        {
            self.affinity.iter_mut().for_each(|(_, counts)| counts.add(node.index, by));
        }
        for (term, counts) in &mut self.anti_affinity {
            if is_about(term, other, snapshot) {
                counts.add(node.index, by);
            }
        }
    }

    fn near_wanted(&self, node: &NodeInfo) -> bool {
        let labelled = |(_, counts): &(&Term, Counts)| counts.topology.value(node.index).is_some();
        if !self.affinity.iter().all(labelled) {
            return false;
        }
        if self.affinity.iter().all(|(_, counts)| counts.at(node.index) > 0) {
            return true;
        }
        // The first of a group that wants to be together: nobody matches yet but the pod itself.
        let nobody = self.affinity.iter().all(|(_, counts)| counts.by_value.iter().all(|n| *n == 0));
        nobody && self.affinity.iter().all(|(term, _)| is_about(term, self.pod, self.snapshot))
    }
}

impl Filter for Required<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if !self.near_wanted(node) {
            return Err(Rejection::by_node("node(s) didn't match pod affinity rules"));
        }
        if self.anti_affinity.iter().any(|(_, counts)| counts.at(node.index) > 0) {
            return Err(Rejection::by_pods("node(s) didn't match pod anti-affinity rules"));
        }
        if self.unwelcoming.all.iter().any(|(_, counts)| counts.at(node.index) > 0) {
            return Err(Rejection::by_pods("node(s) didn't satisfy existing pods anti-affinity rules"));
        }
        Ok(())
    }

    fn added(&mut self, pod: &PodInfo, node: &NodeInfo) {
        self.change(pod, node, 1);
    }

    fn removed(&mut self, pod: &PodInfo, node: &NodeInfo) {
        self.change(pod, node, -1);
    }
}

struct Preferred<'a>(ByKey<'a>);

pub fn score<'a>(context: Context<'a>) -> Option<Box<dyn Score + 'a>> {
    let (pod, snapshot) = (context.pod, context.snapshot);
    let own = terms(pod);
    let looks_at_pods = !own.preferred.is_empty() || !own.avoided.is_empty();
    if !looks_at_pods && !snapshot.has_terms() {
        return None;
    }
    let mut weights = ByKey::new(snapshot);
    for node in snapshot.nodes() {
        if !looks_at_pods && node.with_terms == 0 {
            continue;
        }
        for other in &node.pods {
            weigh(&mut weights, own, other, node.index, 0);
            weigh_back(&mut weights, other, pod, node.index);
        }
    }
    if weights.all.is_empty() { None } else { Some(Box::new(Preferred(weights))) }
}

/// What `terms` say of a pod on a node.
fn weigh(weights: &mut ByKey<'_>, terms: &Terms, about: &PodInfo, node: usize, hard: i64) {
    let snapshot = weights.snapshot;
    let mut add = |all: &[Term], weight: &dyn Fn(&Term) -> i64| {
        for term in all {
            if is_about(term, about, snapshot) {
                weights.add(&term.topology_key, node, weight(term));
            }
        }
    };
    add(&terms.preferred, &|term| term.weight);
    add(&terms.avoided, &|term| -term.weight);
    if hard > 0 {
        add(&terms.affinity, &|_| hard);
    }
}

/// What a pod that is there thinks of the new one.
fn weigh_back(weights: &mut ByKey<'_>, there: &PodInfo, new: &PodInfo, node: usize) {
    if there.terms.is_some() {
        weigh(weights, terms(there), new, node, HARD_WEIGHT);
    }
}

impl Score for Preferred<'_> {
    fn score(&self, nodes: &[&NodeInfo]) -> Vec<i64> {
        let raw: Vec<i64> = nodes.iter().map(|node| self.0.sum(node.index)).collect();
        let least = raw.iter().copied().min().unwrap_or(0);
        let most = raw.iter().copied().max().unwrap_or(0);
        let scaled = |weight: i64| match most - least {
            0 => 0,
            range => SCORE_MAX * (weight - least) / range,
        };
        raw.into_iter().map(scaled).collect()
    }
}

/// Whether a pod must be near others.
pub fn wants(pod: &PodInfo) -> bool {
    !terms(pod).affinity.is_empty()
}

/// Whether a pod must be far from others.
pub fn avoids(pod: &PodInfo) -> bool {
    !terms(pod).anti_affinity.is_empty()
}

#[cfg(test)]
mod tests;
