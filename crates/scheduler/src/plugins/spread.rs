//! Spreads the pods of one owner over nodes, as upstream's default topology constraints do.

use crate::plugin::{Score, normalize};
use crate::{NodeInfo, PodInfo, Snapshot};

pub struct OwnerSpread;

impl Score for OwnerSpread {
    fn weight(&self) -> i64 {
        2
    }

    fn score(&self, pod: &PodInfo, nodes: &[&NodeInfo], _: &Snapshot) -> Vec<i64> {
        let Some(owner) = owner(pod) else { return vec![0; nodes.len()] };
        let siblings = |node: &&NodeInfo| {
            let same = node.pods.values().filter(|other| self::owner(other) == Some(owner));
            same.count() as i64
        };
        normalize(nodes.iter().map(siblings).collect(), true)
    }
}

fn owner(pod: &PodInfo) -> Option<&str> {
    let owners = pod.spec.metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
}
