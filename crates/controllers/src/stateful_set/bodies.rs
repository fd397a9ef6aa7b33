//! The pods of a set: names, labels and volumes by ordinal.

use client::target_of;
use k8s_openapi::api::core::v1::Pod;
use reconcile::Action;
use serde_json::{Value, json};

use super::history::History;
use super::{Observed, REVISION_LABEL, claims};
use crate::shared::template;

const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

pub fn pod_name(observed: &Observed, ordinal: i32) -> String {
    format!("{}-{ordinal}", observed.name())
}

/// Creates the pod of an ordinal, at the revision that it is to have.
pub fn create(observed: &Observed, history: &History<'_>, ordinal: i32) -> Action {
    let held_back = observed.is_rolling() && ordinal < observed.first_updated();
    let revision = if held_back { history.current } else { history.update };
    let mut body =
        template::from_json(observed.object.meta(), &revision.template(), observed.owner_reference());
    let name = pod_name(observed, ordinal);
    let metadata = &mut body["metadata"];
    if let Some(fields) = metadata.as_object_mut() {
        fields.remove("generateName");
    }
    metadata["name"] = json!(name);
    metadata["labels"][POD_NAME_LABEL] = json!(name);
    metadata["labels"][POD_INDEX_LABEL] = json!(ordinal.to_string());
    metadata["labels"][REVISION_LABEL] = json!(revision.name());
    body["spec"]["hostname"] = json!(name);
    if let Some(service) = observed.spec.service_name.as_ref().filter(|service| !service.is_empty()) {
        body["spec"]["subdomain"] = json!(service);
    }
    mount_claims(observed, ordinal, &mut body["spec"]);
    let collection = target_of::<Pod>(&observed.object.meta().namespace);
    Action::Create { target: collection, body, announce: Some(observed.reference()) }
}

/// Volumes of the claim templates come in place of the pod template's volumes of the same name.
fn mount_claims(observed: &Observed, ordinal: i32, spec: &mut Value) {
    let names: Vec<String> = claims::templates(observed).map(|(name, _)| name.to_owned()).collect();
    if names.is_empty() {
        return;
    }
    let own = spec["volumes"].as_array().cloned().unwrap_or_default();
    let kept = own.into_iter().filter(|volume| !names.iter().any(|name| volume["name"] == **name));
    let claimed = names.iter().map(|name| {
        let claim = claims::claim_name(observed, name, ordinal);
        json!({"name": name, "persistentVolumeClaim": {"claimName": claim}})
    });
    spec["volumes"] = claimed.chain(kept).collect();
}
