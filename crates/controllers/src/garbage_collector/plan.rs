//! The judgement of one object, given what its owners and dependents are.

use std::sync::Arc;

use client::{DeleteOptions, Patch, Preconditions, Propagation, Target};
use machinery::{Object, OwnerReference};
use reconcile::Action;
use reconcile::plan::named;
use serde_json::{Value, json};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// What an owner is at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerState {
    /// Present, and not waiting for its dependents.
    Solid,
    /// Being deleted in the foreground: it waits for its dependents.
    WaitingForDependents,
    Gone,
    /// Its kind is not served.
    Unknown,
}

impl OwnerState {
    pub fn of(object: &Object) -> Self {
        if is_foreground(object) { Self::WaitingForDependents } else { Self::Solid }
    }
}

/// An owner reference and what stands behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct Owner {
    pub reference: OwnerReference,
    pub state: OwnerState,
}

/// Whether the object waits for its dependents to be deleted.
pub fn is_foreground(object: &Object) -> bool {
    has_finalizer(object, FOREGROUND)
}

fn has_finalizer(object: &Object, finalizer: &str) -> bool {
    object.meta().deletion_timestamp.is_some()
        && object.meta().finalizers.iter().any(|name| name == finalizer)
}

/// Lets the dependents of an object with the `orphan` finalizer go, then the object itself.
pub fn attempt_to_orphan(
    collection: &Target,
    object: &Object,
    dependents: &[(Target, Arc<Object>)],
) -> Vec<Action> {
    if !has_finalizer(object, ORPHAN) {
        return Vec::new();
    }
    let uid = &object.meta().uid;
    if dependents.is_empty() {
        return vec![remove_finalizer(collection, object, ORPHAN)];
    }
    dependents.iter().map(|(target, dependent)| drop_owners(target, dependent, &[uid])).collect()
}

/// Deletes an object whose owners are all gone or waiting for it; finishes one that waited for its dependents.
pub fn attempt_to_delete(
    collection: &Target,
    object: &Object,
    owners: &[Owner],
    dependents: &[(Target, Arc<Object>)],
) -> Vec<Action> {
    if is_foreground(object) {
        let blocks = |dependent: &Object| {
            let references = &dependent.meta().owner_references;
            references
                .iter()
                .any(|owner| owner.uid == object.meta().uid && owner.block_owner_deletion == Some(true))
        };
        let blocked = dependents.iter().any(|(_, dependent)| blocks(dependent));
        return if blocked { Vec::new() } else { vec![remove_finalizer(collection, object, FOREGROUND)] };
    }
    if object.meta().deletion_timestamp.is_some() || owners.is_empty() {
        return Vec::new();
    }
    let in_state = |state: OwnerState| owners.iter().filter(move |owner| owner.state == state);
    let kept = in_state(OwnerState::Solid).chain(in_state(OwnerState::Unknown)).count();
    let leaving: Vec<&String> = in_state(OwnerState::Gone)
        .chain(in_state(OwnerState::WaitingForDependents))
        .map(|owner| &owner.reference.uid)
        .collect();
    match (kept, leaving.as_slice()) {
        (_, []) => Vec::new(),
        // In a circle everybody would wait for everybody: the object stops being waited for before it goes.
        (0, _) if is_in_circle(object, owners, dependents) => vec![stop_blocking(collection, object)],
        (0, _) => vec![delete(collection, object, owners, !dependents.is_empty())],
        (_, leaving) => vec![drop_owners(collection, object, leaving)],
    }
}

/// Whether the object is waited for by an owner while a dependent of its own waits for dependents, too.
fn is_in_circle(object: &Object, owners: &[Owner], dependents: &[(Target, Arc<Object>)]) -> bool {
    let blocks = object.meta().owner_references.iter().any(|owner| owner.block_owner_deletion == Some(true));
    blocks
        && owners.iter().any(|owner| owner.state == OwnerState::WaitingForDependents)
        && dependents.iter().any(|(_, dependent)| is_foreground(dependent))
}

fn stop_blocking(collection: &Target, object: &Object) -> Action {
    let unblocked = object.meta().owner_references.iter().cloned();
    let owners: Vec<OwnerReference> =
        unblocked.map(|owner| OwnerReference { block_owner_deletion: Some(false), ..owner }).collect();
    metadata_patch(collection, object, json!({"ownerReferences": owners}))
}

fn delete(collection: &Target, object: &Object, owners: &[Owner], has_dependents: bool) -> Action {
    let waited_for = owners.iter().any(|owner| owner.state == OwnerState::WaitingForDependents);
    let propagation = if has_finalizer_name(object, ORPHAN) {
        Propagation::Orphan
    } else if waited_for && has_dependents || has_finalizer_name(object, FOREGROUND) {
        Propagation::Foreground
    } else {
        Propagation::Background
    };
    let options = DeleteOptions {
        propagation_policy: Some(propagation),
        preconditions: Some(Preconditions {
            uid: Some(object.meta().uid.clone()),
            resource_version: Some(object.revision().to_string()),
        }),
        ..DeleteOptions::default()
    };
    Action::Delete { target: named(collection.clone(), object), options, announce: None }
}

fn has_finalizer_name(object: &Object, finalizer: &str) -> bool {
    object.meta().finalizers.iter().any(|name| name == finalizer)
}

