//! `PodTopologySpread`: pods of one selector are spread over the values of a node label (KEP-895, KEP-3022, KEP-3094,
//! KEP-3243). Pods without constraints are spread over hosts and zones by the selectors of their owners.

use std::sync::Arc;

use crate::node::{HOSTNAME, ZONE};
use crate::plugin::{Context, Filter, Rejection, SCORE_MAX, Score};
use crate::plugins::taints;
use crate::pod::terms::Spread;
use crate::tally::Tally;
use crate::topology::Topology;
use crate::{NodeInfo, PodInfo, Snapshot};

/// Upstream's default constraints.
const DEFAULTS: [(&str, i64); 2] = [(HOSTNAME, 3), (ZONE, 5)];

/// A constraint with what it counts.
struct Constraint {
    topology: Arc<Topology>,
    /// `None` if it selects nothing.
    tally: Option<Arc<Tally>>,
    max_skew: i64,
    is_hostname: bool,
    honors_affinity: bool,
    honors_taints: bool,
}

impl Constraint {
    fn new(spread: &Spread, namespace: &str, snapshot: &Snapshot) -> Self {
        Self {
            topology: snapshot.topology(&spread.topology_key),
            tally: spread.selector.as_ref().map(|selector| snapshot.tally(namespace, selector)),
            max_skew: spread.max_skew,
            is_hostname: spread.topology_key == HOSTNAME,
            honors_affinity: spread.honors_affinity,
            honors_taints: spread.honors_taints,
        }
    }

    fn count(&self, node: usize) -> i64 {
        self.tally.as_ref().map_or(0, |tally| tally.count(node))
    }

    /// Whether the pods of a node count.
    fn includes(&self, pod: &PodInfo, node: &NodeInfo) -> bool {
        let wish = pod.wish();
        (!self.honors_affinity || wish.selects(node))
            && (!self.honors_taints || taints::tolerates_all(&node.taints, &wish.tolerations))
    }
}

/// The required constraints.
struct Required<'a> {
    pod: &'a PodInfo,
    all: Vec<Domains<'a>>,
}

struct Domains<'a> {
    spread: &'a Spread,
    constraint: Constraint,
    /// Matching pods by value; `None` for values that no eligible node has.
    counts: Vec<Option<i64>>,
    /// The smallest count.
    least: i64,
    /// 1 if the pod itself would count.
    own: i64,
}

pub fn filter<'a>(context: Context<'a>) -> Option<Box<dyn Filter + 'a>> {
    let pod = context.pod;
    let spreads: Vec<&Spread> = pod.wish().spreads.iter().filter(|spread| spread.required).collect();
    if spreads.is_empty() {
        return None;
    }
    let mut all: Vec<Domains> =
        spreads.into_iter().map(|spread| Domains::new(spread, pod, context.snapshot)).collect();
    for node in context.snapshot.nodes() {
        if all.iter().any(|domains| domains.constraint.topology.value(node.index).is_none()) {
            continue;
        }
        for domains in &mut all {
            domains.count(pod, node);
        }
    }
    all.iter_mut().for_each(Domains::find_least);
    Some(Box::new(Required { pod, all }))
}

impl<'a> Domains<'a> {
    fn new(spread: &'a Spread, pod: &PodInfo, snapshot: &Snapshot) -> Self {
        let constraint = Constraint::new(spread, pod.namespace(), snapshot);
        let own = spread.selector.as_ref().is_some_and(|selector| selector.matches(pod.labels()));
        let counts = vec![None; constraint.topology.len()];
        Self { spread, constraint, counts, least: 0, own: i64::from(own) }
    }

    fn count(&mut self, pod: &PodInfo, node: &NodeInfo) {
        if let Some(value) = self.constraint.topology.value(node.index)
            && self.constraint.includes(pod, node)
        {
            *self.counts[value].get_or_insert(0) += self.constraint.count(node.index);
        }
    }

    fn find_least(&mut self) {
        let domains = self.counts.iter().flatten().count() as i64;
        let enough = domains >= self.spread.min_domains.unwrap_or(1);
        self.least = if enough { self.counts.iter().flatten().copied().min().unwrap_or(0) } else { 0 };
    }

    fn change(&mut self, pod: &PodInfo, other: &PodInfo, node: &NodeInfo, by: i64) {
        let selected = self.spread.selector.as_ref().is_some_and(|s| s.matches(other.labels()));
        if let Some(value) = self.constraint.topology.value(node.index)
            && selected
            && self.constraint.includes(pod, node)
        {
            *self.counts[value].get_or_insert(0) += by;
            self.find_least();
        }
    }
}

impl Required<'_> {
    fn change(&mut self, other: &PodInfo, node: &NodeInfo, by: i64) {
        let has_all = self.all.iter().all(|domains| domains.constraint.topology.value(node.index).is_some());
        if has_all && other.namespace() == self.pod.namespace() && !other.is_deleting() {
            self.all.iter_mut().for_each(|domains| domains.change(self.pod, other, node, by));
        }
    }
}

