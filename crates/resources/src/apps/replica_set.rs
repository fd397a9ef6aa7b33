//! ReplicaSets.

use jiff::Timestamp;
use machinery::{FieldError, Object};
use serde_json::Value;

use super::workload;
use crate::check::Errors;
use crate::core::pod::warnings;
use crate::table_format::{containers, selector};
use crate::value::{Access, Fill};
use crate::{Strategy, row};

pub struct ReplicaSets;

impl Strategy for ReplicaSets {
    fn default(&self, object: &mut Value) {
        object.child("spec").default_absent("replicas", 1);
        workload::template_defaults(object);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        workload::not_negative(&mut errors, object, "spec", &["replicas", "minReadySeconds"]);
        workload::selector(&mut errors, object, "replicaset");
        workload::running_template(&mut errors, object, "ReplicaSet");
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        errors.extend(self.validate_create(new));
        errors.immutable("spec.selector", new.at("/spec/selector"), old.at("/spec/selector"));
        errors.into_vec()
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let counts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
        workload::status_counts(&mut errors, new, &counts);
        errors.into_vec()
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        warnings::of_spec("spec.template.spec", new.at("/spec/template/spec"))
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        let object = object.value();
        vec![("status.replicas", object.int("/status/replicas").unwrap_or(0).to_string())]
    }

    fn field_names(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        let [names, images] = containers(object.at("/spec/template/spec"));
        vec![
            row::name(object),
            row::number(object, "/spec/replicas"),
            row::number(object, "/status/replicas"),
            row::number(object, "/status/readyReplicas"),
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
