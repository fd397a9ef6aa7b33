//! PersistentVolumeClaims.

use jiff::Timestamp;
use machinery::FieldError;
use machinery::quantity::Quantity;
use serde_json::{Value, json};

use crate::check::Errors;
use crate::core::persistent_volume::{access_modes, modes};
use crate::value::{Access, Fill};
use crate::{Context, Strategy, row};

pub struct PersistentVolumeClaims;

const IMMUTABLE: &str = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";

/// Defaults, also of a stateful set's claim templates.
pub fn defaults(object: &mut Value) {
    object.child("spec").default_absent("volumeMode", "Filesystem");
}

impl Strategy for PersistentVolumeClaims {
    fn default(&self, object: &mut Value) {
        defaults(object);
    }

    fn prepare_create(&self, _context: &Context, object: &mut Value) {
        object.set("status", json!({"phase": "Pending"}));
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let spec = object.at("/spec");
        access_modes(&mut errors, spec);
        match spec.at("/resources/requests").get("storage") {
            None => errors.required("spec.resources[storage]", ""),
            Some(size) => match Quantity::read(size) {
                Some(size) if !size.is_zero() && !size.is_negative() => {}
                _ => errors.invalid("spec.resources[storage]", size, "must be greater than zero"),
            },
        }
        errors.selector("spec.selector", spec.at("/selector"));
        errors.one_of("spec.volumeMode", spec.text("/volumeMode"), &["Block", "Filesystem"]);
        errors.format("spec.storageClassName", spec.text("/storageClassName"), crate::names::dns_subdomain);
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        errors.extend(self.validate_create(new));
        let mut like_old = new.at("/spec").clone();
        let before = old.at("/spec");
        if before.text("/volumeName").is_empty() {
            like_old.copy_from(before, "volumeName");
        }
        if !before.has("/storageClassName") {
            like_old.copy_from(before, "storageClassName");
        }
        if old.text("/status/phase") == "Bound" {
            like_old.copy_from(before, "resources");
            like_old.copy_from(before, "volumeAttributesClassName");
        }
        if &like_old != before {
            errors.forbidden("spec", IMMUTABLE);
        }
        let size = |object: &Value| Quantity::read(object.at("/spec/resources/requests/storage"));
        let allocated = Quantity::read(old.at("/status/capacity/storage"));
        if let (Some(new), Some(old)) = (size(new), size(old))
            && new < old
            && allocated.is_none_or(|allocated| new < allocated)
        {
            errors.forbidden("spec.resources.requests.storage", "field can not be less than status.capacity");
        }
        errors.into_vec()
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        let phase = match (object.has("/metadata/deletionTimestamp"), object.text("/status/phase")) {
            (true, _) => "Terminating",
            (false, phase) => phase,
        };
        let is_bound = !object.text("/spec/volumeName").is_empty();
        let capacity = if is_bound { object.text("/status/capacity/storage") } else { "" };
        let access = if is_bound { modes(object.items("/status/accessModes")) } else { String::new() };
        vec![
            row::name(object),
            phase.into(),
            row::text(object, "/spec/volumeName", ""),
            capacity.into(),
            access.into(),
            row::text(object, "/spec/storageClassName", ""),
            row::text(object, "/spec/volumeAttributesClassName", "<unset>"),
            row::created(now, object),
            row::text(object, "/spec/volumeMode", "<unset>"),
        ]
    }
}
