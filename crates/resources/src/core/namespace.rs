//! Namespaces: gone only when the finalizers of their spec are.

use jiff::Timestamp;
use machinery::{FieldError, Object};
use serde_json::{Value, json};

use crate::check::Errors;
use crate::value::{Access, Fill};
use crate::{Context, Strategy, names, row};

pub struct Namespaces;

const NAME_LABEL: &str = "kubernetes.io/metadata.name";
const FINALIZER: &str = "kubernetes";

impl Strategy for Namespaces {
    fn default(&self, object: &mut Value) {
        let name = object.text("/metadata/name").to_owned();
        if !name.is_empty() {
            object.child("metadata").child("labels").set(NAME_LABEL, name);
        }
    }

    fn prepare_create(&self, _context: &Context, object: &mut Value) {
        object.set("status", json!({"phase": "Active"}));
        let spec = object.child("spec");
        let mut finalizers = spec.items("/finalizers").to_vec();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            finalizers.push(FINALIZER.into());
        }
        spec.set("finalizers", finalizers);
        self.default(object);
    }

    fn prepare_update(&self, _context: &Context, new: &mut Value, old: &Value) {
        new.child("spec").copy_from(old.at("/spec"), "finalizers");
        new.copy_from(old, "status");
    }

    fn prepare_subresource_update(
        &self,
        _context: &Context,
        _subresource: &str,
        new: &mut Value,
        old: &Value,
    ) {
        new.copy_from(old, "status");
    }

    fn prepare_delete(&self, _context: &Context, object: &mut Value) {
        object.child("status").set("phase", "Terminating");
    }

    fn holds_deletion(&self, object: &Value) -> bool {
        !object.items("/spec/finalizers").is_empty()
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        finalizers(object)
    }

    fn validate_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        finalizers(new)
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let phase = new.text("/status/phase");
        match new.has("/metadata/deletionTimestamp") {
            false if phase != "Active" => {
                errors.invalid("status.Phase", phase, "may only be 'Active' if `deletionTimestamp` is empty");
            }
            true if phase != "Terminating" => {
                errors.invalid(
                    "status.Phase",
                    phase,
                    "may only be 'Terminating' if `deletionTimestamp` is not empty",
                );
            }
            _ => {}
        }
        errors.into_vec()
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, _old: &Value) -> Vec<FieldError> {
        finalizers(new)
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        names::dns_label(name)
    }

    fn fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        let object = object.value();
        vec![("status.phase", object.text("/status/phase").to_owned())]
    }

    fn field_names(&self) -> &'static [&'static str] {
        &["status.phase"]
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        vec![row::name(object), row::text(object, "/status/phase", ""), row::created(now, object)]
    }
}

fn finalizers(object: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    for (index, finalizer) in object.items("/spec/finalizers").iter().enumerate() {
        let name = finalizer.as_str().unwrap_or_default();
        let path = format!("spec.finalizers[{index}]");
        if let Err(detail) = machinery::selector::validate_label_key(name) {
            errors.invalid(path, name, detail);
        } else if !name.contains('/') && !["kubernetes", "orphan", "foregroundDeletion"].contains(&name) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.invalid(path, name, detail);
        }
    }
    errors.into_vec()
}
