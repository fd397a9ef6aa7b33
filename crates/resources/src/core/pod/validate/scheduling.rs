//! Where a pod may run: selectors, affinity, tolerations, spreading.

use machinery::selector::{validate_label_key, validate_label_value};
use serde_json::Value;

use crate::check::Errors;
use crate::value::Access;

/// Everything about placement in a pod spec.
pub fn all(errors: &mut Errors, path: &str, spec: &Value) {
    errors.labels(&format!("{path}.nodeSelector"), spec.at("/nodeSelector"));
    node_affinity(errors, &format!("{path}.affinity.nodeAffinity"), spec.at("/affinity/nodeAffinity"));
    for kind in ["podAffinity", "podAntiAffinity"] {
        let affinity = spec.at("/affinity").at(&format!("/{kind}"));
        pod_affinity(errors, &format!("{path}.affinity.{kind}"), affinity);
    }
    tolerations(errors, &format!("{path}.tolerations"), spec.items("/tolerations"));
    spread(errors, &format!("{path}.topologySpreadConstraints"), spec.items("/topologySpreadConstraints"));
}

fn node_affinity(errors: &mut Errors, path: &str, affinity: &Value) {
    let required = affinity.at("/requiredDuringSchedulingIgnoredDuringExecution");
    if !required.is_null() {
        let path = format!("{path}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
        if required.items("/nodeSelectorTerms").is_empty() {
            errors.required(&path, "must have at least one node selector term");
        }
        for (index, term) in required.items("/nodeSelectorTerms").iter().enumerate() {
            node_term(errors, &format!("{path}[{index}]"), term);
        }
    }
    let preferred = affinity.items("/preferredDuringSchedulingIgnoredDuringExecution");
    for (index, term) in preferred.iter().enumerate() {
        let path = format!("{path}.preferredDuringSchedulingIgnoredDuringExecution[{index}]");
        weight(errors, &path, term);
        node_term(errors, &format!("{path}.preference"), term.at("/preference"));
    }
}

fn weight(errors: &mut Errors, path: &str, term: &Value) {
    let weight = term.int("/weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errors.invalid(format!("{path}.weight"), weight, "must be in the range 1-100");
    }
}

/// A `NodeSelectorTerm`, also of volumes.
pub fn node_term(errors: &mut Errors, path: &str, term: &Value) {
    for (list, is_field) in [("matchExpressions", false), ("matchFields", true)] {
        for (index, requirement) in term.items(&format!("/{list}")).iter().enumerate() {
            let path = format!("{path}.{list}[{index}]");
            let values = requirement.items("/values").len();
            match requirement.text("/operator") {
                "In" | "NotIn" if values == 0 => {
                    errors.required(
                        format!("{path}.values"),
                        "must be specified when `operator` is 'In' or 'NotIn'",
                    );
                }
                "Exists" | "DoesNotExist" if values > 0 => {
                    let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                    errors.forbidden(format!("{path}.values"), detail);
                }
                "Gt" | "Lt" if values != 1 => {
                    let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                    errors.required(format!("{path}.values"), detail);
                }
                "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
                other => errors.invalid(format!("{path}.operator"), other, "not a valid selector operator"),
            }
            let key = requirement.text("/key");
            if is_field && key != "metadata.name" {
                errors.invalid(format!("{path}.key"), key, "not a valid field selector key");
            } else if !is_field && let Err(detail) = validate_label_key(key) {
                errors.invalid(format!("{path}.key"), key, detail);
            }
        }
    }
}

fn pod_affinity(errors: &mut Errors, path: &str, affinity: &Value) {
    let required = affinity.items("/requiredDuringSchedulingIgnoredDuringExecution");
    for (index, term) in required.iter().enumerate() {
        pod_term(errors, &format!("{path}.requiredDuringSchedulingIgnoredDuringExecution[{index}]"), term);
    }
    let preferred = affinity.items("/preferredDuringSchedulingIgnoredDuringExecution");
    for (index, term) in preferred.iter().enumerate() {
        let path = format!("{path}.preferredDuringSchedulingIgnoredDuringExecution[{index}]");
        weight(errors, &path, term);
        pod_term(errors, &format!("{path}.podAffinityTerm"), term.at("/podAffinityTerm"));
    }
}

fn pod_term(errors: &mut Errors, path: &str, term: &Value) {
    errors.selector(&format!("{path}.labelSelector"), term.at("/labelSelector"));
    errors.selector(&format!("{path}.namespaceSelector"), term.at("/namespaceSelector"));
    match term.text("/topologyKey") {
        "" => errors.required(format!("{path}.topologyKey"), "can not be empty"),
        key => errors.format(&format!("{path}.topologyKey"), key, validate_label_key),
    }
}

/// Tolerations of a pod or of a runtime class.
pub fn tolerations(errors: &mut Errors, path: &str, tolerations: &[Value]) {
    for (index, toleration) in tolerations.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let [key, operator, value, effect] =
            ["/key", "/operator", "/value", "/effect"].map(|pointer| toleration.text(pointer));
        errors.format(&format!("{path}.key"), key, validate_label_key);
        if key.is_empty() && operator != "Exists" {
            let detail =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.invalid(format!("{path}.operator"), operator, detail);
        }
        if toleration.has("/tolerationSeconds") && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.invalid(format!("{path}.effect"), effect, detail);
        }
        match operator {
            "" | "Equal" => errors.format(&format!("{path}.value"), value, validate_label_value),
            "Exists" if !value.is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                errors.invalid(format!("{path}.operator"), value, detail);
            }
            operator => errors.one_of(&format!("{path}.operator"), operator, &["Equal", "Exists"]),
        }
        errors.one_of(&format!("{path}.effect"), effect, &["NoExecute", "NoSchedule", "PreferNoSchedule"]);
    }
}

fn spread(errors: &mut Errors, path: &str, constraints: &[Value]) {
    for (index, constraint) in constraints.iter().enumerate() {
        let path = format!("{path}[{index}]");
        errors.at_least(&format!("{path}.maxSkew"), Some(constraint.int("/maxSkew").unwrap_or(0)), 1);
        match constraint.text("/topologyKey") {
            "" => errors.required(format!("{path}.topologyKey"), "can not be empty"),
            key => errors.format(&format!("{path}.topologyKey"), key, validate_label_key),
        }
        let when = constraint.text("/whenUnsatisfiable");
        match when {
            "" => errors.required(format!("{path}.whenUnsatisfiable"), ""),
            when => errors.one_of(
                &format!("{path}.whenUnsatisfiable"),
                when,
                &["DoNotSchedule", "ScheduleAnyway"],
            ),
        }
        if constraint.has("/minDomains") {
            errors.at_least(&format!("{path}.minDomains"), constraint.int("/minDomains"), 1);
            if when != "DoNotSchedule" {
                let detail = "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway";
                errors.invalid(format!("{path}.minDomains"), constraint.at("/minDomains"), detail);
            }
        }
        errors.selector(&format!("{path}.labelSelector"), constraint.at("/labelSelector"));
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            errors.one_of(
                &format!("{path}.{field}"),
                constraint.text(&format!("/{field}")),
                &["Honor", "Ignore"],
            );
        }
    }
}
