//! `TaintToleration` and `NodeUnschedulable`.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::plugin::{Filter, Score, normalize};
use crate::{NodeInfo, PodInfo, Snapshot};

const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Cordoned nodes take only pods that tolerate it.
pub struct Unschedulable;

impl Filter for Unschedulable {
    fn filter(&self, pod: &PodInfo, node: &NodeInfo, _: &Snapshot) -> Result<(), String> {
        let cordoned = node.node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
        let taint =
            Taint { key: UNSCHEDULABLE.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
        if cordoned && !tolerations(pod).iter().any(|toleration| tolerates(toleration, &taint)) {
            return Err("node(s) were unschedulable".to_owned());
        }
        Ok(())
    }
}

/// Tainted nodes take only pods that tolerate the taints.
pub struct Taints;

impl Filter for Taints {
    fn filter(&self, pod: &PodInfo, node: &NodeInfo, _: &Snapshot) -> Result<(), String> {
        let strict = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
        let tolerated =
            |taint: &&Taint| tolerations(pod).iter().any(|toleration| tolerates(toleration, taint));
        match taints(node).iter().filter(strict).find(|taint| !tolerated(taint)) {
            None => Ok(()),
            Some(taint) => {
                let value = taint.value.as_deref().unwrap_or_default();
                Err(format!("node(s) had untolerated taint {{{}: {value}}}", taint.key))
            }
        }
    }
}

impl Score for Taints {
    fn weight(&self) -> i64 {
        3
    }

    fn score(&self, pod: &PodInfo, nodes: &[&NodeInfo], _: &Snapshot) -> Vec<i64> {
        let intolerable = |taint: &&Taint| {
            taint.effect == "PreferNoSchedule"
                && !tolerations(pod).iter().any(|toleration| tolerates(toleration, taint))
        };
        let count = |node: &&NodeInfo| taints(node).iter().filter(intolerable).count() as i64;
        normalize(nodes.iter().map(count).collect(), true)
    }
}

fn taints(node: &NodeInfo) -> &[Taint] {
    node.node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

fn tolerations(pod: &PodInfo) -> &[Toleration] {
    pod.spec.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default()
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let (effect, key, exists) =
        (text(&toleration.effect), text(&toleration.key), toleration.operator.as_deref() == Some("Exists"));
    (effect.is_empty() || effect == taint.effect)
        && (key.is_empty() && exists || key == taint.key)
        && (exists || text(&toleration.value) == text(&taint.value))
}
