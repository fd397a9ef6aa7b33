//! Advice about pod specs that are valid and yet probably not meant.

use std::collections::BTreeSet;

use serde_json::Value;

use super::defaults::CONTAINER_LISTS;
use crate::value::Access;

const OLD_LABELS: [(&str, &str, &str); 5] = [
    ("beta.kubernetes.io/arch", "v1.14", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "v1.14", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "v1.17", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "v1.17", "topology.kubernetes.io/zone"),
    ("beta.kubernetes.io/instance-type", "v1.17", "node.kubernetes.io/instance-type"),
];

/// Warnings about a pod spec at `path`.
pub fn of_spec(path: &str, spec: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    for (label, since, instead) in OLD_LABELS {
        if spec.at("/nodeSelector").get(label).is_some() {
            let place = format!("{path}.nodeSelector[{label}]");
            warnings.push(format!("{place}: deprecated since {since}; use {instead:?} instead"));
        }
    }
    if spec.int("/terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
        warnings.push(format!("{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    for list in CONTAINER_LISTS {
        for (index, container) in spec.items(&format!("/{list}")).iter().enumerate() {
            let path = format!("{path}.{list}[{index}]");
            repeated_variables(&mut warnings, &path, container);
            fractional_bytes(&mut warnings, &path, container);
        }
    }
    warnings
}

fn repeated_variables(warnings: &mut Vec<String>, path: &str, container: &Value) {
    let mut seen = BTreeSet::new();
    for (index, variable) in container.items("/env").iter().enumerate() {
        let name = variable.text("/name");
        if !seen.insert(name) {
            warnings.push(format!("{path}.env[{index}]: hides previous definition of {name:?}, which may be dropped when using apply"));
        }
    }
}

fn fractional_bytes(warnings: &mut Vec<String>, path: &str, container: &Value) {
    for list in ["limits", "requests"] {
        for name in ["memory", "ephemeral-storage"] {
            let value = container.at("/resources").at(&format!("/{list}/{name}"));
            if let Some(quantity) = machinery::quantity::Quantity::read(value)
                && !quantity.is_whole()
            {
                let text = crate::table_format::plain(value);
                warnings.push(format!("{path}.resources.{list}[{name}]: fractional byte value {text:?} is invalid, must be an integer"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;

    #[test]
    fn advice() {
        let spec = json!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}, "containers": [
            {"env": [{"name": "A"}, {"name": "A"}], "resources": {"limits": {"memory": "100m"}}}]});
        expect![[r#"
            spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead
            spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply
            spec.containers[0].resources.limits[memory]: fractional byte value "100m" is invalid, must be an integer"#]]
        .assert_eq(&of_spec("spec", &spec).join("\n"));
    }
}
