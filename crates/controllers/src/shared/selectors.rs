//! `metav1.LabelSelector` in its typed form against labels.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

type Labels = BTreeMap<String, String>;

/// Whether the labels satisfy the selector. An empty selector selects everything.
pub fn matches(selector: &LabelSelector, labels: &Labels) -> bool {
    let labels_match = selector.match_labels.as_ref().is_none_or(|wanted| includes(labels, wanted));
    let expressions = selector.match_expressions.as_deref().unwrap_or_default();
    labels_match && expressions.iter().all(|expression| expression_matches(expression, labels))
}

/// Whether `labels` has every pair of `wanted`.
pub fn includes(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Whether the selector selects everything, which controllers take for a mistake.
pub fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

fn expression_matches(expression: &LabelSelectorRequirement, labels: &Labels) -> bool {
    let value = labels.get(&expression.key);
    let among = |value: &String| expression.values.as_ref().is_some_and(|values| values.contains(value));
    match expression.operator.as_str() {
        "In" => value.is_some_and(among),
        "NotIn" => !value.is_some_and(among),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}
