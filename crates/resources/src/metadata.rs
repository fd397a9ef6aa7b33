//! `metadata`, the same for every kind: what it may say and what an update may not change.

use machinery::FieldError;
use machinery::selector::validate_label_key;
use serde_json::Value;

use crate::check::{Errors, IMMUTABLE};
use crate::value::{Access, is_zero};

const ANNOTATIONS_MAX: usize = 256 * 1024;

/// Checks the metadata of a new or changed object. `check_name` is the strategy's `validate_name`.
pub fn validate(
    object: &Value,
    is_namespaced: bool,
    check_name: &dyn Fn(&str) -> Result<(), String>,
) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let metadata = object.at("/metadata");
    names(&mut errors, metadata, check_name);
    match (is_namespaced, metadata.text("/namespace")) {
        (true, "") => errors.required("metadata.namespace", ""),
        (true, namespace) => errors.format("metadata.namespace", namespace, crate::names::dns_label),
        (false, "") => {}
        (false, _) => errors.forbidden("metadata.namespace", "not allowed on this type"),
    }
    errors.at_least("metadata.generation", metadata.int("/generation"), 0);
    errors.labels("metadata.labels", metadata.at("/labels"));
    annotations(&mut errors, "metadata.annotations", metadata.at("/annotations"));
    owners(&mut errors, metadata.items("/ownerReferences"));
    finalizers(&mut errors, metadata.items("/finalizers"));
    errors.into_vec()
}

fn names(errors: &mut Errors, metadata: &Value, check_name: &dyn Fn(&str) -> Result<(), String>) {
    let (name, prefix) = (metadata.text("/name"), metadata.text("/generateName"));
    if !prefix.is_empty() {
        // A prefix may end with a hyphen, because more follows.
        let whole = prefix.strip_suffix('-').map_or(prefix.to_owned(), |start| format!("{start}a"));
        if let Err(detail) = check_name(&whole) {
            errors.invalid("metadata.generateName", prefix, detail);
        }
    }
    if name.is_empty() {
        errors.required("metadata.name", "name or generateName is required");
    } else if let Err(detail) = check_name(name) {
        errors.invalid("metadata.name", name, detail);
    }
}

/// Checks annotations anywhere: keys, and the size of them all.
pub fn annotations(errors: &mut Errors, path: &str, annotations: &Value) {
    let mut size = 0;
    for (key, value) in annotations.members("") {
        if let Err(detail) = validate_label_key(&key.to_lowercase()) {
            errors.invalid(path, key, detail);
        }
        size += key.len() + value.as_str().unwrap_or_default().len();
    }
    if size > ANNOTATIONS_MAX {
        errors.push(FieldError::too_long(path, ANNOTATIONS_MAX));
    }
}

fn owners(errors: &mut Errors, owners: &[Value]) {
    let mut controller: Option<&str> = None;
    for (index, owner) in owners.iter().enumerate() {
        let path = format!("metadata.ownerReferences[{index}]");
        if owner.text("/apiVersion").is_empty() {
            errors.invalid(format!("{path}.apiVersion"), "", "version must not be empty");
        }
        for field in ["kind", "name", "uid"] {
            if owner.text(&format!("/{field}")).is_empty() {
                errors.invalid(format!("{path}.{field}"), "", "must not be empty");
            }
        }
        if !owner.flag("/controller") {
            continue;
        }
        let name = owner.text("/name");
        match controller {
            None => controller = Some(name),
            Some(first) => {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                );
                errors.invalid("metadata.ownerReferences", owners, detail);
            }
        }
    }
}

fn finalizers(errors: &mut Errors, finalizers: &[Value]) {
    let names: Vec<_> = finalizers.iter().filter_map(Value::as_str).collect();
    for (index, name) in names.iter().enumerate() {
        if let Err(detail) = validate_label_key(name) {
            errors.invalid(format!("metadata.finalizers[{index}]"), name, detail);
        }
    }
    if names.contains(&"orphan") && names.contains(&"foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.invalid("metadata.finalizers", &names, detail);
    }
}

/// Checks what an update may not change. What the caller left out was carried over before.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let (new, old) = (new.at("/metadata"), old.at("/metadata"));
    for field in
        ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
    {
        let pointer = format!("/{field}");
        let (new, old) = (new.at(&pointer), old.at(&pointer));
        if new != old && !(is_zero(new) && is_zero(old)) {
            errors.invalid(format!("metadata.{field}"), new, IMMUTABLE);
        }
    }
    if new.int("/generation").unwrap_or(0) < old.int("/generation").unwrap_or(0) {
        errors.invalid("metadata.generation", new.at("/generation"), "must not be decremented");
    }
    if old.has("/deletionTimestamp") {
        let known = old.items("/finalizers");
        let added: Vec<_> =
            new.items("/finalizers").iter().filter(|f| !known.contains(f)).map(ToString::to_string).collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            errors.forbidden("metadata.finalizers", &detail);
        }
    }
    errors.into_vec()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    fn check(metadata: Value, expected: Expect) {
        let errors = validate(&json!({"metadata": metadata}), true, &crate::names::dns_subdomain);
        expected.assert_eq(&errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn metadata_is_checked() {
        check(json!({"name": "a", "namespace": "b", "labels": {"a/b": "c"}}), expect![""]);
        check(json!({"generateName": "a-", "name": "a-x", "namespace": "b"}), expect![""]);
        check(
            json!({}),
            expect![[r#"
            metadata.name: Required value: name or generateName is required
            metadata.namespace: Required value"#]],
        );
        check(
            json!({"name": "a", "namespace": "b", "finalizers": ["orphan", "foregroundDeletion"],
                "ownerReferences": [{"kind": "A", "name": "a", "uid": "1"}]}),
            expect![[r#"
                metadata.ownerReferences[0].apiVersion: Invalid value: "": version must not be empty
                metadata.finalizers: Invalid value: ["orphan","foregroundDeletion"]: finalizer orphan and foregroundDeletion cannot be both set"#]],
        );
        check(
            json!({"name": "a", "namespace": "b", "annotations": {"a": "x".repeat(ANNOTATIONS_MAX)}}),
            expect!["metadata.annotations: Too long: may not be more than 262144 bytes"],
        );
    }

    #[test]
    fn updates_keep_identity() {
        let old =
            json!({"metadata": {"name": "a", "uid": "1", "deletionTimestamp": "t", "finalizers": ["x/y"]}});
        let mut new = old.clone();
        assert!(validate_update(&new, &old).is_empty());
        new["metadata"]["uid"] = json!("2");
        new["metadata"]["finalizers"] = json!(["x/z"]);
        let texts: Vec<_> = validate_update(&new, &old).iter().map(ToString::to_string).collect();
        expect![[r#"
            metadata.uid: Invalid value: "2": field is immutable
            metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{"x/z"}"#]]
        .assert_eq(&texts.join("\n"));
    }
}