impl Filter for Required<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        for domains in &self.all {
            let Some(value) = domains.constraint.topology.value(node.index) else {
                return Err(Rejection::by_node(
                    "node(s) didn't match pod topology spread constraints (missing required label)",
                ));
            };
            let count = domains.counts[value].unwrap_or(0);
            if count + domains.own - domains.least > domains.spread.max_skew {
                return Err(Rejection::by_pods("node(s) didn't match pod topology spread constraints"));
            }
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

/// The constraints that are only scored.
struct Preferred {
    all: Vec<Weighed>,
    /// Nodes must have all the labels; the default constraints do not ask for that.
    strict: bool,
}

struct Weighed {
    constraint: Constraint,
    /// Matching pods by value; empty for host names, where the node's own count is used.
    counts: Vec<i64>,
    weight: f64,
}

pub fn score<'a>(context: Context<'a>, feasible: &[&NodeInfo]) -> Option<Box<dyn Score + 'a>> {
    let wish = context.pod.wish();
    let constraints = if wish.spreads_by_default { defaults(context) } else { own(context) };
    if constraints.is_empty() {
        return None;
    }
    let strict = !wish.spreads_by_default;
    let all = constraints.into_iter();
    let all = all.filter_map(|constraint| Weighed::new(constraint, context, feasible)).collect();
    Some(Box::new(Preferred { all, strict }))
}

fn own(context: Context<'_>) -> Vec<Constraint> {
    let spreads = context.pod.wish().spreads.iter().filter(|spread| !spread.required);
    spreads.map(|spread| Constraint::new(spread, context.pod.namespace(), context.snapshot)).collect()
}

fn defaults(context: Context<'_>) -> Vec<Constraint> {
    let Some(selector) = &context.defaults.spread else { return Vec::new() };
    let tally = context.snapshot.tally(context.pod.namespace(), selector);
    let constraint = |(key, max_skew): (&str, i64)| Constraint {
        topology: context.snapshot.topology(key),
        tally: Some(tally.clone()),
        max_skew,
        is_hostname: key == HOSTNAME,
        honors_affinity: true,
        honors_taints: false,
    };
    DEFAULTS.into_iter().map(constraint).collect()
}

impl Weighed {
    /// `None` if no node in question has the label.
    fn new(constraint: Constraint, context: Context<'_>, feasible: &[&NodeInfo]) -> Option<Self> {
        if constraint.is_hostname {
            let weight = weight(feasible.len());
            return Some(Self { constraint, counts: Vec::new(), weight });
        }
        let mut counts: Vec<Option<i64>> = vec![None; constraint.topology.len()];
        for node in feasible {
            if let Some(value) = constraint.topology.value(node.index) {
                counts[value] = Some(0);
            }
        }
        let size = counts.iter().flatten().count();
        if size == 0 {
            return None;
        }
        for node in context.snapshot.nodes() {
            let Some(value) = constraint.topology.value(node.index) else { continue };
            let number = constraint.count(node.index);
            if let Some(count) = &mut counts[value]
                && number > 0
                && constraint.includes(context.pod, node)
            {
                *count += number;
            }
        }
        let counts = counts.into_iter().map(Option::unwrap_or_default).collect();
        Some(Self { constraint, counts, weight: weight(size) })
    }

    fn score(&self, node: usize) -> Option<f64> {
        let value = self.constraint.topology.value(node)?;
        let count =
            if self.constraint.is_hostname { self.constraint.count(node) } else { self.counts[value] };
        Some(count as f64 * self.weight + (self.constraint.max_skew - 1) as f64)
    }
}

/// The more values there are the more each pod on one of them counts.
fn weight(values: usize) -> f64 {
    ((values + 2) as f64).ln()
}

impl Score for Preferred {
    fn score(&self, nodes: &[&NodeInfo]) -> Vec<i64> {
        // Few pods are good. `None`: the node is passed over.
        let raw = |node: &&NodeInfo| {
            let scores: Vec<Option<f64>> = self.all.iter().map(|weighed| weighed.score(node.index)).collect();
            let passed_over = self.strict && scores.iter().any(Option::is_none);
            (!passed_over).then(|| scores.into_iter().flatten().sum::<f64>().round() as i64)
        };
        let raw: Vec<Option<i64>> = nodes.iter().map(raw).collect();
        let least = raw.iter().flatten().copied().min().unwrap_or(0);
        let most = raw.iter().flatten().copied().max().unwrap_or(0);
        let scaled = |count: i64| {
            if most == 0 { SCORE_MAX } else { SCORE_MAX * (most + least - count) / most }
        };
        raw.into_iter().map(|count| count.map_or(0, scaled)).collect()
    }
}

#[cfg(test)]
mod tests;
