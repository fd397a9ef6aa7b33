//! What a plugin is: a filter says whether a node will do, a score says how well.

use crate::{NodeInfo, PodInfo, Snapshot};

/// The best score.
pub const SCORE_MAX: i64 = 100;

/// Says whether a pod may run on a node.
pub trait Filter: Send + Sync {
    /// `Err` with the reason, in upstream's words (it is counted over the nodes).
    fn filter(&self, pod: &PodInfo, node: &NodeInfo, snapshot: &Snapshot) -> Result<(), String>;
}

/// Says how well a node suits a pod.
pub trait Score: Send + Sync {
    /// The weight among the scores, upstream's default.
    fn weight(&self) -> i64;
    /// A score per node, in the order of `nodes`, from 0 to [`SCORE_MAX`].
    fn score(&self, pod: &PodInfo, nodes: &[&NodeInfo], snapshot: &Snapshot) -> Vec<i64>;
}

/// Stretches raw numbers so that the largest becomes [`SCORE_MAX`]; `reverse` when small is good.
pub fn normalize(raw: Vec<i64>, reverse: bool) -> Vec<i64> {
    let most = raw.iter().copied().max().unwrap_or(0);
    let scaled = |value: i64| if most == 0 { 0 } else { value * SCORE_MAX / most };
    raw.into_iter().map(|value| if reverse { SCORE_MAX - scaled(value) } else { scaled(value) }).collect()
}
