//! Jobs.

use jiff::Timestamp;
use machinery::{FieldError, Object};
use serde_json::{Value, json};

use crate::apps::workload;
use crate::check::{Errors, selects};
use crate::core::pod::validate;
use crate::core::pod::warnings;
use crate::table_format::{containers, human_duration, selector};
use crate::value::{Access, Fill, is_zero};
use crate::{Context, Strategy, row};

pub struct Jobs;

const UID_LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
const NAME_LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

impl Strategy for Jobs {
    fn default(&self, object: &mut Value) {
        workload::template_defaults(object);
        let labels = object.at("/spec/template/metadata/labels").clone();
        if !is_zero(&labels) {
            object.child("metadata").default_zero("labels", labels);
        }
        let spec = object.child("spec");
        if !spec.has("/completions") && !spec.has("/parallelism") {
            spec.set("completions", 1);
        }
        spec.default_absent("parallelism", 1);
        let retries = if spec.has("/backoffLimitPerIndex") { i64::from(i32::MAX) } else { 6 };
        spec.default_absent("backoffLimit", retries);
        spec.default_absent("completionMode", "NonIndexed");
        spec.default_absent("suspend", false);
        let replacement = if spec.has("/podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
        spec.default_absent("podReplacementPolicy", replacement);
        if let Some(policy) = spec.existing("podFailurePolicy") {
            for rule in policy.each("rules") {
                rule.each("onPodConditions").for_each(|condition| condition.default_zero("status", "True"));
            }
        }
    }

    fn prepare_create(&self, _context: &Context, object: &mut Value) {
        object.unset("status");
        if !object.flag("/spec/manualSelector") {
            generate_selector(object);
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        spec(&mut errors, "spec", object.at("/spec"));
        validate::template(&mut errors, "spec.template", object.at("/spec/template"));
        match object.at("/spec/selector") {
            Value::Null => errors.required("spec.selector", ""),
            selector => {
                let matches = selects(selector, object.at("/spec/template/metadata/labels"));
                workload::template_matches(&mut errors, object, matches);
            }
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        spec(&mut errors, "spec", new.at("/spec"));
        let elastic = new.text("/spec/completionMode") == "Indexed"
            && new.at("/spec/completions") == new.at("/spec/parallelism");
        for field in [
            "selector",
            "completionMode",
            "podFailurePolicy",
            "backoffLimitPerIndex",
            "managedBy",
            "successPolicy",
        ] {
            let pointer = format!("/spec/{field}");
            errors.immutable(&format!("spec.{field}"), new.at(&pointer), old.at(&pointer));
        }
        if !elastic {
            errors.immutable("spec.completions", new.at("/spec/completions"), old.at("/spec/completions"));
        }
        errors.immutable("spec.template", &comparable_template(new, old), old.at("/spec/template"));
        errors.into_vec()
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        warnings::of_spec("spec.template.spec", new.at("/spec/template/spec"))
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn orphans_by_default(&self) -> bool {
        true
    }

    fn fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        let object = object.value();
        vec![("status.successful", object.int("/status/succeeded").unwrap_or(0).to_string())]
    }

    fn field_names(&self) -> &'static [&'static str] {
        &["status.successful"]
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        let [names, images] = containers(object.at("/spec/template/spec"));
        vec![
            row::name(object),
            state(object).into(),
            completions(object).into(),
            duration(now, object).into(),
            row::created(now, object),
            names,
            images,
            selector(object.at("/spec/selector")).into(),
        ]
    }
}

/// Labels that no other job has, and a selector for them.
fn generate_selector(object: &mut Value) {
    let uid = object.text("/metadata/uid").to_owned();
    let name = object.text("/metadata/name").to_owned();
    let spec = object.child("spec");
    let labels = spec.child("template").child("metadata").child("labels");
    for label in UID_LABELS {
        labels.set(label, uid.clone());
    }
    for label in NAME_LABELS {
        labels.set(label, name.clone());
    }
    spec.child("selector").child("matchLabels").set(UID_LABELS[0], uid);
}

/// The new template with what a suspended job may change (its placement) put back.
fn comparable_template(new: &Value, old: &Value) -> Value {
    let mut template = new.at("/spec/template").clone();
    let not_started = old.flag("/spec/suspend") && !old.has("/status/startTime");
    if not_started {
        let metadata = old.at("/spec/template/metadata");
        for field in ["annotations", "labels"] {
            template.child("metadata").copy_from(metadata, field);
        }
        for field in ["nodeSelector", "tolerations", "affinity", "schedulingGates"] {
            template.child("spec").copy_from(old.at("/spec/template/spec"), field);
        }
    }
    template
}

/// A job spec without its template, also in cron jobs.
pub fn spec(errors: &mut Errors, path: &str, spec: &Value) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        errors.at_least(&format!("{path}.{field}"), spec.int(&format!("/{field}")), 0);
    }
    let mode = spec.text("/completionMode");
    errors.one_of(&format!("{path}.completionMode"), mode, &["Indexed", "NonIndexed"]);
    if mode == "Indexed" && !spec.has("/completions") {
        let detail = "when completion mode is Indexed";
        errors.required(format!("{path}.completions"), detail);
    }
    if mode != "Indexed" && spec.has("/backoffLimitPerIndex") {
        let detail = "requires indexed completion mode";
        errors.invalid(format!("{path}.backoffLimitPerIndex"), spec.at("/backoffLimitPerIndex"), detail);
    }
    let restart = spec.text("/template/spec/restartPolicy");
    let path_restart = format!("{path}.template.spec.restartPolicy");
    match restart {
        "" | "Always" => errors.required(path_restart, "valid values: \"OnFailure\", \"Never\""),
        other => errors.one_of(&path_restart, other, &["Never", "OnFailure"]),
    }
    failure_policy(errors, &format!("{path}.podFailurePolicy"), spec, restart);
}

