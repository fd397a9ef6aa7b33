//! DaemonSets.

use jiff::Timestamp;
use machinery::FieldError;
use serde_json::Value;

use super::{deployment, workload};
use crate::check::Errors;
use crate::core::pod::warnings;
use crate::table_format::{containers, labels, selector};
use crate::value::{Access, Fill};
use crate::{Context, Strategy, row};

pub struct DaemonSets;

/// Counts changes of the template; what became of the field `templateGeneration`.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

impl Strategy for DaemonSets {
    fn default(&self, object: &mut Value) {
        let spec = object.child("spec");
        spec.default_absent("revisionHistoryLimit", 10);
        let strategy = spec.child("updateStrategy");
        strategy.default_zero("type", "RollingUpdate");
        if strategy.text("/type") == "RollingUpdate" {
            let rolling = strategy.child("rollingUpdate");
            rolling.default_absent("maxUnavailable", 1);
            rolling.default_absent("maxSurge", 0);
        }
        workload::template_defaults(object);
    }

    fn prepare_create(&self, _context: &Context, object: &mut Value) {
        object.unset("status");
        set_template_generation(object, 1);
    }

    fn prepare_update(&self, _context: &Context, new: &mut Value, old: &Value) {
        new.copy_from(old, "status");
        let changed = new.at("/spec/template") != old.at("/spec/template");
        set_template_generation(new, template_generation(old) + i64::from(changed));
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        workload::not_negative(&mut errors, object, "spec", &["minReadySeconds", "revisionHistoryLimit"]);
        workload::selector(&mut errors, object, "daemonset");
        workload::running_template(&mut errors, object, "DaemonSet");
        let strategy = object.at("/spec/updateStrategy");
        errors.required_one_of(
            "spec.updateStrategy.type",
            strategy.text("/type"),
            &["OnDelete", "RollingUpdate"],
        );
        if strategy.text("/type") == "RollingUpdate" {
            deployment::rolling_update(
                &mut errors,
                "spec.updateStrategy.rollingUpdate",
                strategy.at("/rollingUpdate"),
            );
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        errors.extend(self.validate_create(new));
        errors.immutable("spec.selector", new.at("/spec/selector"), old.at("/spec/selector"));
        errors.into_vec()
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        warnings::of_spec("spec.template.spec", new.at("/spec/template/spec"))
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        let [names, images] = containers(object.at("/spec/template/spec"));
        vec![
            row::name(object),
            row::number(object, "/status/desiredNumberScheduled"),
            row::number(object, "/status/currentNumberScheduled"),
            row::number(object, "/status/numberReady"),
            row::number(object, "/status/updatedNumberScheduled"),
            row::number(object, "/status/numberAvailable"),
            labels(object.at("/spec/template/spec/nodeSelector")).into(),
            row::created(now, object),
            names,
            images,
            selector(object.at("/spec/selector")).into(),
        ]
    }
}

fn template_generation(object: &Value) -> i64 {
    let annotations = object.at("/metadata/annotations");
    let text = annotations.get(TEMPLATE_GENERATION).and_then(Value::as_str).unwrap_or_default();
    text.parse().unwrap_or(0)
}

fn set_template_generation(object: &mut Value, generation: i64) {
    object.child("metadata").child("annotations").set(TEMPLATE_GENERATION, generation.to_string());
}
