//! Controller references: who manages a pod, and how objects change hands.

use client::{Patch, Target};
use machinery::{Object, ObjectMeta, OwnerReference};
use reconcile::Action;
use reconcile::plan::named;
use serde_json::{Value, json};

/// The reference that marks its holder as managed, if there is one.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().find(|owner| owner.controller == Some(true))
}

/// Whether `owner_uid` manages the object.
pub fn is_controlled_by(object: &Object, owner_uid: &str) -> bool {
    controller_of(object.meta()).is_some_and(|owner| owner.uid == owner_uid)
}

/// The reference that a managed object carries.
pub fn controller_reference(api_version: &str, kind: &str, owner: &ObjectMeta) -> Value {
    json!({
        "apiVersion": api_version,
        "kind": kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// Takes an orphan over.
pub fn adopt(collection: Target, object: &Object, reference: Value) -> Action {
    let body = json!({"metadata": {"uid": object.meta().uid, "ownerReferences": [reference]}});
    Action::Patch { target: named(collection, object), patch: Patch::StrategicMerge(body) }
}

/// Lets go of an object that no longer matches.
pub fn release(collection: Target, object: &Object, owner_uid: &str) -> Action {
    let body = json!({"metadata": {
        "uid": object.meta().uid,
        "ownerReferences": [{"$patch": "delete", "uid": owner_uid}],
    }});
    Action::Patch { target: named(collection, object), patch: Patch::StrategicMerge(body) }
}
