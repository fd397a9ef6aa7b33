//! `bindings` and `pods/binding`: puts a pod on a node, once.

use std::sync::Arc;

use async_trait::async_trait;
use client::{Target, WriteOptions};
use machinery::{FieldError, Object, Status};
use serde_json::{Value, json};

use super::{Computation, created, text};
use crate::core::Core;
use crate::pipeline::{Call, meta};

pub(super) struct Binding;

#[async_trait]
impl Computation for Binding {
    async fn compute(
        &self,
        core: &Arc<Core>,
        call: &Call,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        let name = match call.target.name.as_str() {
            "" => text(&body, "/metadata/name").to_owned(),
            name => name.to_owned(),
        };
        validate(&name, &body)?;
        let target = Target {
            version: "v1".to_owned(),
            resource: "pods".to_owned(),
            namespace: call.target.namespace.clone(),
            name: name.clone(),
            ..Target::default()
        };
        let pod = core.call_within(&call.caller, "update", target)?;
        let now = meta::time(core.env.now());
        core.rewrite(&pod, options.dry_run, &|old, pod| bound(old, pod, &body, &now)).await?;
        Ok(created())
    }
}

fn validate(name: &str, body: &Value) -> Result<(), Status> {
    let mut errors = Vec::new();
    let kind = text(body, "/target/kind");
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported("target.kind", kind, &["Node", ""]));
    }
    if text(body, "/target/name").is_empty() {
        errors.push(FieldError::required("target.name", ""));
    }
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid("", "Binding", name, &errors)) }
}

/// The pod on its node, or why it cannot be.
fn bound(old: &Object, mut pod: Value, binding: &Value, now: &str) -> Result<Value, Status> {
    let name = old.meta().name.as_str();
    let conflict = |detail: String| Err(Status::conflict("", "pods/binding", name, &detail));
    let uid = text(binding, "/metadata/uid");
    if !uid.is_empty() && uid != old.meta().uid {
        let own = &old.meta().uid;
        return conflict(format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {own}"
        ));
    }
    if old.meta().deletion_timestamp.is_some() {
        return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = text(&pod, "/spec/nodeName");
    if !node.is_empty() {
        return conflict(format!("pod {name} is already assigned to node {node:?}"));
    }
    if pod.pointer("/spec/schedulingGates").and_then(Value::as_array).is_some_and(|gates| !gates.is_empty()) {
        return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    pod["spec"]["nodeName"] = json!(text(binding, "/target/name"));
    for field in ["annotations", "labels"] {
        for (key, value) in binding["metadata"][field].as_object().into_iter().flatten() {
            pod["metadata"][field][key] = value.clone();
        }
    }
    set_scheduled(&mut pod, now);
    Ok(pod)
}

fn set_scheduled(pod: &mut Value, now: &str) {
    let mut condition =
        json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    if let Some(generation) = pod.pointer("/metadata/generation") {
        condition["observedGeneration"] = generation.clone();
    }
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let mut conditions: Vec<Value> =
        conditions.into_iter().filter(|condition| condition["type"] != "PodScheduled").collect();
    conditions.push(condition);
    pod["status"]["conditions"] = Value::Array(conditions);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_bound_once() {
        let pod = |spec: Value| {
            Object::from_value(&json!({"metadata": {"name": "web", "uid": "u"}, "spec": spec}), 5).unwrap()
        };
        let binding =
            json!({"target": {"kind": "Node", "name": "n1"}, "metadata": {"annotations": {"a": "b"}}});
        let bind = |spec: Value| {
            let pod = pod(spec);
            bound(&pod, pod.value(), &binding, "now")
        };
        let bound_pod = bind(json!({})).unwrap();
        assert_eq!(bound_pod["spec"]["nodeName"], "n1");
        assert_eq!(bound_pod["metadata"]["annotations"]["a"], "b");
        assert_eq!(bound_pod["status"]["conditions"][0]["status"], "True");
        let refused = bind(json!({"nodeName": "n2"})).unwrap_err();
        assert_eq!(
            refused.message,
            "Operation cannot be fulfilled on pods/binding \"web\": pod web is already assigned to node \"n2\""
        );
        assert!(bind(json!({"schedulingGates": [{"name": "g"}]})).unwrap_err().is_conflict());
    }
}
