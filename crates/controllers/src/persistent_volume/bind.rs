//! The judgement of a claim and of a volume. First the volume names the claim, then the claim names the volume, then
//! both say that they are bound; each step is judged from what is observed.

use client::{Patch, target_of};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use machinery::Object;
use reconcile::plan::named;
use reconcile::{Action, Plan, Reference};
use serde_json::{Value, json};

use super::matching::{best, is_for};
use super::{Claim, Volume};
use crate::shared::status;

const COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// Set by the scheduler on claims whose class waits for a pod.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// What to do for a claim.
pub fn claim(claim: &Claim, volumes: &[Volume], class: Option<&StorageClass>) -> Plan {
    let named =
        claim.1.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).filter(|name| !name.is_empty());
    if let Some(name) = named {
        return match volumes.iter().find(|(volume, _)| volume.meta().name == name) {
            Some(volume) => join(claim, volume),
            None if is_completed(claim) => phase(claim, "Lost", None),
            None => phase(claim, "Pending", None),
        };
    }
    if claim.0.meta().deletion_timestamp.is_some() {
        return Plan::nothing();
    }
    let reserved = volumes.iter().any(|volume| is_for(&volume.1, claim));
    if waits_for_consumer(claim, class) && !reserved {
        let message = "waiting for first consumer to be created before binding";
        return phase(claim, "Pending", Some(("WaitForFirstConsumer", message.to_owned())));
    }
    match best(claim, volumes) {
        Some(volume) => join(claim, volume),
        None => phase(claim, "Pending", Some(unavailable(claim, class))),
    }
}

fn is_completed(claim: &Claim) -> bool {
    claim.1.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(COMPLETED))
}

fn waits_for_consumer(claim: &Claim, class: Option<&StorageClass>) -> bool {
    let waits = class.and_then(|class| class.volume_binding_mode.as_deref()) == Some("WaitForFirstConsumer");
    let annotations = claim.1.metadata.annotations.as_ref();
    waits && !annotations.is_some_and(|all| all.contains_key(SELECTED_NODE))
}

fn unavailable(claim: &Claim, class: Option<&StorageClass>) -> (&'static str, String) {
    let class_name =
        claim.1.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref()).unwrap_or_default();
    match class {
        Some(class) if class.provisioner != "kubernetes.io/no-provisioner" => {
            let message = format!(
                "Waiting for a volume to be created either by the external provisioner '{}' or manually by the system \
                 administrator. If volume creation is delayed, please verify that the provisioner is running and \
                 correctly registered.",
                class.provisioner
            );
            ("ExternalProvisioning", message)
        }
        None if class_name.is_empty() => {
            let message = "no persistent volumes available for this claim and no storage class is set";
            ("FailedBinding", message.to_owned())
        }
        None => ("ProvisioningFailed", format!("storageclass.storage.k8s.io {class_name:?} not found")),
        Some(_) => ("FailedBinding", "no volume plugin matched".to_owned()),
    }
}

/// The next step of binding the two.
fn join(claim: &Claim, volume: &Volume) -> Plan {
    let bound_to = volume.1.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    let has_uid = bound_to.is_some_and(|to| to.uid.as_deref() == Some(&*claim.0.meta().uid));
    if bound_to.is_some() && !is_for(&volume.1, claim) {
        return phase(claim, if is_completed(claim) { "Lost" } else { "Pending" }, None);
    }
    if !has_uid {
        return Plan { actions: vec![reserve(claim, volume, bound_to.is_none())], ..Plan::nothing() };
    }
    let names_it =
        claim.1.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()) == Some(&*volume.0.meta().name);
    if !names_it || !is_completed(claim) {
        return Plan { actions: vec![name_volume(claim, volume, !names_it)], ..Plan::nothing() };
    }
    let spec = volume.1.spec.clone().unwrap_or_default();
    let wanted = json!({"phase": "Bound", "accessModes": spec.access_modes, "capacity": spec.capacity});
    let stored = serde_json::to_value(&claim.1.status).unwrap_or_default();
    let patch = status::patch_if_new(target_of::<PersistentVolumeClaim>(""), &claim.0, &wanted, &stored);
    Plan { status: patch, ..Plan::nothing() }
}

/// The volume names the claim; guarded, as another claim may want it too.
fn reserve(claim: &Claim, volume: &Volume, by_us: bool) -> Action {
    let meta = claim.0.meta();
    let reference = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": meta.namespace,
        "name": meta.name, "uid": meta.uid, "resourceVersion": claim.0.revision().to_string()});
    let mut metadata = guard(&volume.0);
    if by_us {
        metadata["annotations"][BY_CONTROLLER] = json!("yes");
    }
    let body = json!({"metadata": metadata, "spec": {"claimRef": reference}});
    Action::Patch { target: named(target_of::<PersistentVolume>(""), &volume.0), patch: Patch::Merge(body) }
}

fn name_volume(claim: &Claim, volume: &Volume, by_us: bool) -> Action {
    let mut metadata = guard(&claim.0);
    metadata["annotations"][COMPLETED] = json!("yes");
    if by_us {
        metadata["annotations"][BY_CONTROLLER] = json!("yes");
    }
    let body = json!({"metadata": metadata, "spec": {"volumeName": volume.0.meta().name}});
    Action::Patch {
        target: named(target_of::<PersistentVolumeClaim>(""), &claim.0),
        patch: Patch::Merge(body),
    }
}

fn guard(object: &Object) -> Value {
    json!({"uid": object.meta().uid, "resourceVersion": object.revision().to_string()})
}

/// Shows a phase; the event comes only when the phase is entered or its reason is new to the recorder.
fn phase(claim: &Claim, phase: &str, event: Option<(&str, String)>) -> Plan {
    let stored = serde_json::to_value(&claim.1.status).unwrap_or_default();
    let status = json!({"phase": phase});
    let patch = status::patch_if_new(target_of::<PersistentVolumeClaim>(""), &claim.0, &status, &stored);
    let about = Reference::new("v1", "PersistentVolumeClaim", &claim.0);
    let actions = event.map(|(reason, message)| Action::event(about, reason, message)).into_iter().collect();
    Plan { actions, status: patch, next: None }
}

/// What to do for a volume: only its phase.
pub fn volume(volume: &Volume, claim: Option<&Object>) -> Plan {
    let to = volume.1.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    let uid = to.and_then(|to| to.uid.as_deref()).filter(|uid| !uid.is_empty());
    let phase = match (uid, claim) {
        (None, _) => "Available",
        (Some(uid), Some(claim)) if claim.meta().uid == uid => "Bound",
        (Some(_), _) => "Released",
    };
    let stored = serde_json::to_value(&volume.1.status).unwrap_or_default();
    let status = json!({"phase": phase});
    let patch = status::patch_if_new(target_of::<PersistentVolume>(""), &volume.0, &status, &stored);
    Plan { status: patch, ..Plan::nothing() }
}
