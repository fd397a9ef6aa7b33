//! `TaintToleration` and `NodeUnschedulable`.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::NodeInfo;
use crate::plugin::{Context, Filter, Rejection, Score, normalize};

const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Cordoned nodes take only pods that tolerate it.
struct Unschedulable {
    tolerated: bool,
}

pub fn unschedulable<'a>(context: Context<'a>) -> Option<Box<dyn Filter + 'a>> {
    let taint = Taint { key: UNSCHEDULABLE.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
    let tolerated = is_tolerated(&taint, &context.pod.wish().tolerations);
    Some(Box::new(Unschedulable { tolerated }))
}

impl Filter for Unschedulable {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if node.unschedulable && !self.tolerated {
            return Err(Rejection::by_node("node(s) were unschedulable"));
        }
        Ok(())
    }
}

/// Tainted nodes take only pods that tolerate the taints.
struct Taints<'a>(&'a [Toleration]);

pub fn filter<'a>(context: Context<'a>) -> Option<Box<dyn Filter + 'a>> {
    Some(Box::new(Taints(&context.pod.wish().tolerations)))
}

impl Filter for Taints<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if tolerates_all(&node.taints, self.0) {
            return Ok(());
        }
        Err(Rejection::by_node("node(s) had untolerated taint(s)"))
    }
}

/// Whether pods with these tolerations may come to a node with these taints.
pub fn tolerates_all(taints: &[Taint], tolerations: &[Toleration]) -> bool {
    let strict = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    taints.iter().filter(strict).all(|taint| is_tolerated(taint, tolerations))
}

pub fn score<'a>(context: Context<'a>, feasible: &[&NodeInfo]) -> Option<Box<dyn Score + 'a>> {
    let soft = feasible.iter().any(|node| node.taints.iter().any(|t| t.effect == "PreferNoSchedule"));
    soft.then(|| Box::new(Taints(&context.pod.wish().tolerations)) as Box<dyn Score>)
}

impl Score for Taints<'_> {
    fn score(&self, nodes: &[&NodeInfo]) -> Vec<i64> {
        let unwelcome = |taint: &&Taint| taint.effect == "PreferNoSchedule" && !is_tolerated(taint, self.0);
        let count = |node: &&NodeInfo| node.taints.iter().filter(unwelcome).count() as i64;
        normalize(nodes.iter().map(count).collect(), true)
    }
}

fn is_tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|toleration| tolerates(toleration, taint))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let (effect, key) =
        (toleration.effect.as_deref().unwrap_or_default(), toleration.key.as_deref().unwrap_or_default());
    if !(effect.is_empty() || effect == taint.effect) || !(key.is_empty() || key == taint.key) {
        return false;
    }
    let (own, other) =
        (toleration.value.as_deref().unwrap_or_default(), taint.value.as_deref().unwrap_or_default());
    let numbers = || Some((other.parse::<i64>().ok()?, own.parse::<i64>().ok()?));
    match toleration.operator.as_deref().unwrap_or_default() {
        "Exists" => true,
        "" | "Equal" => !key.is_empty() && own == other,
        // KEP-5471: the taint's number compared with the toleration's.
        "Lt" => numbers().is_some_and(|(taint, toleration)| taint < toleration),
        "Gt" => numbers().is_some_and(|(taint, toleration)| taint > toleration),
        _ => false,
    }
}