fn failure_policy(errors: &mut Errors, path: &str, spec: &Value, restart: &str) {
    if !spec.has("/podFailurePolicy") {
        return;
    }
    if restart != "Never" {
        let detail = "only \"Never\" is supported when podFailurePolicy is specified";
        errors.invalid("spec.template.spec.restartPolicy", restart, detail);
    }
    for (index, rule) in spec.items("/podFailurePolicy/rules").iter().enumerate() {
        let path = format!("{path}.rules[{index}]");
        let actions = ["Count", "FailIndex", "FailJob", "Ignore"];
        errors.required_one_of(&format!("{path}.action"), rule.text("/action"), &actions);
        if !rule.has("/onExitCodes") && rule.items("/onPodConditions").is_empty() {
            let detail = "specifying one of OnExitCodes and OnPodConditions is required";
            errors.invalid(&path, json!(""), detail);
        }
    }
}

fn condition(object: &Value, kind: &str) -> bool {
    object.items("/status/conditions").iter().any(|c| c.text("/type") == kind && c.text("/status") == "True")
}

fn state(object: &Value) -> &'static str {
    let kinds = [
        ("Complete", "Complete"),
        ("Failed", "Failed"),
        ("Suspended", "Suspended"),
        ("FailureTarget", "FailureTarget"),
        ("SuccessCriteriaMet", "SuccessCriteriaMet"),
    ];
    if let Some((_, text)) = kinds.iter().find(|(kind, _)| condition(object, kind)) {
        return text;
    }
    if object.has("/metadata/deletionTimestamp") { "Terminating" } else { "Running" }
}

fn completions(object: &Value) -> String {
    let succeeded = object.int("/status/succeeded").unwrap_or(0);
    if let Some(wanted) = object.int("/spec/completions") {
        return format!("{succeeded}/{wanted}");
    }
    match object.int("/spec/parallelism").unwrap_or(0) {
        parallelism if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        _ => format!("{succeeded}/1"),
    }
}

fn duration(now: Timestamp, object: &Value) -> String {
    let time = |pointer: &str| object.text(pointer).parse::<Timestamp>().ok();
    let Some(start) = time("/status/startTime") else { return String::new() };
    let end = time("/status/completionTime").unwrap_or(now);
    human_duration(end.as_second() - start.as_second())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn job() -> Value {
        let mut job = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {"spec":
            {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
        Jobs.default(&mut job);
        let context = Context { now: Timestamp::UNIX_EPOCH, user: String::new(), groups: Vec::new() };
        Jobs.prepare_create(&context, &mut job);
        job
    }

    #[test]
    fn a_selector_is_generated() {
        let job = job();
        assert!(Jobs.validate_create(&job).is_empty(), "{:?}", Jobs.validate_create(&job));
        expect![[r#"{"matchLabels":{"batch.kubernetes.io/controller-uid":"u"}}"#]]
            .assert_eq(&job["spec"]["selector"].to_string());
        assert_eq!(completions(&job), "0/1");
    }

    #[test]
    fn jobs_end_and_stay() {
        let old = job();
        let mut new = old.clone();
        new["spec"]["template"]["spec"]["restartPolicy"] = json!("Always");
        let texts: Vec<_> = Jobs.validate_update(&new, &old).iter().map(|e| e.path.clone()).collect();
        assert_eq!(texts, ["spec.template.spec.restartPolicy", "spec.template"]);
    }
}
