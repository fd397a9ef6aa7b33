//! Lays an intent over the live object, and takes out what its manager no longer wants.

use serde_json::{Map, Value};

use super::compare::{Granularity, granularity, identity};
use super::{FieldSet, PathElement};
use crate::patch::strategic::{element_node, field_node};
use crate::schema::{Node, Schema};

/// The live value with the intent's fields.
pub fn merge(schema: &Schema, node: &Node, live: &Value, intent: &Value) -> Value {
    match (granularity(schema, node, live), granularity(schema, node, intent), live, intent) {
        (Granularity::Fields, Granularity::Fields, Value::Object(live), Value::Object(intent)) => {
            let mut merged = live.clone();
            for (name, value) in intent {
                let child = field_node(schema, node, name);
                let value =
                    live.get(name).map_or_else(|| value.clone(), |old| merge(schema, child, old, value));
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Granularity::Keyed | Granularity::Set, Granularity::Keyed | Granularity::Set, live, intent) => {
            merge_lists(schema, node, live, intent)
        }
        _ => intent.clone(),
    }
}

/// The intent's elements in its order; elements that only the live object has stay before what followed them there.
fn merge_lists(schema: &Schema, node: &Node, live: &Value, intent: &Value) -> Value {
    let element = element_node(schema, node);
    let identified = |list: &Value| -> Vec<(Option<PathElement>, Value)> {
        let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().map(|item| (identity(schema, node, item), item.clone())).collect()
    };
    let live = identified(live);
    let place = |id: &Option<PathElement>| live.iter().position(|(other, _)| other == id);
    let mut merged: Vec<(Option<PathElement>, Value)> = Vec::new();
    for (id, item) in identified(intent) {
        let item = place(&id).map_or_else(|| item.clone(), |at| merge(schema, element, &live[at].1, &item));
        merged.push((id, item));
    }
    let wanted = merged.len();
    for (at, (id, item)) in live.iter().enumerate() {
        if merged.iter().any(|(other, _)| other == id) {
            continue;
        }
        let next = merged.iter().position(|(other, _)| place(other).is_some_and(|place| place > at));
        let end = merged.len();
        merged.insert(if wanted == 0 { end } else { next.unwrap_or(end) }, (id.clone(), item.clone()));
    }
    Value::Array(merged.into_iter().map(|(_, item)| item).collect())
}

/// Removes what is in `last` and neither in `now` nor in `others`.
pub fn prune(
    schema: &Schema,
    node: &Node,
    value: &mut Value,
    last: &FieldSet,
    now: Option<&FieldSet>,
    others: Option<&FieldSet>,
) {
    for (element, child) in &last.children {
        let (now, others) = (sub(now, element), sub(others, element));
        if now.is_none() && others.is_none() {
            remove(schema, node, value, element);
            continue;
        }
        if let Some((child_node, child_value)) = step(schema, node, value, element) {
            prune(schema, child_node, child_value, child, now, others);
        }
    }
}

fn sub<'a>(set: Option<&'a FieldSet>, element: &PathElement) -> Option<&'a FieldSet> {
    set.and_then(|set| set.children.get(element))
}

fn step<'a, 'v>(
    schema: &'a Schema,
    node: &'a Node,
    value: &'v mut Value,
    element: &PathElement,
) -> Option<(&'a Node, &'v mut Value)> {
    match (element, value) {
        (PathElement::Field(name), Value::Object(object)) => {
            Some((field_node(schema, node, name), object.get_mut(name)?))
        }
        (PathElement::Key(_) | PathElement::Value(_), Value::Array(items)) => {
            let found =
                items.iter_mut().find(|item| identity(schema, node, item).as_ref() == Some(element))?;
            Some((element_node(schema, node), found))
        }
        _ => None,
    }
}

fn remove(schema: &Schema, node: &Node, value: &mut Value, element: &PathElement) {
    match (element, value) {
        (PathElement::Field(name), Value::Object(object)) => {
            object.remove(name);
        }
        (PathElement::Key(_) | PathElement::Value(_), Value::Array(items)) => {
            items.retain(|item| identity(schema, node, item).as_ref() != Some(element));
        }
        _ => {}
    }
}

/// What no manager can own: identity, and what the system sets.
pub fn strip(set: &mut FieldSet) {
    let field = |name: &str| PathElement::Field(name.to_owned());
    for name in ["apiVersion", "kind"] {
        set.children.remove(&field(name));
    }
    let Some(metadata) = set.children.get_mut(&field("metadata")) else { return };
    metadata.member = false;
    for name in [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        metadata.children.remove(&field(name));
    }
    if metadata.is_empty() {
        set.children.remove(&field("metadata"));
    }
}

/// An object without its `managedFields`.
pub fn without_managed_fields(object: &Value) -> Value {
    let mut copy = object.clone();
    if let Some(metadata) = copy.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    copy
}

/// A value that stands for an object that does not exist.
pub fn nothing() -> Value {
    Value::Object(Map::new())
}
