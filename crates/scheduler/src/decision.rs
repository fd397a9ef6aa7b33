//! The decision: filter nodes until there are enough that will do, score those, take the best.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::plugin::{Context, Plugin, Plugins, Reason};
use crate::plugins::{self, Filters};
use crate::preemption::{self, Budget, Preemption};
use crate::{Defaults, NodeInfo, PodInfo, Snapshot};

/// With fewer nodes than this all are looked at, and never fewer are scored (`minFeasibleNodesToFind` upstream).
const ENOUGH: usize = 100;
/// The least percentage of nodes that is scored in large clusters.
const LEAST_PERCENTAGE: usize = 5;

/// Where a pod goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Bind {
        node: Arc<str>,
    },
    /// Nowhere for now.
    Wait(Wait),
}

/// Why a pod has to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Counts the reasons over the nodes, in upstream's words.
    pub message: String,
    /// Who turned nodes down: what may help is a matter of these.
    pub plugins: Plugins,
    pub preemption: Preemption,
}

/// What one decision brings with it besides the pod and the cluster.
#[derive(Clone, Debug, Default)]
pub struct Round {
    /// Where in the order of nodes to start, so that all get their turn.
    pub start: usize,
    /// Picks among equally good nodes.
    pub tie: u64,
    /// Of the pod's possible victims.
    pub budgets: Vec<Budget>,
}

/// Why nodes were turned down.
#[derive(Default)]
pub struct Diagnosis {
    /// No node will do, and why.
    pub refusal: Option<String>,
    pub reasons: BTreeMap<Reason, usize>,
    pub plugins: Plugins,
    /// Nodes on which removing pods could help.
    pub resolvable: Vec<usize>,
}

/// Decides for one pod. Also returns where the next round is to start.
pub fn schedule(snapshot: &Snapshot, pod: &PodInfo, defaults: &Defaults, round: &Round) -> (Decision, usize) {
    if snapshot.nodes().is_empty() {
        let message = "no nodes available to schedule pods".to_owned();
        let mut plugins = Plugins::default();
        // Any node that comes may do.
        plugins.insert(Plugin::NodeName);
        return (Decision::Wait(Wait { message, plugins, preemption: Preemption::nothing() }), 0);
    }
    let context = Context { pod, snapshot, defaults };
    let mut diagnosis = Diagnosis::default();
    let mut filters = match Filters::of(context) {
        Ok(filters) => filters,
        Err(refusal) => {
            diagnosis.plugins.insert(refusal.plugin);
            diagnosis.refusal = Some(refusal.message);
            return (Decision::Wait(wait(context, None, diagnosis, round)), round.start);
        }
    };
    let (feasible, next) = feasible(context, &mut filters, &mut diagnosis, round.start);
    match best(context, &feasible, round.tie) {
        Some(node) => (Decision::Bind { node: node.name.clone() }, next),
        None => (Decision::Wait(wait(context, Some(&mut filters), diagnosis, round)), next),
    }
}

/// How many nodes that will do are enough.
fn enough(nodes: usize) -> usize {
    let percentage = 50_usize.saturating_sub(nodes / 125).max(LEAST_PERCENTAGE);
    if nodes < ENOUGH { nodes } else { (nodes * percentage / 100).max(ENOUGH) }
}

fn feasible<'a>(
    context: Context<'a>,
    filters: &mut Filters<'a>,
    diagnosis: &mut Diagnosis,
    start: usize,
) -> (Vec<&'a NodeInfo>, usize) {
    let snapshot = context.snapshot;
    if let Some(node) = context.pod.wish().nominated.as_deref().and_then(|name| snapshot.node(name))
        && passes(context, filters, node).is_ok()
    {
        return (vec![node], start);
    }
    if let Some(only) = filters.only.clone() {
        return (named(context, filters, diagnosis, &only), start);
    }
    let order = snapshot.order();
    let (mut found, enough) = (Vec::new(), enough(order.len()));
    let mut at = start % order.len();
    for _ in 0..order.len() {
        let node = &snapshot.nodes()[order[at]];
        at = (at + 1) % order.len();
        match passes(context, filters, node) {
            Ok(()) => found.push(node),
            Err(rejected) => diagnosis.add(node, rejected),
        }
        if found.len() >= enough {
            break;
        }
    }
    (found, at)
}