/// Rewrites the list under the guard of the revision, which works for every kind, custom resources too.
fn drop_owners(collection: &Target, object: &Object, uids: &[&String]) -> Action {
    let kept: Vec<&OwnerReference> =
        object.meta().owner_references.iter().filter(|owner| !uids.contains(&&owner.uid)).collect();
    metadata_patch(collection, object, json!({"ownerReferences": kept}))
}

fn remove_finalizer(collection: &Target, object: &Object, finalizer: &str) -> Action {
    let kept: Vec<&String> = object.meta().finalizers.iter().filter(|name| *name != finalizer).collect();
    metadata_patch(collection, object, json!({"finalizers": kept}))
}

fn metadata_patch(collection: &Target, object: &Object, mut metadata: Value) -> Action {
    metadata["uid"] = json!(object.meta().uid);
    metadata["resourceVersion"] = json!(object.revision().to_string());
    Action::Patch {
        target: named(collection.clone(), object),
        patch: Patch::Merge(json!({"metadata": metadata})),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::testing::object as stored;

    fn target() -> Target {
        Target { version: "v1".to_owned(), resource: "things".to_owned(), ..Target::default() }
    }

    fn thing(name: &str, more: Value) -> Arc<Object> {
        let mut value = json!({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": name, "namespace": "n", "uid": name}});
        for (field, given) in more.as_object().into_iter().flatten() {
            value["metadata"][field] = given.clone();
        }
        stored(&value)
    }

    fn owner(uid: &str, state: OwnerState) -> Owner {
        Owner { reference: OwnerReference { uid: uid.to_owned(), ..OwnerReference::default() }, state }
    }

    /// What is done, in a word or two.
    fn describe(actions: &[Action]) -> String {
        let word = |action: &Action| match action {
            Action::Delete { options, .. } => format!("delete {:?}", options.propagation_policy.unwrap()),
            Action::Patch { target, patch: Patch::Merge(body), .. } => {
                let metadata = &body["metadata"];
                let what = ["finalizers", "ownerReferences"]
                    .into_iter()
                    .find(|field| metadata.get(*field).is_some());
                format!(
                    "{} keeps {} {}",
                    target.name,
                    what.unwrap(),
                    metadata[what.unwrap()].as_array().unwrap().len()
                )
            }
            other => format!("{other:?}"),
        };
        actions.iter().map(word).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn objects_follow_their_owners() {
        use OwnerState::{Gone, Solid, Unknown, WaitingForDependents};
        let references = json!({"ownerReferences": [{"uid": "a"}, {"uid": "b"}]});
        let dependent = [(target(), thing("d", json!({})))];
        for (more, owners, dependents, wanted) in [
            (json!({}), vec![], &[][..], ""),
            (references.clone(), vec![owner("a", Solid)], &[], ""),
            (references.clone(), vec![owner("a", Gone)], &[], "delete Background"),
            (references.clone(), vec![owner("a", Unknown)], &[], ""),
            (
                references.clone(),
                vec![owner("a", Gone), owner("b", Unknown)],
                &[],
                "t keeps ownerReferences 1",
            ),
            (references.clone(), vec![owner("a", Gone), owner("b", Solid)], &[], "t keeps ownerReferences 1"),
            (
                references.clone(),
                vec![owner("a", WaitingForDependents), owner("b", Solid)],
                &[],
                "t keeps ownerReferences 1",
            ),
            (references.clone(), vec![owner("a", WaitingForDependents)], &[], "delete Background"),
            (references.clone(), vec![owner("a", WaitingForDependents)], &dependent, "delete Foreground"),
            (json!({"finalizers": ["orphan"]}), vec![owner("a", Gone)], &[], "delete Orphan"),
            (json!({"finalizers": [FOREGROUND]}), vec![owner("a", Gone)], &[], "delete Foreground"),
            (json!({"deletionTimestamp": "x"}), vec![owner("a", Gone)], &[], ""),
        ] {
            let actions = attempt_to_delete(&target(), &thing("t", more.clone()), &owners, dependents);
            assert_eq!(describe(&actions), wanted, "{more} {owners:?}");
        }
    }

    #[test]
    fn foreground_waits_for_what_blocks() {
        let waiting = thing("t", json!({"deletionTimestamp": "x", "finalizers": [FOREGROUND, "other"]}));
        let child = |blocks: bool| {
            let reference = json!({"uid": "t", "blockOwnerDeletion": blocks});
            [(target(), thing("d", json!({"ownerReferences": [reference]})))]
        };
        assert_eq!(describe(&attempt_to_delete(&target(), &waiting, &[], &child(true))), "");
        assert_eq!(
            describe(&attempt_to_delete(&target(), &waiting, &[], &child(false))),
            "t keeps finalizers 1"
        );
        assert_eq!(describe(&attempt_to_delete(&target(), &waiting, &[], &[])), "t keeps finalizers 1");
    }

    #[test]
    fn orphans_are_let_go_before_their_owner_goes() {
        let leaving = thing("t", json!({"deletionTimestamp": "x", "finalizers": [ORPHAN]}));
        let child = [(target(), thing("d", json!({"ownerReferences": [{"uid": "t"}, {"uid": "u"}]})))];
        assert_eq!(describe(&attempt_to_orphan(&target(), &leaving, &child)), "d keeps ownerReferences 1");
        assert_eq!(describe(&attempt_to_orphan(&target(), &leaving, &[])), "t keeps finalizers 0");
        assert_eq!(
            describe(&attempt_to_orphan(&target(), &thing("t", json!({"finalizers": [ORPHAN]})), &child)),
            ""
        );
    }
}
