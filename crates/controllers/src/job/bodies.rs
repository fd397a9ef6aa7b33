//! The pods of a job.

use client::target_of;
use k8s_openapi::api::core::v1::Pod;
use reconcile::Action;
use serde_json::{Value, json};

use super::failure_policy::{self, Verdict};
use super::{INDEX, INDEX_FAILURES, INDEX_IGNORED_FAILURES, Observed, TRACKING, backoff};
use crate::shared::template;

/// The environment variable that tells a container its index.
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// A generated name keeps room for its suffix.
const PREFIX_MAX: usize = 58;

/// Creates a pod; of an index in an indexed job, after `failed` if that index failed before.
pub fn create(observed: &Observed, index: Option<i32>, failed: Option<&Pod>) -> Action {
    let meta = observed.object.meta();
    let template = &observed.object.value()["spec"]["template"];
    let mut body = template::from_json(meta, template, observed.owner_reference());
    let mut finalizers = body["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    finalizers.push(json!(TRACKING));
    body["metadata"]["finalizers"] = Value::Array(finalizers);
    if let Some(index) = index {
        number(observed, &mut body, index);
        if observed.retries_per_index().is_some() {
            count_failures(observed, &mut body["metadata"]["annotations"], failed);
        }
    }
    Action::Create { target: target_of::<Pod>(&meta.namespace), body, announce: Some(observed.reference()) }
}

fn number(observed: &Observed, body: &mut Value, index: i32) {
    let name = &observed.object.meta().name;
    let suffix = format!("-{index}-");
    let stem: String = name.chars().take(PREFIX_MAX - suffix.len()).collect();
    let metadata = &mut body["metadata"];
    metadata["generateName"] = json!(format!("{stem}{suffix}"));
    metadata["annotations"][INDEX] = json!(index.to_string());
    metadata["labels"][INDEX] = json!(index.to_string());
    let spec = &mut body["spec"];
    spec["hostname"] = json!(format!("{name}-{index}"));
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            tell(container);
        }
    }
}

fn tell(container: &mut Value) {
    let mut variables = container["env"].as_array().cloned().unwrap_or_default();
    if !variables.iter().any(|variable| variable["name"] == INDEX_VARIABLE) {
        let path = format!("metadata.labels['{INDEX}']");
        let source = json!({"fieldRef": {"fieldPath": path}});
        variables.push(json!({"name": INDEX_VARIABLE, "valueFrom": source}));
        container["env"] = Value::Array(variables);
    }
}

/// A new pod inherits how often its index failed.
fn count_failures(observed: &Observed, annotations: &mut Value, failed: Option<&Pod>) {
    let (mut counted, mut ignored) =
        failed.map_or((0, 0), |pod| (backoff::index_failures(pod), backoff::ignored_failures(pod)));
    if let Some(pod) = failed {
        match failure_policy::judge(observed.spec.pod_failure_policy.as_ref(), pod) {
            Verdict::Ignore => ignored += 1,
            _ => counted += 1,
        }
    }
    annotations[INDEX_FAILURES] = json!(counted.to_string());
    if ignored > 0 {
        annotations[INDEX_IGNORED_FAILURES] = json!(ignored.to_string());
    }
}
