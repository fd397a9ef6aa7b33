//! What the kinds with a pod template have in common.

use machinery::selector::LabelSelector;
use serde_json::Value;

use crate::check::{Errors, selects};
use crate::core::pod::{defaults, validate};
use crate::value::{Access, Fill};

/// Defaults of `spec.template`.
pub fn template_defaults(object: &mut Value) {
    let template = object.child("spec").child("template");
    template.child("metadata");
    defaults::spec(template.child("spec"));
}

/// The selector of an apps kind: given, not empty, and matching its template.
pub fn selector(errors: &mut Errors, object: &Value, kind: &str) {
    let selector = object.at("/spec/selector");
    if selector.is_null() {
        errors.required("spec.selector", "");
        return;
    }
    errors.selector("spec.selector", selector);
    if selector.members("/matchLabels").next().is_none() && selector.items("/matchExpressions").is_empty() {
        let detail = format!("empty selector is invalid for {kind}");
        errors.invalid("spec.selector", selector, detail);
        return;
    }
    template_matches(errors, object, selects(selector, object.at("/spec/template/metadata/labels")));
}

/// Says that the template's labels are not selected.
pub fn template_matches(errors: &mut Errors, object: &Value, matches: bool) {
    if !matches {
        let labels = object.pointer("/spec/template/metadata/labels").cloned().unwrap_or(Value::Null);
        errors.invalid(
            "spec.template.metadata.labels",
            labels,
            "`selector` does not match template `labels`",
        );
    }
}

/// A template whose pods run for ever.
pub fn running_template(errors: &mut Errors, object: &Value, kind: &str) {
    validate::template(errors, "spec.template", object.at("/spec/template"));
    let spec = object.at("/spec/template/spec");
    if spec.text("/restartPolicy") != "Always" {
        errors.one_of("spec.template.spec.restartPolicy", spec.text("/restartPolicy"), &["Always"]);
    }
    if spec.has("/activeDeadlineSeconds") {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.forbidden("spec.template.spec.activeDeadlineSeconds", &detail);
    }
}

/// Numbers of the spec that may not be negative.
pub fn not_negative(errors: &mut Errors, object: &Value, parent: &str, fields: &[&str]) {
    for field in fields {
        errors.at_least(&format!("{parent}.{field}"), object.int(&format!("/{parent}/{field}")), 0);
    }
}

/// Numbers of the status, none negative and none above `status.replicas`.
pub fn status_counts(errors: &mut Errors, object: &Value, fields: &[&str]) {
    not_negative(errors, object, "status", &["replicas", "observedGeneration"]);
    not_negative(errors, object, "status", fields);
    let replicas = object.int("/status/replicas").unwrap_or(0);
    for field in fields {
        if object.int(&format!("/status/{field}")).is_some_and(|count| count > replicas) {
            let count = object.at(&format!("/status/{field}"));
            errors.invalid(format!("status.{field}"), count, "cannot be greater than status.replicas");
        }
    }
}

/// The `scale` view of a kind whose selector is a `LabelSelector`.
pub fn scale(object: &Value) -> Option<(i64, i64, String)> {
    let selector =
        LabelSelector::from_value(object.at("/spec/selector")).map(|s| s.to_string()).unwrap_or_default();
    Some((object.int("/spec/replicas").unwrap_or(0), object.int("/status/replicas").unwrap_or(0), selector))
}

/// Writes the replicas that `scale` asks for.
pub fn set_scale(object: &mut Value, replicas: i64) {
    object.child("spec").set("replicas", replicas);
}

/// Carries status over but lets a status update change only the status.
pub fn keep_all_but_status(new: &mut Value, old: &Value) {
    new.copy_from(old, "spec");
    let labels = old.at("/metadata").clone();
    new.child("metadata").copy_from(&labels, "labels");
}
