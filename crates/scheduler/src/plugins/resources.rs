//! `NodeResourcesFit`: the pod must fit beside the others; the least allocated node scores best.

use std::borrow::Cow;

use crate::plugin::{Context, Filter, Reason, Reasons, Rejection, SCORE_MAX, Score};
use crate::{Amounts, NodeInfo, PodInfo};

struct Fit<'a>(&'a Amounts);

pub fn filter<'a>(context: Context<'a>) -> Option<Box<dyn Filter + 'a>> {
    Some(Box::new(Fit(&context.pod.requests)))
}

impl Filter for Fit<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let wanted = self.0;
        let (free, used) = (&node.allocatable, &node.requested);
        let fits = |wanted: i64, free: i64, used: i64| wanted == 0 || wanted <= free - used;
        let fits_all = (node.pods.len() as i64) < node.allowed_pods
            && fits(wanted.cpu, free.cpu, used.cpu)
            && fits(wanted.memory, free.memory, used.memory)
            && fits(wanted.storage, free.storage, used.storage)
            && wanted.scalars().all(|(name, amount)| fits(amount, free.get(name), used.get(name)));
        if fits_all { Ok(()) } else { Err(self.explain(node)) }
    }
}

impl Fit<'_> {
    fn explain(&self, node: &NodeInfo) -> Rejection {
        let mut reasons: Vec<Reason> = Vec::new();
        let mut unresolvable = false;
        if node.pods.len() as i64 >= node.allowed_pods {
            reasons.push(Cow::Borrowed("Too many pods"));
        }
        let mut check = |name: &str, wanted: i64| {
            let free = node.allocatable.get(name);
            if wanted > 0 && wanted > free - node.requested.get(name) {
                reasons.push(insufficient(name));
                // More than the whole node has.
                unresolvable |= wanted > free;
            }
        };
        check("cpu", self.0.cpu);
        check("memory", self.0.memory);
        check("ephemeral-storage", self.0.storage);
        self.0.scalars().for_each(|(name, amount)| check(name, amount));
        Rejection { reasons: Reasons::Many(reasons), unresolvable }
    }
}

fn insufficient(name: &str) -> Reason {
    match name {
        "cpu" => Cow::Borrowed("Insufficient cpu"),
        "memory" => Cow::Borrowed("Insufficient memory"),
        "ephemeral-storage" => Cow::Borrowed("Insufficient ephemeral-storage"),
        other => Cow::Owned(format!("Insufficient {other}")),
    }
}

struct LeastAllocated<'a>(&'a PodInfo);

pub fn score<'a>(context: Context<'a>) -> Option<Box<dyn Score + 'a>> {
    Some(Box::new(LeastAllocated(context.pod)))
}

impl Score for LeastAllocated<'_> {
    fn score(&self, nodes: &[&NodeInfo]) -> Vec<i64> {
        let pod = self.0;
        let free = |taken: i64, most: i64| match most {
            0 => None,
            most if taken > most => Some(0),
            most => Some((most - taken) * SCORE_MAX / most),
        };
        let score = |node: &&NodeInfo| {
            let cpu = free(node.scored[0] + pod.scored[0], node.allocatable.cpu);
            let memory = free(node.scored[1] + pod.scored[1], node.allocatable.memory);
            let count = i64::from(cpu.is_some()) + i64::from(memory.is_some());
            (cpu.unwrap_or(0) + memory.unwrap_or(0)) / count.max(1)
        };
        nodes.iter().map(score).collect()
    }
}
