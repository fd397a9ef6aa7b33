//! The judgement: which pods to adopt, release, create, remove, and what to say in the status.

use std::sync::Arc;
use std::time::Duration;

use client::{Patch, target_of};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use machinery::selector::labels;
use machinery::{Object, Status};
use reconcile::plan::named_key;
use reconcile::{Action, Plan};
use serde_json::{Value, json};

use super::Owner;
use crate::shared::claim::{Claim, ObservedPod};
use crate::shared::status::is_new;
use crate::shared::{owners, pods, template};

/// At most this many pods are created or removed in one go (`BurstReplicas` upstream).
const BURST: usize = 500;

/// What to do for an owner, given the pods that it manages or could adopt. `failure` is why the last plan could not
/// be carried out; it shows up as the `ReplicaFailure` condition.
pub fn plan(owner: &Owner, observed: &[ObservedPod], failure: Option<&Status>, now: Timestamp) -> Plan {
    let deleting = owner.meta.deletion_timestamp.is_some();
    let claim = Claim {
        owner: &owner.meta,
        selector: &owner.selector,
        collection: target_of::<Pod>(""),
        reference: reference(owner),
    };
    let (ours, mut actions) = claim.pods(observed, |_| true);
    let ours: Vec<(&Arc<Object>, &Arc<Pod>)> = ours.iter().map(|(object, pod)| (object, pod)).collect();
    let mut active: Vec<_> = ours.iter().copied().filter(|(_, pod)| pods::is_active(pod)).collect();
    if !deleting {
        actions.extend(scale(owner, &mut active));
    }
    let terminating =
        ours.iter().filter(|(_, pod)| pods::is_deleting(pod) && !pods::is_finished(pod)).count();
    let (status, next) = status(owner, &active, terminating, failure, now);
    Plan { actions, status, next }
}

fn reference(owner: &Owner) -> Value {
    owners::controller_reference(owner.api_version, owner.kind, &owner.meta)
}

fn scale(owner: &Owner, active: &mut [(&Arc<Object>, &Arc<Pod>)]) -> Vec<Action> {
    let wanted = usize::try_from(owner.replicas).unwrap_or(0);
    let collection = target_of::<Pod>(&owner.meta.namespace);
    if active.len() <= wanted {
        let missing = (wanted - active.len()).min(BURST);
        let body = template::pod(&owner.meta, owner.template.as_ref(), reference(owner));
        let create = Action::Create { target: collection, body, announce: Some(owner.reference.clone()) };
        return vec![create; missing];
    }
    active.sort_by(|(_, a), (_, b)| pods::removal_order(a, b));
    let surplus = (active.len() - wanted).min(BURST);
    let remove = |(object, _): &(&Arc<Object>, _)| {
        Action::delete(collection.clone(), object, None).announced(owner.reference.clone())
    };
    active[..surplus].iter().map(remove).collect()
}

fn status(
    owner: &Owner,
    active: &[(&Arc<Object>, &Arc<Pod>)],
    terminating: usize,
    failure: Option<&Status>,
    now: Timestamp,
) -> (Option<Action>, Option<Duration>) {
    let template_labels =
        owner.template.as_ref().and_then(|template| template.metadata.as_ref()?.labels.as_ref());
    let labeled = |object: &Object| {
        template_labels.is_none_or(|labels| labels::includes(&object.meta().labels, labels))
    };
    let waits: Vec<SignedDuration> = active
        .iter()
        .filter_map(|(_, pod)| pods::until_available(pod, owner.min_ready_seconds, now))
        .collect();
    let mut status = json!({
        "replicas": active.len(),
        "fullyLabeledReplicas": active.iter().filter(|(object, _)| labeled(object)).count(),
        "readyReplicas": waits.len(),
        "availableReplicas": waits.iter().filter(|wait| wait.is_zero()).count(),
        "observedGeneration": owner.meta.generation,
        "conditions": conditions(owner, active.len(), failure, now),
    });
    if owner.kind == "ReplicaSet" {
        status["terminatingReplicas"] = json!(terminating);
    }
    let next = waits.iter().filter(|wait| !wait.is_zero()).min().map(|wait| wait.unsigned_abs());
    if !is_new(&status, &owner.status) {
        return (None, next);
    }
    let mut target = named_key(owner.target.clone(), &owner.meta.namespace, &owner.meta.name);
    target.subresource = "status".to_owned();
    (Some(Action::Patch { target, patch: Patch::Merge(json!({"status": status})) }), next)
}

/// `ReplicaFailure` while pods cannot be created or removed; other people's conditions stay.
fn conditions(owner: &Owner, active: usize, failure: Option<&Status>, now: Timestamp) -> Value {
    let stored = owner.status.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let is_failure = |condition: &Value| condition["type"] == "ReplicaFailure";
    let reached = usize::try_from(owner.replicas).is_ok_and(|wanted| wanted == active);
    let mut conditions = stored;
    match failure {
        None if reached => conditions.retain(|condition| !is_failure(condition)),
        None => {}
        Some(_) if conditions.iter().any(is_failure) => {}
        Some(failure) => {
            let too_many = usize::try_from(owner.replicas).is_ok_and(|wanted| wanted < active);
            conditions.push(json!({
                "type": "ReplicaFailure",
                "status": "True",
                "reason": if too_many { "FailedDelete" } else { "FailedCreate" },
                "message": failure.to_string(),
                "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            }));
        }
    }
    Value::Array(conditions)
}
