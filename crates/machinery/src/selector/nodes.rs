//! Node selectors, and what pods ask of their node, against nodes' labels and names.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

use super::{Operator, labels as label_selectors};

type Labels = BTreeMap<String, String>;

/// The only field of nodes that selectors may ask about.
const NAME: &str = "metadata.name";

/// Whether `nodeSelector` and the required node affinity of a pod admit a node with these labels and this name.
pub fn admits(spec: &PodSpec, labels: &Labels, name: &str) -> bool {
    let by_labels = spec.node_selector.as_ref();
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required =
        affinity.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
    by_labels.is_none_or(|wanted| label_selectors::includes(labels, wanted))
        && required.is_none_or(|selector| selects(selector, labels, name))
}

/// A selector holds when one of its terms does.
pub fn selects(selector: &NodeSelector, labels: &Labels, name: &str) -> bool {
    selector.node_selector_terms.iter().any(|term| matches(term, labels, name))
}

/// A term holds when all its requirements do; an empty one never does.
pub fn matches(term: &NodeSelectorTerm, labels: &Labels, name: &str) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let label = |requirement: &NodeSelectorRequirement| {
        holds(requirement, labels.get(&requirement.key).map(String::as_str))
    };
    let field =
        |requirement: &NodeSelectorRequirement| requirement.key == NAME && holds(requirement, Some(name));
    expressions.iter().all(label) && fields.iter().all(field)
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    Operator::of_nodes(&requirement.operator).is_some_and(|operator| operator.holds(values, value))
}

/// The names that a selector restricts the choice to, if each of its terms asks for names.
pub fn names(selector: &NodeSelector) -> Option<Vec<&str>> {
    let mut all = Vec::new();
    for term in &selector.node_selector_terms {
        let fields = term.match_fields.as_deref().unwrap_or_default();
        let named = fields.iter().find(|field| field.key == NAME && field.operator == "In")?;
        all.extend(named.values.iter().flatten().map(String::as_str));
    }
    (!all.is_empty()).then_some(all)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn nodes_are_admitted() {
        let labels: Labels =
            [("disk", "ssd"), ("cores", "8")].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
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
            (label("cores", "Gt", &["many"]), false),
            (label("cores", "Near", &["8"]), false),
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
            assert_eq!(admits(&spec, &labels, "a"), wanted, "{:?}", spec.affinity);
        }
    }
}
