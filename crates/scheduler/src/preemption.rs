//! Preemption: which pods of lower priority have to leave so that a pod fits (`DefaultPreemption` upstream).
//!
//! For each node that could be made to fit, all pods of lower priority are thought away; those that may stay after
//! all, the most important first, stay. The node where that hurts least is taken. Nothing is deleted here.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use machinery::selector::LabelSelector;

use crate::decision::{Diagnosis, Round};
use crate::plugin::{Context, Reason};
use crate::plugins::Filters;
use crate::{NodeInfo, PodInfo};

/// How many nodes are tried at least (`minCandidateNodesAbsolute` upstream), or a tenth of them.
const CANDIDATES: usize = 100;

const NO_VICTIMS: &str = "No preemption victims found for incoming pod";
const NO_HELP: &str = "Preemption is not helpful for scheduling";

/// A disruption budget.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    pub namespace: String,
    pub selector: LabelSelector,
    /// How many more pods it lets go.
    pub allowed: i64,
    /// Pods whose eviction it has counted already.
    pub disrupted: Vec<String>,
}

/// What preemption can do.
#[derive(Clone, Debug)]
pub enum Preemption {
    /// These pods have to leave the node.
    Evict { node: Arc<str>, victims: Vec<Arc<PodInfo>> },
    /// Nothing; `clear` if a node that was nominated before is nominated no longer.
    Useless { message: String, clear: bool },
}

impl PartialEq for Preemption {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Evict { node: a, victims: x }, Self::Evict { node: b, victims: y }) => {
                a == b && x.iter().map(|pod| &pod.key).eq(y.iter().map(|pod| &pod.key))
            }
            (Self::Useless { message: a, .. }, Self::Useless { message: b, .. }) => a == b,
            _ => false,
        }
    }
}

impl Eq for Preemption {}

impl Preemption {
    /// Whether somebody has to leave.
    pub fn evicts(&self) -> bool {
        matches!(self, Self::Evict { .. })
    }

    /// There is nobody to preempt.
    pub fn nothing() -> Self {
        Self::Useless { message: String::new(), clear: true }
    }
}

/// A node with the pods that would have to leave it.
struct Candidate<'a> {
    node: &'a NodeInfo,
    /// The most important first.
    victims: Vec<Arc<PodInfo>>,
    /// How many of them budgets protect.
    violations: usize,
}

/// Finds the node where preemption hurts least. `filters` is `None` if no node was looked at.
pub fn plan(
    context: Context<'_>,
    filters: Option<&mut Filters<'_>>,
    diagnosis: &Diagnosis,
    round: &Round,
) -> Preemption {
    if let Some(why) = not_eligible(context, diagnosis) {
        return Preemption::Useless { message: why.to_owned(), clear: false };
    }
    let all = context.snapshot.nodes().len();
    let mut reasons: BTreeMap<Reason, usize> = BTreeMap::new();
    let unhelped = all - diagnosis.resolvable.len();
    if unhelped > 0 {
        reasons.insert(NO_HELP.into(), unhelped);
    }
    let mut candidates = Vec::new();
    if let Some(filters) = filters {
        let most = (all / 10).max(CANDIDATES);
        let possible = &diagnosis.resolvable;
        let offset = if possible.is_empty() { 0 } else { (round.tie % possible.len() as u64) as usize };
        for index in possible[offset..].iter().chain(&possible[..offset]) {
            let node = &context.snapshot.nodes()[*index];
            match try_node(context, filters, node, &round.budgets) {
                Ok(candidate) => candidates.push(candidate),
                Err(why) => why.into_iter().for_each(|reason| *reasons.entry(reason).or_insert(0) += 1),
            }
            // Upstream stops when enough are found of which one violates no budget.
            if candidates.len() >= most && candidates.iter().any(|candidate| candidate.violations == 0) {
                break;
            }
        }
    }
    match least_harmful(candidates) {
        Some(Candidate { node, victims, .. }) => Preemption::Evict { node: node.name.clone(), victims },
        None => {
            let message = Diagnosis { reasons, ..Diagnosis::default() }.message(all);
            Preemption::Useless { message, clear: true }
        }
    }
}

