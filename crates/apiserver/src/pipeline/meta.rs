//! `metadata`: what the system sets, what users cannot change, what is checked. Pure.

use env::jiff::Timestamp;
use machinery::{FieldError, Status};
use resources::Resource;
use serde_json::{Map, Value, json};

const ANNOTATIONS_MAX: usize = 256 * 1024;
/// The longest generated part before the random suffix, so that the name fits a label.
const GENERATE_BASE_MAX: usize = 58;

/// A time as the API writes it: seconds, UTC.
pub fn time(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `metadata` as a map that can be changed; created when absent.
pub fn metadata(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    if !value["metadata"].is_object() {
        value["metadata"] = Value::Object(Map::new());
    }
    value["metadata"].as_object_mut().expect("it was made an object just now")
}

/// A text field of `metadata`; empty when absent.
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get("metadata").and_then(|metadata| metadata.get(field)).and_then(Value::as_str).unwrap_or_default()
}

/// The namespace of the request becomes the object's; another one is refused.
pub fn match_namespace(row: &Resource, value: &mut Value, namespace: &str) -> Result<(), Status> {
    let given = text(value, "namespace").to_owned();
    if !row.is_namespaced() {
        metadata(value).remove("namespace");
        return Ok(());
    }
    if !given.is_empty() && given != namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    metadata(value).insert("namespace".to_owned(), json!(namespace));
    Ok(())
}

/// The name of the URL becomes the object's; another one is refused.
pub fn match_name(value: &mut Value, name: &str) -> Result<(), Status> {
    let given = text(value, "name").to_owned();
    if !given.is_empty() && given != name {
        return Err(Status::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    metadata(value).insert("name".to_owned(), json!(name));
    Ok(())
}

/// What the system sets on create.
pub fn fill_system_fields(value: &mut Value, uid: String, now: Timestamp) {
    let metadata = metadata(value);
    for field in
        ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"]
    {
        metadata.remove(field);
    }
    metadata.insert("uid".to_owned(), json!(uid));
    metadata.insert("creationTimestamp".to_owned(), json!(time(now)));
}

/// A name from `generateName` and a random suffix.
pub fn generated(base: &str, suffix: &str) -> String {
    let base: String = base.chars().take(GENERATE_BASE_MAX).collect();
    format!("{base}{suffix}")
}

/// What no update can change is carried over from the old state.
pub fn carry_over(new: &mut Value, old: &Value) {
    const CARRIED: [&str; 8] = [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "name",
        "namespace",
        "resourceVersion",
    ];
    let empty = Map::new();
    let from = old.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    let to = metadata(new);
    to.remove("selfLink");
    for field in CARRIED {
        match from.get(field) {
            Some(value) => to.insert(field.to_owned(), value.clone()),
            None => to.remove(field),
        };
    }
    if !to.contains_key("generateName") {
        if let Some(base) = from.get("generateName") {
            to.insert("generateName".to_owned(), base.clone());
        }
    }
}

/// Upstream's `ValidateObjectMeta`.
pub fn validate(row: &Resource, value: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let name = text(value, "name");
    if name.is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else if let Err(reason) = row.strategy.validate_name(name) {
        errors.push(FieldError::invalid("metadata.name", name, reason));
    }
    if row.is_namespaced() && text(value, "namespace").is_empty() {
        errors.push(FieldError::required("metadata.namespace", ""));
    }
    let metadata = value.get("metadata");
    labels(metadata, &mut errors);
    annotations(metadata, &mut errors);
    owners(metadata, &mut errors);
    finalizers(metadata, &mut errors);
    errors
}

/// Upstream's `ValidateObjectMetaUpdate`, as far as [`carry_over`] leaves anything to check.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    if text(old, "deletionTimestamp").is_empty() {
        return Vec::new();
    }
    let before = list_of_texts(old, "finalizers");
    let added: Vec<_> = list_of_texts(new, "finalizers")
        .into_iter()
        .filter(|finalizer| !before.contains(finalizer))
        .collect();
    if added.is_empty() {
        return Vec::new();
    }
    let detail = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        added.iter().map(|finalizer| format!("{finalizer:?}")).collect::<Vec<_>>().join(", ")
    );
    vec![FieldError::forbidden("metadata.finalizers", &detail)]
}

/// A list of texts in `metadata`.
pub fn list_of_texts(value: &Value, field: &str) -> Vec<String> {
    let list = value.get("metadata").and_then(|metadata| metadata.get(field)).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn labels(metadata: Option<&Value>, errors: &mut Vec<FieldError>) {
    let Some(labels) = metadata.and_then(|metadata| metadata.get("labels")).and_then(Value::as_object) else {
        return;
    };
    for (key, value) in labels {
        if let Err(reason) = machinery::selector::validate_label_key(key) {
            errors.push(FieldError::invalid("metadata.labels", key, reason));
        }
        let value = value.as_str().unwrap_or_default();
        if let Err(reason) = machinery::selector::validate_label_value(value) {
            errors.push(FieldError::invalid("metadata.labels", value, reason));
        }
    }
}

fn annotations(metadata: Option<&Value>, errors: &mut Vec<FieldError>) {
    let annotations = metadata.and_then(|metadata| metadata.get("annotations")).and_then(Value::as_object);
    let Some(annotations) = annotations else { return };
    let mut size = 0;
    for (key, value) in annotations {
        size += key.len() + value.as_str().map_or(0, str::len);
        if let Err(reason) = machinery::selector::validate_label_key(&key.to_lowercase()) {
            errors.push(FieldError::invalid("metadata.annotations", key, reason));
        }
    }
    if size > ANNOTATIONS_MAX {
        errors.push(FieldError::too_long("metadata.annotations", ANNOTATIONS_MAX));
    }
}

fn owners(metadata: Option<&Value>, errors: &mut Vec<FieldError>) {
    let owners = metadata.and_then(|metadata| metadata.get("ownerReferences")).and_then(Value::as_array);
    let mut controllers = 0;
    for (index, owner) in owners.into_iter().flatten().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner.get(field).and_then(Value::as_str).unwrap_or_default().is_empty() {
                let path = format!("metadata.ownerReferences[{index}].{field}");
                errors.push(FieldError::invalid(path, "", "must not be empty"));
            }
        }
        controllers += usize::from(owner.get("controller").and_then(Value::as_bool).unwrap_or(false));
    }
    if controllers > 1 {
        let detail = "Only one reference can have Controller set to true";
        errors.push(FieldError::invalid("metadata.ownerReferences", "", detail));
    }
}

fn finalizers(metadata: Option<&Value>, errors: &mut Vec<FieldError>) {
    let finalizers = metadata.and_then(|metadata| metadata.get("finalizers")).and_then(Value::as_array);
    let texts: Vec<_> = finalizers.into_iter().flatten().filter_map(Value::as_str).collect();
    if texts.contains(&"orphan") && texts.contains(&"foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid("metadata.finalizers", texts, detail));
        return;
    }
    for (index, text) in texts.iter().enumerate() {
        if let Err(reason) = machinery::selector::validate_label_key(text) {
            errors.push(FieldError::invalid(format!("metadata.finalizers[{index}]"), text, reason));
        }
    }
}
