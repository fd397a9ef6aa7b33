//! `storage.k8s.io/v1`.

use jiff::Timestamp;
use machinery::FieldError;
use serde_json::Value;

use crate::check::Errors;
use crate::value::{Access, Fill};
use crate::{Context, Strategy, row};

const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

pub struct StorageClasses;

impl Strategy for StorageClasses {
    fn default(&self, object: &mut Value) {
        object.default_absent("reclaimPolicy", "Delete");
        object.default_absent("volumeBindingMode", "Immediate");
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if object.text("/provisioner").is_empty() {
            errors.required("provisioner", "");
        }
        errors.one_of("reclaimPolicy", object.text("/reclaimPolicy"), &["Delete", "Retain"]);
        let modes = ["Immediate", "WaitForFirstConsumer"];
        errors.one_of("volumeBindingMode", object.text("/volumeBindingMode"), &modes);
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        for (field, text) in [
            ("parameters", true),
            ("provisioner", true),
            ("reclaimPolicy", true),
            ("volumeBindingMode", false),
        ] {
            let pointer = format!("/{field}");
            if text && new.at(&pointer) != old.at(&pointer) {
                errors.forbidden(field, &format!("updates to {field} are forbidden."));
            } else if !text {
                errors.immutable(field, new.at(&pointer), old.at(&pointer));
            }
        }
        errors.into_vec()
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        let annotations = object.at("/metadata/annotations");
        let is_default = annotations.get(DEFAULT_CLASS).is_some_and(|value| value == "true");
        let name = object.text("/metadata/name");
        vec![
            if is_default { format!("{name} (default)") } else { name.to_owned() }.into(),
            row::text(object, "/provisioner", ""),
            row::text(object, "/reclaimPolicy", "Delete"),
            row::text(object, "/volumeBindingMode", "Immediate"),
            object.flag("/allowVolumeExpansion").to_string().into(),
            row::created(now, object),
        ]
    }
}

pub struct CsiDrivers;

impl Strategy for CsiDrivers {
    fn default(&self, object: &mut Value) {
        let spec = object.child("spec");
        spec.default_absent("attachRequired", true);
        for field in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
            spec.default_absent(field, false);
        }
        spec.default_absent("fsGroupPolicy", "ReadWriteOnceWithFSType");
        if spec.items("/volumeLifecycleModes").is_empty() {
            spec.set("volumeLifecycleModes", vec!["Persistent"]);
        }
    }

    fn cells(&self, _now: Timestamp, object: &Value) -> Vec<Value> {
        let flag = |field: &str, instead| {
            object.at("/spec").get(field).and_then(Value::as_bool).unwrap_or(instead).into()
        };
        vec![
            row::name(object),
            flag("attachRequired", true),
            flag("podInfoOnMount", false),
            flag("storageCapacity", false),
        ]
    }
}

pub struct CsiNodes;

impl Strategy for CsiNodes {
    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        vec![row::name(object), row::count(object, "/spec/drivers"), row::created(now, object)]
    }
}

pub struct CsiStorageCapacities;

impl Strategy for CsiStorageCapacities {
    fn cells(&self, _now: Timestamp, object: &Value) -> Vec<Value> {
        vec![
            row::name(object),
            row::text(object, "/storageClassName", ""),
            row::text(object, "/capacity", "<unset>"),
        ]
    }
}

pub struct VolumeAttachments;

impl Strategy for VolumeAttachments {
    /// The attacher's status may come with the object.
    fn prepare_create(&self, _context: &Context, object: &mut Value) {
        object.set("status", serde_json::json!({"attached": false}));
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        for field in ["attacher", "nodeName"] {
            if object.text(&format!("/spec/{field}")).is_empty() {
                errors.required(format!("spec.{field}"), "");
            }
        }
        let source = object.at("/spec/source");
        if source.text("/persistentVolumeName").is_empty() && !source.has("/inlineVolumeSpec") {
            errors.required(
                "spec.source",
                "must specify exactly one of inlineVolumeSpec and persistentVolumeName",
            );
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        errors.immutable("spec", new.at("/spec"), old.at("/spec"));
        errors.into_vec()
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        vec![
            row::name(object),
            row::text(object, "/spec/attacher", ""),
            row::text(object, "/spec/source/persistentVolumeName", ""),
            row::text(object, "/spec/nodeName", ""),
            object.flag("/status/attached").into(),
            row::created(now, object),
        ]
    }
}

pub struct VolumeAttributesClasses;

impl Strategy for VolumeAttributesClasses {
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        for field in ["driverName", "parameters"] {
            let pointer = format!("/{field}");
            if new.at(&pointer) != old.at(&pointer) {
                errors.forbidden(field, &format!("updates to {field} are forbidden."));
            }
        }
        errors.into_vec()
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        vec![row::name(object), row::text(object, "/driverName", ""), row::created(now, object)]
    }
}
