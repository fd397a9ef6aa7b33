//! Objects for tests of plans, and plans as short text.

use std::sync::Arc;

use client::{Patch, Target, typed};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use machinery::Object;
use reconcile::{Action, Plan};
use serde_json::{Value, json};

use super::claim::ObservedPod;

/// The time of all tests: 1000 s after the beginning.
pub fn now() -> Timestamp {
    Timestamp::from_second(1000).unwrap()
}

/// A time so many seconds before [`now`].
pub fn ago(seconds: i64) -> String {
    super::status::time(Timestamp::from_second(1000 - seconds).unwrap())
}

pub fn object(value: &Value) -> Arc<Object> {
    Arc::new(Object::from_value(value, 7).unwrap())
}

/// A pod in namespace `n` of the owner with the uid `owner` (none if empty).
pub fn pod(name: &str, owner: &str, labels: Value, spec: Value, status: Value) -> ObservedPod {
    let mut metadata = json!({"name": name, "namespace": "n", "uid": format!("uid-{name}"), "labels": labels,
        "creationTimestamp": ago(500)});
    if !owner.is_empty() {
        let reference =
            json!({"apiVersion": "v1", "kind": "K", "name": "o", "uid": owner, "controller": true});
        metadata["ownerReferences"] = json!([reference]);
    }
    let mut spec = spec;
    if spec["containers"].is_null() {
        spec["containers"] = json!([]);
    }
    read(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}))
}

/// Changes a pod's JSON form.
pub fn with(pod: &ObservedPod, change: impl FnOnce(&mut Value)) -> ObservedPod {
    let mut value = pod.0.value();
    change(&mut value);
    read(value)
}

pub fn read(value: Value) -> ObservedPod {
    let object = object(&value);
    let view = typed::<Pod>(&object).unwrap();
    (object, view)
}

/// The status of a pod that runs and is ready since 100 s.
pub fn ready() -> Value {
    json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": ago(100)}]})
}

pub fn phase(phase: &str) -> Value {
    json!({"phase": phase})
}

/// A plan as lines, e.g. `create pods web-0`; the status last.
pub fn describe(plan: &Plan) -> String {
    let mut lines: Vec<String> = plan.actions.iter().map(line).collect();
    lines.extend(plan.status.iter().map(line));
    lines.extend(plan.next.map(|next| format!("again in {} s", next.as_secs())));
    lines.join("\n")
}

/// The actions alone.
pub fn describe_actions(plan: &Plan) -> String {
    plan.actions.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The status that a plan writes.
pub fn status_of(plan: &Plan) -> Value {
    match &plan.status {
        Some(Action::Patch { patch: Patch::Merge(body), .. }) => body["status"].clone(),
        Some(Action::Update { body, .. }) => body["status"].clone(),
        _ => Value::Null,
    }
}

fn line(action: &Action) -> String {
    let path = |target: &Target| match target.subresource.as_str() {
        "" => target.resource.clone(),
        sub => format!("{}/{sub}", target.resource),
    };
    match action {
        Action::Create { target, body, .. } => {
            let name = body["metadata"]["name"].as_str().or(body["metadata"]["generateName"].as_str());
            format!("create {} {}", path(target), name.unwrap_or(&target.name))
        }
        Action::Update { target, body } => {
            format!("update {} {}: {}", path(target), target.name, body["status"])
        }
        Action::Patch { target, patch } => {
            let (Patch::Merge(body) | Patch::StrategicMerge(body) | Patch::Json(body)) = patch else {
                return format!("apply {} {}", path(target), target.name);
            };
            format!("patch {} {}: {body}", path(target), target.name)
        }
        Action::Delete { target, .. } => format!("delete {} {}", path(target), target.name),
        Action::Event(event) => format!("event {}: {}", event.reason, event.message),
    }
}
