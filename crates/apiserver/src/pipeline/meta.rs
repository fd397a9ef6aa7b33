//! `metadata`: what the system sets, what users cannot change, what is checked. Pure.

use env::jiff::Timestamp;
use machinery::Status;
use resources::Resource;
use serde_json::{Map, Value, json};

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

/// A list of texts in `metadata`.
pub fn list_of_texts(value: &Value, field: &str) -> Vec<String> {
    let list = value.get("metadata").and_then(|metadata| metadata.get(field)).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
