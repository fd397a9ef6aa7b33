//! `NodeResourcesFit` (filter, and the least allocated node scores best) and `NodeResourcesBalancedAllocation`.

use crate::plugin::{Filter, SCORE_MAX, Score};
use crate::pod::Amounts;
use crate::{NodeInfo, PodInfo, Snapshot};

pub struct Fit;

impl Filter for Fit {
    fn filter(&self, pod: &PodInfo, node: &NodeInfo, _: &Snapshot) -> Result<(), String> {
        let of = |amounts: &Amounts, resource: &str| amounts.get(resource).copied().unwrap_or(0);
        if node.pods.len() as i64 + 1 > of(&node.allocatable, "pods") {
            return Err("Too many pods".to_owned());
        }
        for (resource, wanted) in pod.requests.iter().filter(|(_, wanted)| **wanted > 0) {
            if of(&node.requested, resource) + wanted > of(&node.allocatable, resource) {
                return Err(format!("Insufficient {resource}"));
            }
        }
        Ok(())
    }
}

/// How much of a node's CPU and memory would be taken, 0.0 to 1.0.
fn fractions(pod: &PodInfo, node: &NodeInfo) -> Vec<f64> {
    let of = |amounts: &Amounts, resource: &str| amounts.get(resource).copied().unwrap_or(0);
    let fraction = |resource: &&str| {
        let most = of(&node.allocatable, resource);
        let taken = of(&node.scored, resource) + of(&pod.scored, resource);
        (most > 0).then(|| (taken as f64 / most as f64).min(1.0))
    };
    ["cpu", "memory"].iter().filter_map(fraction).collect()
}

impl Score for Fit {
    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, pod: &PodInfo, nodes: &[&NodeInfo], _: &Snapshot) -> Vec<i64> {
        let free = |node: &&NodeInfo| {
            let fractions = fractions(pod, node);
            let mean = fractions.iter().sum::<f64>() / fractions.len().max(1) as f64;
            ((1.0 - mean) * SCORE_MAX as f64) as i64
        };
        nodes.iter().map(free).collect()
    }
}

pub struct Balanced;

impl Score for Balanced {
    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, pod: &PodInfo, nodes: &[&NodeInfo], _: &Snapshot) -> Vec<i64> {
        let balance = |node: &&NodeInfo| match fractions(pod, node).as_slice() {
            [cpu, memory] => ((1.0 - (cpu - memory).abs() / 2.0) * SCORE_MAX as f64) as i64,
            _ => SCORE_MAX,
        };
        nodes.iter().map(balance).collect()
    }
}
