//! Templates and their revisions: which replica set is the present one, and what a new one is called.

use client::{Patch, Target, target_of};
use k8s_openapi::api::apps::v1::ReplicaSet;
use reconcile::Action;
use reconcile::plan::named;
use serde_json::{Value, json};

use super::{Observed, Set};
use crate::shared::{names, owners};

pub const REVISION: &str = "deployment.kubernetes.io/revision";
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const HASH_LABEL: &str = "pod-template-hash";

/// The present set (the oldest with the deployment's template) and the past ones, oldest first.
pub fn split(observed: &Observed) -> (Option<Set>, Vec<Set>) {
    let mut sets = observed.sets.clone();
    sets.sort_by(|a, b| (created(a), a.name()).cmp(&(created(b), b.name())));
    let wanted = template(observed);
    let present = sets.iter().position(|set| set_template(set) == wanted);
    let present = present.map(|index| sets.remove(index));
    (present, sets)
}

fn created(set: &Set) -> Option<jiff::Timestamp> {
    set.view.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// The deployment's template as JSON.
pub fn template(observed: &Observed) -> Value {
    let spec = observed.view.spec.as_ref();
    serde_json::to_value(spec.map(|spec| &spec.template)).unwrap_or_default()
}

fn set_template(set: &Set) -> Value {
    let spec = set.view.spec.as_ref();
    let mut template = serde_json::to_value(spec.map(|spec| &spec.template)).unwrap_or_default();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(HASH_LABEL);
    }
    template
}

pub fn revision(set: &Set) -> i64 {
    set.annotation(REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The revision that the present template has or gets.
pub fn next_revision(present: Option<&Set>, past: &[Set]) -> i64 {
    let newest_past = past.iter().map(revision).max().unwrap_or(0);
    present.map_or(0, revision).max(newest_past + 1)
}

/// Creates the set of a new template.
pub fn create(observed: &Observed, replicas: i32, revision: i64) -> Action {
    let deployment = observed.object.meta();
    let template = template(observed);
    let hash = names::hash(&template, collisions(observed));
    let spec = observed.view.spec.as_ref();
    let mut selector = serde_json::to_value(spec.map(|spec| &spec.selector)).unwrap_or_default();
    selector["matchLabels"][HASH_LABEL] = json!(hash);
    let mut template = template;
    template["metadata"]["labels"][HASH_LABEL] = json!(hash);
    let mut annotations = inherited(observed);
    annotate(&mut annotations, observed, revision);
    let body = json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": format!("{}-{hash}", deployment.name),
            "namespace": deployment.namespace,
            "labels": template["metadata"]["labels"],
            "annotations": annotations,
            "ownerReferences": [owners::controller_reference("apps/v1", "Deployment", deployment)],
        },
        "spec": {
            "replicas": replicas,
            "minReadySeconds": spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0),
            "selector": selector,
            "template": template,
        },
    });
    Action::Create { target: target_of::<ReplicaSet>(&deployment.namespace), body, announce: None }
}

/// Brings the annotations of the present set up to date, if they are not.
pub fn refresh(observed: &Observed, present: &Set, revision: i64) -> Option<Action> {
    let mut wanted = inherited(observed);
    annotate(&mut wanted, observed, revision);
    if self::revision(present) != revision
        && let Some(old) = present.annotation(REVISION)
    {
        let history = present.annotation(HISTORY).map(|history| format!("{history},{old}"));
        wanted[HISTORY] = json!(history.unwrap_or_else(|| old.to_owned()));
    }
    let min_ready = observed.view.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let has_min_ready = present.view.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let stale = wanted.as_object()?.iter().any(|(name, value)| present.annotation(name) != value.as_str());
    (stale || min_ready != has_min_ready).then(|| {
        let body = json!({"metadata": {"annotations": wanted}, "spec": {"minReadySeconds": min_ready}});
        patch(present, body)
    })
}

/// Sets the replicas of a set together with the annotations that proportional scaling reads.
pub fn resize(observed: &Observed, set: &Set, replicas: i32) -> Action {
    let mut annotations = json!({});
    annotations[DESIRED] = json!(observed.replicas().to_string());
    annotations[MAX] = json!((observed.replicas() + observed.max_surge()).to_string());
    patch(set, json!({"metadata": {"annotations": annotations}, "spec": {"replicas": replicas}}))
}

/// Writes the present revision on the deployment itself, where `kubectl rollout` looks for it. By way of the status, so
/// that the generation stays: users change an annotation to be answered with a new generation.
pub fn stamp(observed: &Observed, revision: i64) -> Option<Action> {
    let annotations = observed.view.metadata.annotations.as_ref();
    let stamped = annotations.and_then(|all| all.get(REVISION));
    (stamped != Some(&revision.to_string())).then(|| {
        let target = client::target_of::<k8s_openapi::api::apps::v1::Deployment>("");
        let target = Target { subresource: "status".to_owned(), ..named(target, &observed.object) };
        let mut body = json!({"metadata": {"annotations": {}}});
        body["metadata"]["annotations"][REVISION] = json!(revision.to_string());
        Action::Patch { target, patch: Patch::Merge(body) }
    })
}

fn patch(set: &Set, body: Value) -> Action {
    Action::Patch { target: named(target_of::<ReplicaSet>(""), &set.object), patch: Patch::Merge(body) }
}

/// The deployment's annotations but for those that have a meaning of their own.
fn inherited(observed: &Observed) -> Value {
    let annotations = observed.view.metadata.annotations.clone().unwrap_or_default();
    let own = [LAST_APPLIED, REVISION, HISTORY, DESIRED, MAX, "deprecated.deployment.rollback.to"];
    annotations
        .into_iter()
        .filter(|(name, _)| !own.contains(&name.as_str()))
        .map(|(k, v)| (k, json!(v)))
        .collect()
}

fn annotate(annotations: &mut Value, observed: &Observed, revision: i64) {
    annotations[REVISION] = json!(revision.to_string());
    annotations[DESIRED] = json!(observed.replicas().to_string());
    annotations[MAX] = json!((observed.replicas() + observed.max_surge()).to_string());
}

pub fn collisions(observed: &Observed) -> i32 {
    observed.view.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0)
}
