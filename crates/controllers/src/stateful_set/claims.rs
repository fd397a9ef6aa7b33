//! The claims of a set's pods: one per template and ordinal, kept or removed as the retention policy says (KEP-1847).

use std::sync::Arc;

use client::{Patch, target_of};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use machinery::{Object, OwnerReference};
use reconcile::Action;
use reconcile::plan::named;
use serde_json::{Value, json};

use super::Observed;
use crate::shared::claim::ObservedPod;

/// Name and template of each claim.
pub fn templates(observed: &Observed) -> impl Iterator<Item = (&str, &PersistentVolumeClaim)> {
    let templates = observed.spec.volume_claim_templates.as_deref().unwrap_or_default();
    templates.iter().map(|template| (template.metadata.name.as_deref().unwrap_or_default(), template))
}

pub fn claim_name(observed: &Observed, template: &str, ordinal: i32) -> String {
    format!("{template}-{}-{ordinal}", observed.name())
}

fn find<'a>(observed: &'a Observed, name: &str) -> Option<&'a Arc<Object>> {
    observed.claims.iter().find(|claim| claim.meta().name == name)
}

/// Whether a claim of the ordinal is on its way out, so that its pod must wait for the next one.
pub fn is_leaving(observed: &Observed, ordinal: i32) -> bool {
    let leaves = |name: &str| {
        let claim = find(observed, &claim_name(observed, name, ordinal));
        claim.is_some_and(|claim| claim.meta().deletion_timestamp.is_some())
    };
    templates(observed).any(|(name, _)| leaves(name))
}

/// Creates the claims that an ordinal lacks.
pub fn create_missing(observed: &Observed, ordinal: i32) -> Vec<Action> {
    let missing = |(name, template): (&str, &PersistentVolumeClaim)| {
        let claim = claim_name(observed, name, ordinal);
        find(observed, &claim).is_none().then(|| create(observed, claim, template))
    };
    templates(observed).filter_map(missing).collect()
}

fn create(observed: &Observed, name: String, template: &PersistentVolumeClaim) -> Action {
    let mut labels = template.metadata.labels.clone().unwrap_or_default();
    labels.extend(observed.spec.selector.match_labels.clone().unwrap_or_default());
    let mut metadata = json!({"name": name, "namespace": observed.object.meta().namespace, "labels": labels});
    if let Some(annotations) = &template.metadata.annotations {
        metadata["annotations"] = json!(annotations);
    }
    if deletes(observed, true) {
        metadata["ownerReferences"] = json!([observed.owner_reference()]);
    }
    let body = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata,
        "spec": serde_json::to_value(&template.spec).unwrap_or_default()});
    let target = target_of::<PersistentVolumeClaim>(&observed.object.meta().namespace);
    Action::Create { target, body, announce: Some(observed.reference()) }
}

/// Whether claims go with the set (or, otherwise, with a pod that is scaled away).
fn deletes(observed: &Observed, with_set: bool) -> bool {
    let policy = observed.spec.persistent_volume_claim_retention_policy.as_ref();
    let field = policy
        .and_then(|policy| if with_set { policy.when_deleted.as_ref() } else { policy.when_scaled.as_ref() });
    field.is_some_and(|value| value == "Delete")
}

/// Makes the owners of existing claims what the retention policy demands.
pub fn own(observed: &Observed, ordinal: i32, pod: Option<&ObservedPod>) -> Vec<Action> {
    let condemned = !observed.is_wanted(ordinal);
    let goes_with_pod = condemned && deletes(observed, false);
    let goes_with_set = deletes(observed, true) && !goes_with_pod;
    let adjust = |(name, _): (&str, &PersistentVolumeClaim)| {
        let claim = find(observed, &claim_name(observed, name, ordinal))?;
        let mut owners = claim.meta().owner_references.clone();
        let set = &observed.object.meta().uid;
        keep(&mut owners, set, goes_with_set.then(|| observed.owner_reference()));
        if let Some((object, _)) = pod {
            let reference = crate::shared::owners::controller_reference("v1", "Pod", object.meta());
            keep(&mut owners, &object.meta().uid, goes_with_pod.then_some(reference));
        }
        (owners != claim.meta().owner_references).then(|| write(claim, &owners))
    };
    templates(observed).filter_map(adjust).collect()
}

/// Makes the list have the reference, or not have it.
fn keep(owners: &mut Vec<OwnerReference>, uid: &str, reference: Option<Value>) {
    match reference {
        None => owners.retain(|owner| owner.uid != uid),
        Some(_) if owners.iter().any(|owner| owner.uid == uid) => {}
        Some(reference) => owners.extend(serde_json::from_value::<OwnerReference>(reference).ok()),
    }
}

fn write(claim: &Object, owners: &[OwnerReference]) -> Action {
    let metadata = json!({
        "uid": claim.meta().uid,
        "resourceVersion": claim.revision().to_string(),
        "ownerReferences": owners,
    });
    let target = named(target_of::<PersistentVolumeClaim>(""), claim);
    Action::Patch { target, patch: Patch::Merge(json!({"metadata": metadata})) }
}
