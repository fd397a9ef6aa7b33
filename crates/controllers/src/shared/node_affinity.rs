//! Required node affinity of pods against nodes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

use super::selectors;

/// Whether `nodeSelector` and the required node affinity admit the node.
pub fn admits(spec: &PodSpec, node: &Node) -> bool {
    let empty = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    if !spec.node_selector.as_ref().is_none_or(|wanted| selectors::includes(labels, wanted)) {
        return false;
    }
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required =
        affinity.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
    required
        .is_none_or(|selector| selector.node_selector_terms.iter().any(|term| matches(term, node, labels)))
}

/// An empty term matches nothing.
fn matches(term: &NodeSelectorTerm, node: &Node, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let by_label = |requirement: &NodeSelectorRequirement| {
        satisfied(requirement, labels.get(&requirement.key).map(String::as_str))
    };
    let by_field = |requirement: &NodeSelectorRequirement| {
        requirement.key == "metadata.name" && satisfied(requirement, node.metadata.name.as_deref())
    };
    let is_empty = expressions.is_empty() && fields.is_empty();
    !is_empty && expressions.iter().all(by_label) && fields.iter().all(by_field)
}

fn satisfied(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let among = value.is_some_and(|value| values.iter().any(|wanted| wanted == value));
    let compared = || {
        let bound: i64 = values.first()?.parse().ok()?;
        Some(value?.parse::<i64>().ok()?.cmp(&bound))
    };
    match requirement.operator.as_str() {
        "In" => among,
        "NotIn" => !among,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared().is_some_and(std::cmp::Ordering::is_gt),
        "Lt" => compared().is_some_and(std::cmp::Ordering::is_lt),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn nodes_are_admitted() {
        let node: Node = serde_json::from_value(
            json!({"metadata": {"name": "a", "labels": {"disk": "ssd", "cores": "8"}}}),
        )
        .unwrap();
        let with = |expression: Value| {
            json!({"containers": [], "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [expression]}}}})
        };
        let label = |key: &str, operator: &str, values: &[&str]| {
            with(json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}))
        };
        for (spec, wanted) in [
            (json!({"containers": []}), true),
            (json!({"containers": [], "nodeSelector": {"disk": "ssd"}}), true),
            (json!({"containers": [], "nodeSelector": {"disk": "tape"}}), false),
            (label("disk", "In", &["ssd", "nvme"]), true),
            (label("disk", "NotIn", &["ssd"]), false),
            (label("gpu", "Exists", &[]), false),
            (label("gpu", "DoesNotExist", &[]), true),
            (label("cores", "Gt", &["7"]), true),
            (label("cores", "Lt", &["8"]), false),
            (label("disk", "Gt", &["1"]), false),
            (with(json!({})), false),
            (
                with(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]})),
                true,
            ),
            (
                with(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]})),
                false,
            ),
        ] {
            let spec: PodSpec = serde_json::from_value(spec).unwrap();
            assert_eq!(admits(&spec, &node), wanted, "{:?}", spec.affinity);
        }
    }
}