fn named<'a>(
    context: Context<'a>,
    filters: &mut Filters<'a>,
    diagnosis: &mut Diagnosis,
    only: &[&str],
) -> Vec<&'a NodeInfo> {
    let mut names: Vec<&str> = only.to_vec();
    names.sort_unstable();
    names.dedup();
    let nodes: Vec<&NodeInfo> = names.into_iter().filter_map(|name| context.snapshot.node(name)).collect();
    let others = context.snapshot.nodes().len() - nodes.len();
    if others > 0 {
        diagnosis.plugins.insert(Plugin::NodeAffinity);
        diagnosis.reasons.insert("node(s) didn't satisfy plugin(s) [NodeAffinity]".into(), others);
    }
    let mut found = Vec::new();
    for node in nodes {
        match passes(context, filters, node) {
            Ok(()) => found.push(node),
            Err(rejected) => diagnosis.add(node, rejected),
        }
    }
    found
}

type Rejected = (Plugin, crate::plugin::Rejection);

/// Filters a node, as it is and also as it will be when the pods that were promised room there are on it.
fn passes(context: Context<'_>, filters: &mut Filters<'_>, node: &NodeInfo) -> Result<(), Rejected> {
    let pod = context.pod;
    let promised: Vec<&Arc<PodInfo>> = context
        .snapshot
        .nominated(&node.name)
        .iter()
        .filter(|other| other.key != pod.key && other.priority >= pod.priority)
        .collect();
    if !promised.is_empty() {
        let mut fuller = node.clone();
        for other in &promised {
            fuller.put((*other).clone());
            filters.added(other, node);
        }
        let result = filters.filter(&fuller);
        promised.iter().for_each(|other| filters.removed(other, node));
        result?;
    }
    filters.filter(node)
}

impl Diagnosis {
    fn add(&mut self, node: &NodeInfo, (plugin, rejection): Rejected) {
        self.plugins.insert(plugin);
        if !rejection.unresolvable {
            self.resolvable.push(node.index);
        }
        for reason in rejection.reasons() {
            match self.reasons.get_mut(reason) {
                Some(count) => *count += 1,
                None => {
                    self.reasons.insert(reason.clone(), 1);
                }
            }
        }
    }

    /// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable. preemption: …`
    pub fn message(&self, nodes: usize) -> String {
        let mut message = format!("0/{nodes} nodes are available:");
        if let Some(refusal) = &self.refusal {
            message.push_str(&format!(" {refusal}."));
        } else if !self.reasons.is_empty() {
            let mut texts: Vec<String> =
                self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            texts.sort();
            message.push_str(&format!(" {}.", texts.join(", ")));
        }
        message
    }
}

fn wait(
    context: Context<'_>,
    filters: Option<&mut Filters<'_>>,
    diagnosis: Diagnosis,
    round: &Round,
) -> Wait {
    let preemption = preemption::plan(context, filters, &diagnosis, round);
    let mut message = diagnosis.message(context.snapshot.nodes().len());
    if let Preemption::Useless { message: why, .. } = &preemption {
        // The first half is what upstream's device plugin adds.
        message.push_str(&format!(" no new claims to deallocate, preemption: {why}"));
    }
    Wait { message, plugins: diagnosis.plugins, preemption }
}

fn best<'a>(context: Context<'a>, feasible: &[&'a NodeInfo], tie: u64) -> Option<&'a NodeInfo> {
    if feasible.len() <= 1 {
        return feasible.first().copied();
    }
    let mut totals = vec![0; feasible.len()];
    for (weight, plugin) in plugins::scores(context, feasible) {
        for (total, score) in totals.iter_mut().zip(plugin.score(feasible)) {
            *total += weight * score;
        }
    }
    let most = totals.iter().max()?;
    let best = || feasible.iter().zip(&totals).filter(|(_, total)| *total == most);
    let count = best().count() as u64;
    let index = usize::try_from(tie % count).unwrap_or(0);
    best().nth(index).map(|(node, _)| *node)
}

#[cfg(test)]
mod bench;
#[cfg(test)]
mod tests;
