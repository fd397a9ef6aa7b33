//! Pods made from templates.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use machinery::ObjectMeta;
use serde_json::{Value, json};

/// The body of a pod made from a template and managed by the owner of `reference`.
pub fn pod(owner: &ObjectMeta, template: Option<&PodTemplateSpec>, reference: Value) -> Value {
    from_json(owner, &serde_json::to_value(template).unwrap_or_default(), reference)
}

/// The same from the template's JSON form.
pub fn from_json(owner: &ObjectMeta, template: &Value, reference: Value) -> Value {
    let mut metadata = json!({
        "generateName": format!("{}-", owner.name),
        "namespace": owner.namespace,
        "ownerReferences": [reference],
    });
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template.pointer(&format!("/metadata/{field}")) {
            metadata[field] = value.clone();
        }
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
}
