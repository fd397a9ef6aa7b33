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

/// What an update need not repeat is carried over from the old state. Who sends other identities or times is told by
/// `resources::metadata`.
pub fn carry_over(new: &mut Value, old: &Value) {
    /// The pipeline's own.
    const ALWAYS: [&str; 4] = ["generation", "name", "namespace", "resourceVersion"];
    const WHEN_ABSENT: [&str; 3] = ["uid", "creationTimestamp", "generateName"];
    /// A deletion can neither be taken back nor put off by an update.
    const WHEN_SET: [&str; 2] = ["deletionTimestamp", "deletionGracePeriodSeconds"];
    let empty = Map::new();
    let from = old.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    let to = metadata(new);
    to.remove("selfLink");
    let is_absent =
        |value: Option<&Value>| value.is_none_or(|value| value.is_null() || value.as_str() == Some(""));
    let absent = WHEN_ABSENT.iter().filter(|field| is_absent(to.get(**field)));
    let set = WHEN_SET.iter().filter(|field| !is_absent(from.get(**field)));
    let carried: Vec<_> = ALWAYS.iter().chain(absent).chain(set).collect();
    for field in carried {
        match from.get(*field) {
            Some(value) => to.insert((*field).to_owned(), value.clone()),
            None => to.remove(*field),
        };
    }
    // The same moment may be written in other ways.
    for field in ["creationTimestamp", "deletionTimestamp"] {
        if let Some(value) = from.get(field)
            && to.get(field).is_some_and(|own| is_same_moment(own, value))
        {
            to.insert(field.to_owned(), value.clone());
        }
    }
}

fn is_same_moment(a: &Value, b: &Value) -> bool {
    let moment = |value: &Value| value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    moment(a).is_some_and(|a| Some(a) == moment(b))
}

/// A list of texts in `metadata`.
pub fn list_of_texts(value: &Value, field: &str) -> Vec<String> {
    let list = value.get("metadata").and_then(|metadata| metadata.get(field)).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_need_not_repeat_what_is_the_systems() {
        let old = json!({"metadata": {"name": "a", "uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z",
            "generation": 3, "resourceVersion": "7"}});
        let check = |metadata: Value, expected: Value| {
            let mut new = json!({"metadata": metadata});
            carry_over(&mut new, &old);
            for (field, value) in expected.as_object().unwrap() {
                assert_eq!(&new["metadata"][field], value, "{metadata} {field}");
            }
        };
        check(json!({}), old["metadata"].clone());
        check(json!({"name": "a", "generation": 9, "resourceVersion": "1"}), old["metadata"].clone());
        check(json!({"creationTimestamp": "2026-01-01T01:00:00+01:00"}), old["metadata"].clone());
        // What is another identity or time stays, so that it can be refused.
        check(json!({"uid": "2"}), json!({"uid": "2"}));
        let other =
            json!({"creationTimestamp": "2027-01-01T00:00:00Z", "deletionTimestamp": "2027-01-01T00:00:00Z"});
        check(other.clone(), other);
    }

    #[test]
    fn a_deletion_is_not_taken_back() {
        let old = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0}});
        let mut new = json!({"metadata": {"deletionGracePeriodSeconds": 30}});
        carry_over(&mut new, &old);
        assert_eq!(new, old);
    }
}
