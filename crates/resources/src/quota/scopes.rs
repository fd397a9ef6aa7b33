//! Scopes: which pods a quota is about.

use serde_json::Value;

use crate::core::pod::quality;
use crate::value::Access;

/// What of a pod scopes look at.
#[derive(Clone, Debug)]
pub(super) struct PodScopes {
    terminating: bool,
    best_effort: bool,
    crosses_namespaces: bool,
    /// Empty when it has none.
    priority_class: String,
}

/// One scope that a pod must be in.
#[derive(Clone, Debug)]
pub(super) struct Requirement {
    scope: String,
    /// `Exists`, `DoesNotExist`, `In`, `NotIn`.
    operator: String,
    values: Vec<String>,
}

impl PodScopes {
    pub(super) fn of(pod: &Value) -> Self {
        Self {
            terminating: pod.has("/spec/activeDeadlineSeconds"),
            best_effort: quality::class(pod) == "BestEffort",
            crosses_namespaces: ["podAffinity", "podAntiAffinity"]
                .iter()
                .any(|kind| crosses_namespaces(pod.at(&format!("/spec/affinity/{kind}")))),
            priority_class: pod.text("/spec/priorityClassName").to_owned(),
        }
    }

    fn is_in(&self, scope: &str) -> bool {
        match scope {
            "Terminating" => self.terminating,
            "NotTerminating" => !self.terminating,
            "BestEffort" => self.best_effort,
            "NotBestEffort" => !self.best_effort,
            "PriorityClass" => !self.priority_class.is_empty(),
            "CrossNamespacePodAffinity" => self.crosses_namespaces,
            _ => false,
        }
    }
}

impl Requirement {
    pub(super) fn holds(&self, pod: &PodScopes) -> bool {
        match self.operator.as_str() {
            "In" => self.values.contains(&pod.priority_class),
            "NotIn" => !self.values.contains(&pod.priority_class),
            "DoesNotExist" => !pod.is_in(&self.scope),
            _ => pod.is_in(&self.scope),
        }
    }
}

/// The scopes of a quota's `spec`, plain ones and those with an operator.
pub(super) fn requirements(spec: &Value) -> Vec<Requirement> {
    let plain = spec.items("/scopes").iter().filter_map(Value::as_str).map(|scope| Requirement {
        scope: scope.to_owned(),
        operator: "Exists".to_owned(),
        values: Vec::new(),
    });
    let selected = spec.items("/scopeSelector/matchExpressions").iter().map(|expression| Requirement {
        scope: expression.text("/scopeName").to_owned(),
        operator: expression.text("/operator").to_owned(),
        values: expression.items("/values").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
    });
    plain.chain(selected).collect()
}

fn crosses_namespaces(affinity: &Value) -> bool {
    let names_some = |term: &Value| !term.items("/namespaces").is_empty() || term.has("/namespaceSelector");
    let required = affinity.items("/requiredDuringSchedulingIgnoredDuringExecution").iter();
    let preferred = affinity.items("/preferredDuringSchedulingIgnoredDuringExecution").iter();
    required.chain(preferred.map(|term| term.at("/podAffinityTerm"))).any(names_some)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn holds(pod: &Value, spec: Value) -> bool {
        requirements(&spec).iter().all(|requirement| requirement.holds(&PodScopes::of(pod)))
    }

    #[test]
    fn plain_scopes() {
        let terminating = json!({"spec": {"activeDeadlineSeconds": 1, "containers": [{}]}});
        let asking = json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "1"}}}]}});
        let far = json!({"spec": {"affinity": {"podAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"podAffinityTerm": {"namespaces": ["a"]}}]}}}});
        let cases = [
            (&terminating, "Terminating", true),
            (&terminating, "NotTerminating", false),
            (&terminating, "BestEffort", true),
            (&terminating, "NotBestEffort", false),
            (&terminating, "CrossNamespacePodAffinity", false),
            (&asking, "Terminating", false),
            (&asking, "NotTerminating", true),
            (&asking, "BestEffort", false),
            (&asking, "NotBestEffort", true),
            (&far, "CrossNamespacePodAffinity", true),
        ];
        for (pod, scope, expected) in cases {
            assert_eq!(holds(pod, json!({"scopes": [scope]})), expected, "{scope} {pod}");
        }
        assert!(!holds(&terminating, json!({"scopes": ["Terminating", "NotBestEffort"]})));
    }

    #[test]
    fn priority_classes_by_operator() {
        let (high, none) = (json!({"spec": {"priorityClassName": "high"}}), json!({"spec": {}}));
        let selector = |operator: &str, values: &[&str]| {
            json!({"scopeSelector": {"matchExpressions": [
                {"scopeName": "PriorityClass", "operator": operator, "values": values}]}})
        };
        let cases = [
            ("In", &["high"][..], true, false),
            ("In", &["low"], false, false),
            ("NotIn", &["high"], false, true),
            ("Exists", &[], true, false),
            ("DoesNotExist", &[], false, true),
        ];
        for (operator, values, with_class, without) in cases {
            assert_eq!(holds(&high, selector(operator, values)), with_class, "{operator} {values:?}");
            assert_eq!(holds(&none, selector(operator, values)), without, "{operator} {values:?}");
        }
    }
}
