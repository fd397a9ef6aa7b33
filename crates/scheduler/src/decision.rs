//! The decision: filter all nodes, score those that will do, take the best.

use std::collections::BTreeMap;

use crate::plugin::{Filter, Score};
use crate::{NodeInfo, PodInfo, Snapshot};

/// Where a pod goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Bind {
        node: String,
    },
    /// Nowhere; the message counts the reasons over the nodes.
    Unschedulable {
        message: String,
    },
}

/// Decides for one pod. `tie` picks among equally good nodes.
pub fn schedule(
    snapshot: &Snapshot,
    pod: &PodInfo,
    filters: &[Box<dyn Filter>],
    scores: &[Box<dyn Score>],
    tie: u64,
) -> Decision {
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut feasible: Vec<&NodeInfo> = Vec::new();
    for node in snapshot.nodes() {
        match filters.iter().try_for_each(|filter| filter.filter(pod, node, snapshot)) {
            Ok(()) => feasible.push(node),
            Err(reason) => *reasons.entry(reason).or_default() += 1,
        }
    }
    match best(snapshot, pod, &feasible, scores, tie) {
        Some(node) => Decision::Bind { node },
        None => Decision::Unschedulable { message: message(snapshot.len(), &reasons) },
    }
}

fn best(
    snapshot: &Snapshot,
    pod: &PodInfo,
    feasible: &[&NodeInfo],
    scores: &[Box<dyn Score>],
    tie: u64,
) -> Option<String> {
    if let [only] = feasible {
        return Some(only.name.clone());
    }
    let mut totals = vec![0; feasible.len()];
    for plugin in scores {
        for (total, score) in totals.iter_mut().zip(plugin.score(pod, feasible, snapshot)) {
            *total += plugin.weight() * score;
        }
    }
    let most = totals.iter().max()?;
    let best: Vec<&&NodeInfo> =
        feasible.iter().zip(&totals).filter(|(_, t)| *t == most).map(|(n, _)| n).collect();
    let index = usize::try_from(tie % best.len() as u64).unwrap_or(0);
    Some(best[index].name.clone())
}

/// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`
fn message(nodes: usize, reasons: &BTreeMap<String, usize>) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    let mut texts: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    texts.sort();
    format!("0/{nodes} nodes are available: {}.", texts.join(", "))
}

#[cfg(test)]
mod tests;
