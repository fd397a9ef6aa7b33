//! Strategic merge patch: lists merge by their keys where the schema says so.
//!
//! Source: `k8s.io/apimachinery/pkg/util/strategicpatch` and the API convention document. Directives: `$patch`
//! (`replace`, `merge`, `delete`), `$retainKeys`, `$deleteFromPrimitiveList/FIELD`, `$setElementOrder/FIELD`.

use serde_json::{Map, Value};

use crate::Status;
use crate::schema::{Node, Schema, Shape};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

/// Whether a field of a patch is an instruction, not data.
fn is_instruction(field: &str) -> bool {
    field == DIRECTIVE
        || field == RETAIN_KEYS
        || field.starts_with(DELETE_FROM)
        || field.starts_with(ELEMENT_ORDER)
}

/// The schema of what stands nowhere in the schema.
static UNKNOWN: std::sync::LazyLock<Node> = std::sync::LazyLock::new(Node::default);

/// Applies `patch` to `original`, both of the type that `node` describes.
pub fn strategic(schema: &Schema, node: &Node, original: &Value, patch: &Value) -> Result<Value, Status> {
    let Value::Object(patch) = patch else {
        return Err(Status::bad_request("the patch is not an object"));
    };
    let original = original.as_object().cloned().unwrap_or_default();
    Ok(Value::Object(merge_maps(schema, node, original, patch)?))
}

type Object = Map<String, Value>;

/// The schema of a field of a struct or map.
pub fn field_node<'a>(schema: &'a Schema, node: &'a Node, field: &str) -> &'a Node {
    match schema.resolve(node) {
        Shape::Struct(object) => object.fields.get(field).unwrap_or(&UNKNOWN),
        Shape::Map(values) => values,
        _ => &UNKNOWN,
    }
}

/// The schema of a list's elements.
pub fn element_node<'a>(schema: &'a Schema, node: &'a Node) -> &'a Node {
    match schema.resolve(node) {
        Shape::List(items) => items,
        _ => &UNKNOWN,
    }
}

fn merge_maps(schema: &Schema, node: &Node, mut original: Object, patch: &Object) -> Result<Object, Status> {
    match patch.get(DIRECTIVE).map(|directive| directive.as_str().unwrap_or_default()) {
        Some("replace") => return Ok(without_directives(patch)),
        Some("delete") => return Ok(Object::new()),
        Some("merge") | None => {}
        Some(other) => return Err(Status::bad_request(format!("Unknown patch type found: {other}"))),
    }
    if let Some(kept) = patch.get(RETAIN_KEYS) {
        let kept = kept.as_array().ok_or_else(|| Status::bad_request("$retainKeys must be a list"))?;
        original.retain(|field, _| kept.iter().any(|name| name == field));
    }
    for (name, list) in patch {
        if let Some(field) = name.strip_prefix(DELETE_FROM) {
            delete_primitives(&mut original, field, list);
        }
    }
    for (field, value) in patch.iter().filter(|(field, _)| !is_instruction(field)) {
        let child = field_node(schema, node, field);
        match (value, original.remove(field)) {
            (Value::Null, _) => {}
            (value, present) => {
                let order = patch.get(&format!("{ELEMENT_ORDER}{field}"));
                original.insert(field.clone(), merge_value(schema, child, present, value, order)?);
            }
        }
    }
    order_untouched_lists(schema, node, &mut original, patch)?;
    Ok(original)
}

/// `$setElementOrder` also rearranges a list of which the patch changes no element.
fn order_untouched_lists(
    schema: &Schema,
    node: &Node,
    original: &mut Object,
    patch: &Object,
) -> Result<(), Status> {
    for (name, order) in patch {
        let Some(field) = name.strip_prefix(ELEMENT_ORDER) else { continue };
        if patch.contains_key(field) {
            continue;
        }
        let child = field_node(schema, node, field);
        if let Some(Value::Array(present)) = original.get_mut(field) {
            let list = std::mem::take(present);
            *present = match order {
                Value::Array(order) => reorder(child, list.clone(), &list, order),
                _ => list,
            };
        }
    }
    Ok(())
}

fn merge_value(
    schema: &Schema,
    node: &Node,
    present: Option<Value>,
    patch: &Value,
    order: Option<&Value>,
) -> Result<Value, Status> {
    match patch {
        Value::Object(patch) => {
            let present = match present {
                Some(Value::Object(present)) if !replaces_struct(schema, node) => present,
                _ => Object::new(),
            };
            Ok(Value::Object(merge_maps(schema, node, present, patch)?))
        }
        Value::Array(patch) => {
            let present = match present {
                Some(Value::Array(present)) => present,
                _ => Vec::new(),
            };
            if !node.patch_merge || patch.iter().any(|item| replaces_list(node, item)) {
                return Ok(plain_items(patch));
            }
            let merged = merge_lists(schema, node, present.clone(), patch)?;
            let order = order.and_then(Value::as_array).unwrap_or(patch);
            Ok(Value::Array(reorder(node, merged, &present, order)))
        }
        scalar => Ok(scalar.clone()),
    }
}

