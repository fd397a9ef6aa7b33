//! Deployments.

use jiff::Timestamp;
use machinery::FieldError;
use serde_json::Value;

use super::workload;
use crate::check::{Errors, percent};
use crate::core::pod::warnings;
use crate::table_format::{containers, selector};
use crate::value::{Access, Fill};
use crate::{Strategy, row};

pub struct Deployments;

impl Strategy for Deployments {
    fn default(&self, object: &mut Value) {
        let spec = object.child("spec");
        spec.default_absent("replicas", 1);
        spec.default_absent("revisionHistoryLimit", 10);
        spec.default_absent("progressDeadlineSeconds", 600);
        let strategy = spec.child("strategy");
        strategy.default_zero("type", "RollingUpdate");
        if strategy.text("/type") == "RollingUpdate" {
            let rolling = strategy.child("rollingUpdate");
            rolling.default_absent("maxUnavailable", "25%");
            rolling.default_absent("maxSurge", "25%");
        }
        workload::template_defaults(object);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        workload::not_negative(
            &mut errors,
            object,
            "spec",
            &["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"],
        );
        workload::selector(&mut errors, object, "deployment");
        workload::running_template(&mut errors, object, "Deployment");
        strategy(&mut errors, object.at("/spec/strategy"));
        let deadline = object.int("/spec/progressDeadlineSeconds");
        if deadline.is_some_and(|deadline| deadline <= object.int("/spec/minReadySeconds").unwrap_or(0)) {
            errors.invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds");
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        errors.extend(self.validate_create(new));
        errors.immutable("spec.selector", new.at("/spec/selector"), old.at("/spec/selector"));
        errors.into_vec()
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let counts = ["updatedReplicas", "readyReplicas", "availableReplicas"];
        workload::status_counts(&mut errors, new, &counts);
        let collisions = |object: &Value| object.int("/status/collisionCount").unwrap_or(0);
        if collisions(new) < collisions(old) {
            errors.invalid("status.collisionCount", collisions(new), "cannot be decremented");
        }
        errors.into_vec()
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        warnings::of_spec("spec.template.spec", new.at("/spec/template/spec"))
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn changes_generation(&self, new: &Value, old: &Value) -> bool {
        new.at("/spec") != old.at("/spec")
            || new.at("/metadata/annotations") != old.at("/metadata/annotations")
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        let [names, images] = containers(object.at("/spec/template/spec"));
        let ready = object.int("/status/readyReplicas").unwrap_or(0);
        let desired = object.int("/spec/replicas").unwrap_or(0);
        vec![
            row::name(object),
            format!("{ready}/{desired}").into(),
            row::text(object, "/status/updatedReplicas", "0"),
            row::text(object, "/status/availableReplicas", "0"),
            row::created(now, object),
            names,
            images,
            selector(object.at("/spec/selector")).into(),
        ]
    }

    fn scale(&self, object: &Value) -> Option<(i64, i64, String)> {
        workload::scale(object)
    }

    fn set_scale(&self, object: &mut Value, replicas: i64) {
        workload::set_scale(object, replicas);
    }
}

fn strategy(errors: &mut Errors, strategy: &Value) {
    let kind = strategy.text("/type");
    errors.required_one_of("spec.strategy.type", kind, &["Recreate", "RollingUpdate"]);
    let path = "spec.strategy.rollingUpdate";
    let rolling = strategy.at("/rollingUpdate");
    if kind == "Recreate" && !rolling.is_null() {
        errors.forbidden(path, "may not be specified when strategy `type` is 'Recreate'");
    }
    if kind == "RollingUpdate" {
        rolling_update(errors, path, rolling);
    }
}

/// `maxUnavailable` and `maxSurge`: each a count or percentage, not both 0.
pub fn rolling_update(errors: &mut Errors, path: &str, rolling: &Value) {
    let [unavailable, surge] = ["/maxUnavailable", "/maxSurge"].map(|pointer| rolling.at(pointer));
    errors.count_or_percent(&format!("{path}.maxUnavailable"), unavailable);
    errors.count_or_percent(&format!("{path}.maxSurge"), surge);
    let amount = |value: &Value| value.as_i64().or(percent(value)).unwrap_or(0);
    if amount(unavailable) == 0 && amount(surge) == 0 {
        errors.invalid(format!("{path}.maxUnavailable"), unavailable, "may not be 0 when `maxSurge` is 0");
    }
    if percent(unavailable).is_some_and(|percent| percent > 100) {
        errors.invalid(format!("{path}.maxUnavailable"), unavailable, "must not be greater than 100%");
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    fn check(change: impl Fn(&mut Value), expected: Expect) {
        let mut object = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"app": "a"}},
            "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
        change(&mut object);
        Deployments.default(&mut object);
        let texts: Vec<_> = Deployments.validate_create(&object).iter().map(ToString::to_string).collect();
        expected.assert_eq(&texts.join("\n"));
    }

    #[test]
    fn the_selector_must_match_the_template() {
        check(|_| {}, expect![""]);
        check(
            |object| object["spec"]["selector"]["matchLabels"]["app"] = json!("b"),
            expect![[
                r#"spec.template.metadata.labels: Invalid value: {"app":"a"}: `selector` does not match template `labels`"#
            ]],
        );
        check(
            |object| object["spec"]["selector"] = json!({}),
            expect!["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
        );
    }

    #[test]
    fn strategies_are_checked() {
        check(
            |object| {
                object["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}})
            },
            expect![[
                r#"spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "0%": may not be 0 when `maxSurge` is 0"#
            ]],
        );
        check(
            |object| object["spec"]["strategy"] = json!({"type": "Recreate", "rollingUpdate": {}}),
            expect![
                "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"
            ],
        );
        check(
            |object| object["spec"]["template"]["spec"]["restartPolicy"] = json!("Never"),
            expect![[
                r#"spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always""#
            ]],
        );
    }
}
