//! Objects that `kubectl apply` used to manage by itself, with its last configuration in an annotation: `kubectl apply
//! --server-side` may take over what that configuration set.

use serde_json::Value;

use super::compare;
use super::merge::without_managed_fields;
use super::{Conflict, FieldSet, Type, Writer};

/// The manager of `kubectl apply --server-side`.
const KUBECTL: &str = "kubectl";
const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

fn annotation(object: &Value) -> Option<&str> {
    object.get("metadata")?.get("annotations")?.get(ANNOTATION)?.as_str()
}

/// Whether all conflicts are about fields that the last configuration set and that still have its values.
pub fn allows(kind: Type<'_>, live: &Value, writer: &Writer<'_>, conflicts: &[Conflict]) -> bool {
    if writer.manager != KUBECTL {
        return false;
    }
    let Some(last) = annotation(live).and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
        return false;
    };
    let mut allowed = compare::fields(kind.schema, kind.node, &last);
    allowed.subtract(&compare::difference(kind.schema, kind.node, live, &last).changed);
    let mut rest = FieldSet::default();
    conflicts.iter().for_each(|conflict| rest.union(&conflict.fields));
    rest.subtract(&allowed);
    rest.is_empty()
}

/// Keeps the annotation in step, so that a return to client-side apply finds what was applied last.
pub fn renew(merged: &mut Value, intent: &Value, writer: &Writer<'_>) {
    if writer.manager != KUBECTL || annotation(merged).is_none() {
        return;
    }
    let mut configuration = without_managed_fields(intent);
    if let Some(annotations) =
        configuration.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut)
    {
        annotations.remove(ANNOTATION);
    }
    if let Some(annotations) = merged.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.insert(ANNOTATION.to_owned(), Value::String(format!("{configuration}\n")));
    }
}
