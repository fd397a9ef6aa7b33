//! `NodeResourcesBalancedAllocation`: a node whose CPU and memory are taken in like shares scores best.

use crate::plugin::{Context, SCORE_MAX, Score};
use crate::{NodeInfo, PodInfo};

struct Balanced<'a>(&'a PodInfo);

/// Pods that ask for nothing balance nothing.
pub fn score<'a>(context: Context<'a>) -> Option<Box<dyn Score + 'a>> {
    let asks = context.pod.requests.cpu > 0 || context.pod.requests.memory > 0;
    asks.then(|| Box::new(Balanced(context.pod)) as Box<dyn Score>)
}

impl Score for Balanced<'_> {
    fn score(&self, nodes: &[&NodeInfo]) -> Vec<i64> {
        let wanted = &self.0.requests;
        let share = |taken: i64, most: i64| (most > 0).then(|| (taken as f64 / most as f64).clamp(0.0, 1.0));
        let balance = |node: &&NodeInfo| {
            let cpu = share(node.requested.cpu + wanted.cpu, node.allocatable.cpu);
            let memory = share(node.requested.memory + wanted.memory, node.allocatable.memory);
            // The standard deviation of two numbers is half their distance.
            let deviation = match (cpu, memory) {
                (Some(cpu), Some(memory)) => (cpu - memory).abs() / 2.0,
                _ => 0.0,
            };
            ((1.0 - deviation) * SCORE_MAX as f64) as i64
        };
        nodes.iter().map(balance).collect()
    }
}
