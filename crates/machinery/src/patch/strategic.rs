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
    for (field, value) in patch.iter().filter(|(field, _)| !field.starts_with('$')) {
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
            *present = reorder(child, list.clone(), &list, order);
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
            let merged = merge_lists(schema, node, present.clone(), patch)?;
            Ok(Value::Array(match order {
                Some(order) if node.patch_merge => reorder(node, merged, &present, order),
                _ => merged,
            }))
        }
        scalar => Ok(scalar.clone()),
    }
}

/// Only free-form values (`RawExtension`) are replaced whole; structs and maps merge.
fn replaces_struct(schema: &Schema, node: &Node) -> bool {
    matches!(schema.resolve(node), Shape::Any) && matches!(node.shape, Shape::Ref(_))
}

fn merge_lists(
    schema: &Schema,
    node: &Node,
    present: Vec<Value>,
    patch: &[Value],
) -> Result<Vec<Value>, Status> {
    if !node.patch_merge {
        return Ok(patch.iter().filter(|item| !is_directive(item)).map(clean).collect());
    }
    match &node.patch_merge_key {
        Some(key) => merge_keyed(schema, node, key, present, patch),
        None => {
            let mut merged = present;
            let new: Vec<_> = patch.iter().filter(|item| !merged.contains(item)).cloned().collect();
            merged.extend(new);
            Ok(merged)
        }
    }
}

fn merge_keyed(
    schema: &Schema,
    node: &Node,
    key: &str,
    mut present: Vec<Value>,
    patch: &[Value],
) -> Result<Vec<Value>, Status> {
    let whole = |item: &&Value| is_directive(item) && item[DIRECTIVE] == "replace" && item.get(key).is_none();
    if patch.iter().any(|item| whole(&item)) {
        return Ok(patch.iter().filter(|item| !is_directive(item)).map(clean).collect());
    }
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

fn is_directive(item: &Value) -> bool {
    item.get(DIRECTIVE).is_some()
}

fn clean(item: &Value) -> Value {
    match item {
        Value::Object(fields) => Value::Object(without_directives(fields)),
        other => other.clone(),
    }
}

fn without_directives(patch: &Object) -> Object {
    let plain = patch.iter().filter(|(field, value)| !field.starts_with('$') && !value.is_null());
    plain.map(|(field, value)| (field.clone(), clean(value))).collect()
}

fn delete_primitives(original: &mut Object, field: &str, gone: &Value) {
    if let (Some(Value::Array(present)), Value::Array(gone)) = (original.get_mut(field), gone) {
        present.retain(|item| !gone.contains(item));
    }
}

/// Puts the elements that `order` names into its order; the others (which only the server has) keep their place
/// relative to what stood before them.
fn reorder(node: &Node, merged: Vec<Value>, before: &[Value], order: &Value) -> Vec<Value> {
    let Value::Array(order) = order else { return merged };
    let identity = |item: &Value| match &node.patch_merge_key {
        Some(key) => item.get(&**key).cloned().unwrap_or_default(),
        None => item.clone(),
    };
    let rank = |item: &Value| order.iter().position(|wanted| identity(wanted) == identity(item));
    let (mut named, others): (Vec<_>, Vec<_>) = merged.into_iter().partition(|item| rank(item).is_some());
    named.sort_by_key(|item| rank(item));
    let place = |item: &Value| before.iter().position(|other| identity(other) == identity(item));
    for other in others {
        // Before the first named element that used to stand behind it.
        let at = named.iter().position(|item| match (place(item), place(&other)) {
            (Some(item), Some(other)) => item > other,
            _ => false,
        });
        named.insert(at.unwrap_or(named.len()), other);
    }
    named
}
