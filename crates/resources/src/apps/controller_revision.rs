//! ControllerRevisions: snapshots of a template, which never change.

use jiff::Timestamp;
use machinery::FieldError;
use serde_json::Value;

use crate::check::Errors;
use crate::value::Access;
use crate::{Context, Strategy, row};

pub struct ControllerRevisions;

impl Strategy for ControllerRevisions {
    fn prepare_create(&self, _context: &Context, _object: &mut Value) {}

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if !object.has("/data") {
            errors.required("data", "data is mandatory");
        }
        errors.at_least("revision", object.int("/revision"), 0);
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        errors.extend(self.validate_create(new));
        errors.immutable("data", new.at("/data"), old.at("/data"));
        errors.into_vec()
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        let owner = object.items("/metadata/ownerReferences").iter().find(|owner| owner.flag("/controller"));
        let controller = owner.map_or("<none>".to_owned(), |owner| {
            let group = owner.text("/apiVersion").split_once('/').map_or("", |(group, _)| group);
            let kind = owner.text("/kind").to_lowercase();
            let dot = if group.is_empty() { "" } else { "." };
            format!("{kind}{dot}{group}/{}", owner.text("/name"))
        });
        vec![
            row::name(object),
            controller.into(),
            row::number(object, "/revision"),
            row::created(now, object),
        ]
    }
}
