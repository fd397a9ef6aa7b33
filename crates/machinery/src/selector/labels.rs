//! `metav1.LabelSelector` in its typed form against labels.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::Operator;

type Labels = BTreeMap<String, String>;

/// Whether the labels satisfy the selector. An empty selector selects everything; an operator that does not exist
/// nothing.
pub fn matches(selector: &LabelSelector, labels: &Labels) -> bool {
    let labels_match = selector.match_labels.as_ref().is_none_or(|wanted| includes(labels, wanted));
    let expressions = selector.match_expressions.as_deref().unwrap_or_default();
    labels_match
        && expressions.iter().all(|expression| {
            let values = expression.values.as_deref().unwrap_or_default();
            let value = labels.get(&expression.key).map(String::as_str);
            Operator::of_labels(&expression.operator).is_some_and(|operator| operator.holds(values, value))
        })
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_and_labels() {
        let labels: Labels = [("app".to_owned(), "web".to_owned())].into();
        let one = |operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": "app", "operator": operator, "values": values}]});
        for (selector, expected) in [
            (json!({}), true),
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchLabels": {"app": "db"}}), false),
            (one("In", &["db", "web"]), true),
            (one("NotIn", &["db"]), true),
            (one("NotIn", &["web"]), false),
            (one("Exists", &[]), true),
            (one("DoesNotExist", &[]), false),
            (one("Gt", &["1"]), false),
            (one("in", &["web"]), false),
        ] {
            let typed: LabelSelector = serde_json::from_value(selector.clone()).unwrap();
            assert_eq!(matches(&typed, &labels), expected, "{selector}");
            assert_eq!(is_empty(&typed), selector == json!({}));
        }
    }
}
