//! PersistentVolumes.

use jiff::Timestamp;
use machinery::FieldError;
use serde_json::{Value, json};

use crate::check::Errors;
use crate::core::pod::validate::scheduling;
use crate::value::{Access, Fill};
use crate::{Context, Strategy, row};

pub struct PersistentVolumes;

/// What of a volume's spec is not its source.
const COMMON: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];
const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

impl Strategy for PersistentVolumes {
    fn default(&self, object: &mut Value) {
        let spec = object.child("spec");
        spec.default_zero("persistentVolumeReclaimPolicy", "Retain");
        spec.default_absent("volumeMode", "Filesystem");
        if let Some(path) = spec.existing("hostPath") {
            path.default_absent("type", "");
        }
    }

    fn prepare_create(&self, context: &Context, object: &mut Value) {
        object.set("status", json!({"phase": "Pending", "lastPhaseTransitionTime": time(context)}));
    }

    fn prepare_status_update(&self, context: &Context, new: &mut Value, old: &Value) {
        new.copy_from(old, "spec");
        if new.text("/status/phase") != old.text("/status/phase")
            && new.at("/status/lastPhaseTransitionTime") == old.at("/status/lastPhaseTransitionTime")
        {
            new.child("status").set("lastPhaseTransitionTime", time(context));
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let spec = object.at("/spec");
        access_modes(&mut errors, spec);
        match spec.at("/capacity").get("storage") {
            None => errors.required("spec.capacity", ""),
            Some(size) => drop(errors.quantity("spec.capacity[storage]", size)),
        }
        let sources: Vec<_> = spec
            .members("")
            .filter(|(field, value)| !COMMON.contains(&field.as_str()) && !value.is_null())
            .collect();
        match sources.as_slice() {
            [] => errors.required("spec", "must specify a volume type"),
            [_] => {}
            [_, (kind, _), ..] => {
                errors.forbidden(format!("spec.{kind}"), "may not specify more than 1 volume type")
            }
        }
        if spec.has("/local") && !spec.has("/nodeAffinity") {
            errors.required("spec.nodeAffinity", "Local volume requires node affinity");
        }
        let policies = ["Delete", "Recycle", "Retain"];
        errors.one_of(
            "spec.persistentVolumeReclaimPolicy",
            spec.text("/persistentVolumeReclaimPolicy"),
            &policies,
        );
        errors.one_of("spec.volumeMode", spec.text("/volumeMode"), &["Block", "Filesystem"]);
        for (index, term) in spec.items("/nodeAffinity/required/nodeSelectorTerms").iter().enumerate() {
            scheduling::node_term(
                &mut errors,
                &format!("spec.nodeAffinity.required.nodeSelectorTerms[{index}]"),
                term,
            );
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        errors.extend(self.validate_create(new));
        for (field, value) in old.members("/spec").filter(|(field, _)| !COMMON.contains(&field.as_str())) {
            if new.at("/spec").get(field) != Some(value) {
                errors.forbidden(
                    "spec.persistentvolumesource",
                    "spec.persistentvolumesource is immutable after creation",
                );
            }
        }
        errors.immutable("spec.volumeMode", new.at("/spec/volumeMode"), old.at("/spec/volumeMode"));
        errors.into_vec()
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        let claim = object.at("/spec/claimRef");
        let claim_text = match claim {
            Value::Null => String::new(),
            claim => format!("{}/{}", claim.text("/namespace"), claim.text("/name")),
        };
        let phase = match (object.has("/metadata/deletionTimestamp"), object.text("/status/phase")) {
            (true, _) => "Terminating",
            (false, phase) => phase,
        };
        vec![
            row::name(object),
            row::text(object, "/spec/capacity/storage", ""),
            modes(object.items("/spec/accessModes")).into(),
            row::text(object, "/spec/persistentVolumeReclaimPolicy", ""),
            phase.into(),
            claim_text.into(),
            row::text(object, "/spec/storageClassName", ""),
            row::text(object, "/spec/volumeAttributesClassName", "<unset>"),
            row::text(object, "/status/reason", ""),
            row::created(now, object),
            row::text(object, "/spec/volumeMode", "<unset>"),
        ]
    }
}

fn time(context: &Context) -> String {
    context.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `accessModes`, of volumes and claims.
pub fn access_modes(errors: &mut Errors, spec: &Value) {
    let modes: Vec<_> = spec.items("/accessModes").iter().filter_map(Value::as_str).collect();
    if modes.is_empty() {
        errors.required("spec.accessModes", "at least 1 access mode is required");
    }
    for mode in &modes {
        errors.one_of("spec.accessModes", mode, &ACCESS_MODES);
    }
    if modes.contains(&"ReadWriteOncePod") && modes.len() > 1 {
        let detail = "may not use ReadWriteOncePod with other access modes";
        errors.forbidden("spec.accessModes", detail);
    }
}

/// kubectl's short form: `RWO,ROX`.
pub fn modes(modes: &[Value]) -> String {
    let short = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let texts: Vec<_> =
        short.iter().filter(|(mode, _)| modes.iter().any(|m| m == mode)).map(|(_, short)| *short).collect();
    texts.join(",")
}
