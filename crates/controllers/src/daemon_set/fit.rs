//! Whether a set's pod belongs on a node.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, PodSpec, Taint, Toleration};

use crate::shared::taints::tolerates;
use machinery::selector::nodes;

/// What daemon pods tolerate beside what their template says, with the taint's effect.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
const NETWORK_UNAVAILABLE: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// Where a pod stands with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    /// A pod is to be there.
    pub should_run: bool,
    /// A pod that is there may stay.
    pub may_stay: bool,
}

/// The tolerations that every daemon pod gets.
pub fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let network = (spec.host_network == Some(true)).then_some(NETWORK_UNAVAILABLE);
    let toleration = |(key, effect): (&str, &str)| Toleration {
        key: Some(key.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some(effect.to_owned()),
        ..Toleration::default()
    };
    TOLERATED.into_iter().chain(network).map(toleration).collect()
}

/// Judges a node for pods of a template.
pub fn judge(template: &PodSpec, node: &Node) -> Fit {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let none = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&none);
    let pinned = template.node_name.as_deref().filter(|pinned| !pinned.is_empty());
    if pinned.is_some_and(|pinned| pinned != name) || !nodes::admits(template, labels, name) {
        return Fit { should_run: false, may_stay: false };
    }
    let mut tolerations = tolerations(template);
    tolerations.extend(template.tolerations.clone().unwrap_or_default());
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let is_open = |taint: &&Taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint));
    let keeps_out = |effects: &[&str]| {
        taints.iter().filter(is_open).any(|taint| effects.contains(&taint.effect.as_str()))
    };
    Fit { should_run: !keeps_out(&["NoSchedule", "NoExecute"]), may_stay: !keeps_out(&["NoExecute"]) }
}
