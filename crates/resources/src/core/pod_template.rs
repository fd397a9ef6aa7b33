//! PodTemplates.

use jiff::Timestamp;
use machinery::FieldError;
use serde_json::Value;

use super::pod::{defaults, validate};
use crate::check::Errors;
use crate::table_format::{containers, labels};
use crate::value::{Access, Fill};
use crate::{Strategy, row};

pub struct PodTemplates;

impl Strategy for PodTemplates {
    fn default(&self, object: &mut Value) {
        defaults::spec(object.child("template").child("spec"));
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        validate::template(&mut errors, "template", object.at("/template"));
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        self.validate_create(new)
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn cells(&self, _now: Timestamp, object: &Value) -> Vec<Value> {
        let [names, images] = containers(object.at("/template/spec"));
        vec![row::name(object), names, images, labels(object.at("/template/metadata/labels")).into()]
    }
}