fn not_eligible(context: Context<'_>, diagnosis: &Diagnosis) -> Option<&'static str> {
    let (pod, snapshot) = (context.pod, context.snapshot);
    if pod.wish().never_preempts {
        return Some("not eligible due to preemptionPolicy=Never.");
    }
    let node = pod.wish().nominated.as_deref().and_then(|name| snapshot.node(name))?;
    let leaving = |other: &Arc<PodInfo>| other.priority < pod.priority && other.preempted;
    let possible = diagnosis.resolvable.contains(&node.index);
    (possible && node.pods.iter().any(leaving))
        .then_some("not eligible due to a terminating pod on the nominated node.")
}

fn try_node<'a>(
    context: Context<'_>,
    filters: &mut Filters<'_>,
    node: &'a NodeInfo,
    budgets: &[Budget],
) -> Result<Candidate<'a>, Vec<Reason>> {
    let pod = context.pod;
    let mut possible: Vec<Arc<PodInfo>> =
        node.pods.iter().filter(|other| other.priority < pod.priority).cloned().collect();
    if possible.is_empty() {
        return Err(vec![NO_VICTIMS.into()]);
    }
    let mut emptier = node.clone();
    for other in &possible {
        emptier.take(&other.key);
        filters.removed(other, node);
    }
    let promised = promise(context, filters, &mut emptier);
    possible.sort_by_key(|pod| Reverse(importance(pod)));
    let result = match filters.filter(&emptier) {
        Err((_, rejection)) => Err(rejection.reasons().to_vec()),
        Ok(()) => Ok(reprieve(filters, node, &mut emptier, &possible, budgets)),
    };
    // Leave the filters as they were.
    promised.iter().for_each(|other| filters.removed(other, node));
    let gone: Vec<&Arc<PodInfo>> = match &result {
        Ok((victims, _)) => victims.iter().collect(),
        Err(_) => possible.iter().collect(),
    };
    gone.into_iter().for_each(|other| filters.added(other, node));
    let (victims, violations) = result?;
    if victims.is_empty() {
        // It fits as it is; the next attempt will find that.
        return Err(vec![NO_VICTIMS.into()]);
    }
    Ok(Candidate { node, victims, violations })
}

/// Counts the pods that were promised room on the node and do not yield to this one.
fn promise(context: Context<'_>, filters: &mut Filters<'_>, node: &mut NodeInfo) -> Vec<Arc<PodInfo>> {
    let pod = context.pod;
    let promised: Vec<Arc<PodInfo>> = context
        .snapshot
        .nominated(&node.name)
        .iter()
        .filter(|other| other.key != pod.key && other.priority >= pod.priority)
        .cloned()
        .collect();
    for other in &promised {
        node.put(other.clone());
        filters.added(other, node);
    }
    promised
}

/// Lets those stay with whom the pod still fits: first those that budgets protect, the most important first.
fn reprieve(
    filters: &mut Filters<'_>,
    node: &NodeInfo,
    emptier: &mut NodeInfo,
    possible: &[Arc<PodInfo>],
    budgets: &[Budget],
) -> (Vec<Arc<PodInfo>>, usize) {
    let (protected, others) = split_by_budget(possible, budgets);
    let (mut victims, mut violations) = (Vec::new(), 0);
    for (is_protected, pod) in
        protected.iter().map(|pod| (true, pod)).chain(others.iter().map(|pod| (false, pod)))
    {
        emptier.put(pod.clone());
        filters.added(pod, node);
        if filters.filter(emptier).is_err() {
            emptier.take(&pod.key);
            filters.removed(pod, node);
            violations += usize::from(is_protected);
            victims.push(pod.clone());
        }
    }
    victims.sort_by_key(|pod| Reverse(importance(pod)));
    (victims, violations)
}

fn importance(pod: &PodInfo) -> (i32, Reverse<Timestamp>) {
    // One that has not started counts as starting now.
    (pod.priority, Reverse(pod.started.unwrap_or(Timestamp::MAX)))
}

/// Those whose eviction would go beyond a budget, and the others.
fn split_by_budget(pods: &[Arc<PodInfo>], budgets: &[Budget]) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let mut left: Vec<i64> = budgets.iter().map(|budget| budget.allowed).collect();
    pods.iter().cloned().partition(|pod| {
        let mut violates = false;
        for (budget, left) in budgets.iter().zip(&mut left) {
            let concerns = budget.namespace == pod.namespace()
                && !pod.labels().is_empty()
                && !budget.selector.is_empty()
                && budget.selector.matches(pod.labels())
                && !budget.disrupted.contains(&pod.key.name);
            if concerns {
                *left -= 1;
                violates |= *left < 0;
            }
        }
        violates
    })
}

/// Upstream's order: fewest violated budgets, lowest highest priority, smallest sum of priorities, fewest victims, the
/// latest start of the most important victim, the first.
fn least_harmful(candidates: Vec<Candidate<'_>>) -> Option<Candidate<'_>> {
    let harm = |candidate: &Candidate<'_>| {
        let victims = &candidate.victims;
        let highest = victims.first().map_or(i32::MIN, |pod| pod.priority);
        let sum: i64 = victims.iter().map(|pod| i64::from(pod.priority) + i64::from(i32::MAX) + 1).sum();
        let started = victims.iter().filter(|pod| pod.priority == highest);
        let earliest = started.map(|pod| pod.started.unwrap_or(Timestamp::MAX)).min();
        (candidate.violations, highest, sum, victims.len(), Reverse(earliest))
    };
    candidates.into_iter().min_by_key(harm)
}

#[cfg(test)]
mod tests;