/// Only free-form values (`RawExtension`) are replaced whole; structs and maps merge.
fn replaces_struct(schema: &Schema, node: &Node) -> bool {
    matches!(schema.resolve(node), Shape::Any) && matches!(node.shape, Shape::Ref(_))
}

/// Whether an item of a patch says that the list is replaced whole.
fn replaces_list(node: &Node, item: &Value) -> bool {
    let keyed = node.patch_merge_key.as_deref().is_some_and(|key| item.get(key).is_some());
    !keyed && item.get(DIRECTIVE).is_some_and(|directive| directive == "replace")
}

fn plain_items(patch: &[Value]) -> Value {
    patch.iter().filter(|item| item.get(DIRECTIVE).is_none()).map(clean).collect()
}

fn merge_lists(
    schema: &Schema,
    node: &Node,
    mut present: Vec<Value>,
    patch: &[Value],
) -> Result<Vec<Value>, Status> {
    let Some(key) = &node.patch_merge_key else {
        for item in patch {
            if !present.contains(item) {
                present.push(item.clone());
            }
        }
        return Ok(present);
    };
    merge_keyed(schema, node, key, present, patch)
}

fn merge_keyed(
    schema: &Schema,
    node: &Node,
    key: &str,
    mut present: Vec<Value>,
    patch: &[Value],
) -> Result<Vec<Value>, Status> {
    let element = element_node(schema, node);
    for item in patch {
        let Value::Object(fields) = item else {
            return Err(Status::bad_request("a list of objects can only be patched with objects"));
        };
        let identity = fields.get(key).ok_or_else(|| {
            Status::bad_request(format!("map: {item} does not contain declared merge key: {key}"))
        })?;
        let found = present.iter().position(|other| other.get(key) == Some(identity));
        match (fields.get(DIRECTIVE).and_then(Value::as_str), found) {
            (Some("delete"), _) => present.retain(|other| other.get(key) != Some(identity)),
            (Some("replace"), Some(at)) => present[at] = clean(item),
            (_, Some(at)) => {
                let old = present[at].as_object().cloned().unwrap_or_default();
                present[at] = Value::Object(merge_maps(schema, element, old, fields)?);
            }
            (_, None) => present.push(Value::Object(merge_maps(schema, element, Object::new(), fields)?)),
        }
    }
    Ok(present)
}

fn clean(item: &Value) -> Value {
    match item {
        Value::Object(fields) => Value::Object(without_directives(fields)),
        other => other.clone(),
    }
}

fn without_directives(patch: &Object) -> Object {
    let plain = patch.iter().filter(|(field, value)| !is_instruction(field) && !value.is_null());
    plain.map(|(field, value)| (field.clone(), clean(value))).collect()
}

fn delete_primitives(original: &mut Object, field: &str, gone: &Value) {
    if let (Some(Value::Array(present)), Value::Array(gone)) = (original.get_mut(field), gone) {
        present.retain(|item| !gone.contains(item));
    }
}

/// Puts the elements that `order` names into its order. The others, which only the server has, go before an element
/// that followed them there, and after one that did not or is new.
fn reorder(node: &Node, merged: Vec<Value>, before: &[Value], order: &[Value]) -> Vec<Value> {
    let is_same = |a: &Value, b: &Value| match &node.patch_merge_key {
        Some(key) => a.get(&**key).is_some() && a.get(&**key) == b.get(&**key),
        None => a == b,
    };
    let place = |list: &[Value], item: &Value| list.iter().position(|other| is_same(other, item));
    let (named, others): (Vec<_>, Vec<_>) =
        merged.into_iter().map(|item| (place(order, &item), item)).partition(|(rank, _)| rank.is_some());
    let sorted = |mut items: Vec<(Option<usize>, Value)>| {
        items.sort_by_key(|(rank, _)| *rank);
        items.into_iter().map(|(_, item)| item)
    };
    let named = sorted(named);
    let others: Vec<_> = others.into_iter().map(|(_, item)| (place(before, &item), item)).collect();
    let mut others = sorted(others).peekable();
    let mut result = Vec::new();
    for item in named {
        let at = place(before, &item);
        let stood_before =
            |other: &Value| matches!((place(before, other), at), (Some(other), Some(at)) if other < at);
        while let Some(other) = others.next_if(stood_before) {
            result.push(other);
        }
        result.push(item);
    }
    result.extend(others);
    result
}
