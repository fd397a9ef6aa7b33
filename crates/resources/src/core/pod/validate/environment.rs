//! Environment variables and where they come from.

use serde_json::Value;

use crate::check::Errors;
use crate::names;
use crate::value::Access;

const SOURCES: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// The fields of a pod that a downward volume can show.
pub const VOLUME_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const CONTAINER_RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// `env` and `envFrom` of a container.
pub fn all(errors: &mut Errors, path: &str, container: &Value) {
    for (index, variable) in container.items("/env").iter().enumerate() {
        let path = format!("{path}.env[{index}]");
        errors.name(&format!("{path}.name"), variable.text("/name"), names::environment_name);
        if variable.has("/valueFrom") {
            source(errors, &format!("{path}.valueFrom"), variable);
        }
    }
    for (index, from) in container.items("/envFrom").iter().enumerate() {
        let path = format!("{path}.envFrom[{index}]");
        errors.format(&format!("{path}.prefix"), from.text("/prefix"), names::environment_name);
        let given: Vec<_> =
            ["configMapRef", "secretRef"].into_iter().filter(|kind| from.has(&format!("/{kind}"))).collect();
        match given.as_slice() {
            [] => errors.invalid(&path, "", "must specify one of: `configMapRef` or `secretRef`"),
            [kind] => errors.name(
                &format!("{path}.{kind}.name"),
                from.text(&format!("/{kind}/name")),
                names::dns_subdomain,
            ),
            _ => errors.invalid(&path, "", "may not have more than one field specified at a time"),
        }
    }
}

fn source(errors: &mut Errors, path: &str, variable: &Value) {
    let from = variable.at("/valueFrom");
    let given: Vec<_> = SOURCES.into_iter().filter(|kind| from.has(&format!("/{kind}"))).collect();
    match given.as_slice() {
        [] => errors.invalid(
            path,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ),
        _ if !variable.text("/value").is_empty() => {
            errors.invalid(path, "", "may not be specified when `value` is not empty");
        }
        [kind] => one_source(errors, &format!("{path}.{kind}"), kind, from.at(&format!("/{kind}"))),
        _ => errors.invalid(path, "", "may not have more than one field specified at a time"),
    }
}

fn one_source(errors: &mut Errors, path: &str, kind: &str, source: &Value) {
    match kind {
        "fieldRef" => field_reference(errors, path, source, &FIELDS),
        "resourceFieldRef" => resource_reference(errors, path, source),
        "fileKeyRef" => {
            errors.name(&format!("{path}.key"), source.text("/key"), names::environment_name);
            errors.name(&format!("{path}.volumeName"), source.text("/volumeName"), names::dns_label);
        }
        _ => {
            errors.name(&format!("{path}.name"), source.text("/name"), names::dns_subdomain);
            errors.name(&format!("{path}.key"), source.text("/key"), names::config_key);
        }
    }
}

/// A reference to a field of the pod: one of `supported`, or one annotation or label.
pub fn field_reference(errors: &mut Errors, path: &str, reference: &Value, supported: &[&str]) {
    let field = reference.text("/fieldPath");
    if reference.text("/apiVersion").is_empty() {
        errors.required(format!("{path}.apiVersion"), "");
    }
    let path = format!("{path}.fieldPath");
    if field.is_empty() {
        errors.required(path, "");
        return;
    }
    match subscript(field) {
        Some(("metadata.annotations" | "metadata.labels", key)) => {
            if let Err(detail) = machinery::selector::validate_label_key(&key.to_lowercase()) {
                errors.invalid(path, field, detail);
            }
        }
        Some(_) => errors.invalid(path, field, "does not support subscript"),
        None => errors.one_of(&path, field, supported),
    }
}

/// `metadata.labels['a']` in its parts.
fn subscript(field: &str) -> Option<(&str, &str)> {
    field.strip_suffix("']")?.split_once("['")
}

/// A reference to a container's requests or limits.
pub fn resource_reference(errors: &mut Errors, path: &str, reference: &Value) {
    let resource = reference.text("/resource");
    let is_huge =
        ["limits.hugepages-", "requests.hugepages-"].iter().any(|prefix| resource.starts_with(prefix));
    let path = format!("{path}.resource");
    match resource {
        "" => errors.required(path, ""),
        _ if is_huge => {}
        resource => errors.one_of(&path, resource, &CONTAINER_RESOURCES),
    }
}
