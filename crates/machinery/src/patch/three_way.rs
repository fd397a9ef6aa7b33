//! The merges behind client-side apply: what the user changed since the last time, applied to what is live.

use serde_json::{Map, Value};

use super::strategic::{element_node, field_node, strategic};
use crate::Status;
use crate::schema::{Node, Schema};

/// The strategic merge patch that takes `current` to `modified`, and deletes what `original` had and `modified` has not.
pub fn three_way_strategic(
    schema: &Schema,
    node: &Node,
    original: &Value,
    modified: &Value,
    current: &Value,
) -> Result<Value, Status> {
    let mut patch = Map::new();
    additions(schema, node, current, modified, &mut patch);
    deletions(schema, node, original, modified, &mut patch);
    retain_keys(schema, node, modified, &mut patch);
    let patch = Value::Object(patch);
    strategic(schema, node, current, &patch)?;
    Ok(patch)
}

/// The RFC 7386 patch with the same meaning, for kinds without a schema.
pub fn three_way_merge(original: &Value, modified: &Value, current: &Value) -> Value {
    let mut patch = merge_additions(current, modified);
    remove_missing(original, modified, &mut patch);
    Value::Object(patch)
}

/// What differs or is missing in `current`; nothing is deleted.
fn additions(
    schema: &Schema,
    node: &Node,
    current: &Value,
    modified: &Value,
    patch: &mut Map<String, Value>,
) {
    let Value::Object(modified) = modified else { return };
    for (field, wanted) in modified {
        let child = field_node(schema, node, field);
        let present = &current[field];
        if present == wanted {
            continue;
        }
        match (wanted, present) {
            (Value::Object(_), Value::Object(_)) => {
                let mut inner = Map::new();
                additions(schema, child, present, wanted, &mut inner);
                if !inner.is_empty() {
                    patch.insert(field.clone(), Value::Object(inner));
                }
            }
            (Value::Array(wanted), Value::Array(present)) if child.patch_merge => {
                list_additions(schema, child, field, present, wanted, patch);
            }
            _ => {
                patch.insert(field.clone(), wanted.clone());
            }
        }
    }
}

fn list_additions(
    schema: &Schema,
    node: &Node,
    field: &str,
    present: &[Value],
    wanted: &[Value],
    patch: &mut Map<String, Value>,
) {
    let Some(key) = &node.patch_merge_key else {
        let new: Vec<_> = wanted.iter().filter(|item| !present.contains(item)).cloned().collect();
        if !new.is_empty() {
            patch.insert(field.to_owned(), Value::Array(new));
        }
        return;
    };
    let element = element_node(schema, node);
    let mut items = Vec::new();
    for item in wanted {
        match present.iter().find(|other| other[&**key] == item[&**key]) {
            Some(other) => {
                let mut inner = Map::new();
                additions(schema, element, other, item, &mut inner);
                if !inner.is_empty() {
                    inner.insert(key.to_string(), item[&**key].clone());
                    items.push(Value::Object(inner));
                }
            }
            None => items.push(item.clone()),
        }
    }
    if items.is_empty() {
        return;
    }
    let order = |item: &Value| Value::Object(Map::from_iter([(key.to_string(), item[&**key].clone())]));
    patch.insert(format!("$setElementOrder/{field}"), wanted.iter().map(order).collect());
    patch.insert(field.to_owned(), Value::Array(items));
}

/// What the user had written before and does not write any more.
fn deletions(
    schema: &Schema,
    node: &Node,
    original: &Value,
    modified: &Value,
    patch: &mut Map<String, Value>,
) {
    let Value::Object(original) = original else { return };
    for (field, had) in original {
        let child = field_node(schema, node, field);
        match (had, modified.get(field)) {
            (_, None) => {
                patch.insert(field.clone(), Value::Null);
            }
            (Value::Object(_), Some(wanted @ Value::Object(_))) => {
                let mut inner = take_object(patch, field);
                deletions(schema, child, had, wanted, &mut inner);
                if !inner.is_empty() {
                    patch.insert(field.clone(), Value::Object(inner));
                }
            }
            (Value::Array(had), Some(Value::Array(wanted))) if child.patch_merge => {
                list_deletions(schema, child, field, had, wanted, patch);
            }
            _ => {}
        }
    }
}

