//! ReplicationControllers: the older form of a ReplicaSet, whose selector is a plain map.

use jiff::Timestamp;
use machinery::{FieldError, Object};
use serde_json::{Value, json};

use crate::apps::workload;
use crate::check::{Errors, selects};
use crate::core::pod::warnings;
use crate::table_format::{containers, labels};
use crate::value::{Access, Fill, is_zero};
use crate::{Strategy, row};

pub struct ReplicationControllers;

impl Strategy for ReplicationControllers {
    fn default(&self, object: &mut Value) {
        let template_labels = object.at("/spec/template/metadata/labels").clone();
        if !is_zero(&template_labels) {
            object.child("spec").default_zero("selector", template_labels.clone());
            object.child("metadata").default_zero("labels", template_labels);
        }
        object.child("spec").default_absent("replicas", 1);
        workload::template_defaults(object);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        workload::not_negative(&mut errors, object, "spec", &["replicas", "minReadySeconds"]);
        let selector = object.at("/spec/selector");
        if is_zero(selector) {
            errors.required("spec.selector", "");
        } else {
            let matches =
                selects(&json!({"matchLabels": selector}), object.at("/spec/template/metadata/labels"));
            workload::template_matches(&mut errors, object, matches);
        }
        workload::running_template(&mut errors, object, "ReplicationController");
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        self.validate_create(new)
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

    fn orphans_by_default(&self) -> bool {
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
            labels(object.at("/spec/selector")).into(),
        ]
    }

    fn scale(&self, object: &Value) -> Option<(i64, i64, String)> {
        let (replicas, status, _) = workload::scale(object)?;
        let pairs = object.members("/spec/selector");
        let texts: Vec<_> =
            pairs.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
        Some((replicas, status, texts.join(",")))
    }

    fn set_scale(&self, object: &mut Value, replicas: i64) {
        workload::set_scale(object, replicas);
    }
}
