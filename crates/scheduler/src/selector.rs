//! Node selectors against nodes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};

use crate::NodeInfo;

/// A selector holds when one of its terms does.
pub fn selects(selector: &NodeSelector, node: &NodeInfo) -> bool {
    selector.node_selector_terms.iter().any(|term| matches(term, node.labels(), &node.name))
}

/// A term holds when all its requirements do; an empty one never does.
pub fn matches(term: &NodeSelectorTerm, labels: &BTreeMap<String, String>, name: &str) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let label = |requirement: &NodeSelectorRequirement| {
        holds(requirement, labels.get(&requirement.key).map(String::as_str))
    };
    let field = |requirement: &NodeSelectorRequirement| {
        requirement.key == "metadata.name" && holds(requirement, Some(name))
    };
    expressions.iter().all(label) && fields.iter().all(field)
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let among = value.is_some_and(|value| values.iter().any(|other| other == value));
    let compared = || {
        let value: i64 = value?.parse().ok()?;
        let bound: i64 = values.first()?.parse().ok()?;
        Some(value.cmp(&bound))
    };
    match requirement.operator.as_str() {
        "In" => among,
        "NotIn" => !among,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared().is_some_and(|order| order.is_gt()),
        "Lt" => compared().is_some_and(|order| order.is_lt()),
        _ => false,
    }
}

/// The names that a selector restricts the choice to, if each of its terms asks for names.
pub fn names(selector: &NodeSelector) -> Option<Vec<&str>> {
    let mut all = Vec::new();
    for term in &selector.node_selector_terms {
        let fields = term.match_fields.as_deref().unwrap_or_default();
        let named = fields.iter().find(|field| field.key == "metadata.name" && field.operator == "In")?;
        all.extend(named.values.iter().flatten().map(String::as_str));
    }
    (!all.is_empty()).then_some(all)
}