/// Unions are told which of their members to keep: what the server defaulted for another member must go.
fn retain_keys(schema: &Schema, node: &Node, modified: &Value, patch: &mut Map<String, Value>) {
    for (field, change) in patch.iter_mut() {
        let child = field_node(schema, node, field);
        match (change, &modified[field]) {
            (Value::Object(change), wanted @ Value::Object(_)) => {
                retain_keys_of(schema, child, child.patch_retain_keys, wanted, change);
            }
            (Value::Array(items), Value::Array(wanted)) if child.patch_merge => {
                let Some(key) = &child.patch_merge_key else { continue };
                let element = element_node(schema, child);
                for item in items.iter_mut().filter_map(Value::as_object_mut) {
                    let found = wanted.iter().find(|wanted| wanted.get(&**key) == item.get(&**key));
                    if let (Some(wanted), None) = (found, item.get("$patch")) {
                        retain_keys_of(schema, element, child.patch_retain_keys, wanted, item);
                    }
                }
            }
            _ => {}
        }
    }
}

fn retain_keys_of(
    schema: &Schema,
    node: &Node,
    is_union: bool,
    wanted: &Value,
    change: &mut Map<String, Value>,
) {
    retain_keys(schema, node, wanted, change);
    if is_union && let Value::Object(wanted) = wanted {
        let kept = wanted.iter().filter(|(_, value)| !value.is_null());
        change.insert("$retainKeys".to_owned(), kept.map(|(field, _)| Value::from(field.as_str())).collect());
    }
}

fn take_object(patch: &mut Map<String, Value>, field: &str) -> Map<String, Value> {
    match patch.remove(field) {
        Some(Value::Object(inner)) => inner,
        _ => Map::new(),
    }
}

fn list_deletions(
    schema: &Schema,
    node: &Node,
    field: &str,
    had: &[Value],
    wanted: &[Value],
    patch: &mut Map<String, Value>,
) {
    let Some(key) = &node.patch_merge_key else {
        let gone: Vec<_> = had.iter().filter(|item| !wanted.contains(item)).cloned().collect();
        if !gone.is_empty() {
            patch.insert(format!("$deleteFromPrimitiveList/{field}"), Value::Array(gone));
        }
        return;
    };
    let element = element_node(schema, node);
    let mut items = match patch.remove(field) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    };
    for item in had {
        let identity = &item[&**key];
        let Some(kept) = wanted.iter().find(|other| &other[&**key] == identity) else {
            items.push(serde_json::json!({"$patch": "delete", &**key: identity}));
            continue;
        };
        let at = items.iter().position(|other| &other[&**key] == identity);
        let mut inner = match at.map(|at| items[at].take()) {
            Some(Value::Object(inner)) => inner,
            _ => Map::new(),
        };
        deletions(schema, element, item, kept, &mut inner);
        if inner.is_empty() {
            continue;
        }
        inner.insert(key.to_string(), identity.clone());
        match at {
            Some(at) => items[at] = Value::Object(inner),
            None => items.push(Value::Object(inner)),
        }
    }
    if !items.is_empty() {
        patch.insert(field.to_owned(), Value::Array(items));
    }
}

/// The fields of an RFC 7386 patch that takes `from` to `to` without deleting anything.
fn merge_additions(from: &Value, to: &Value) -> Map<String, Value> {
    let mut patch = Map::new();
    for (field, wanted) in to.as_object().into_iter().flatten() {
        match (wanted, &from[field]) {
            (wanted, present) if wanted == present => {}
            (Value::Object(_), present @ Value::Object(_)) => {
                patch.insert(field.clone(), Value::Object(merge_additions(present, wanted)));
            }
            _ => {
                patch.insert(field.clone(), wanted.clone());
            }
        }
    }
    patch
}

fn remove_missing(original: &Value, modified: &Value, patch: &mut Map<String, Value>) {
    for (field, had) in original.as_object().into_iter().flatten() {
        match modified.get(field) {
            None => {
                patch.insert(field.clone(), Value::Null);
            }
            Some(wanted @ Value::Object(_)) if had.is_object() => {
                let mut inner = take_object(patch, field);
                remove_missing(had, wanted, &mut inner);
                if !inner.is_empty() {
                    patch.insert(field.clone(), Value::Object(inner));
                }
            }
            Some(_) => {}
        }
    }
}
