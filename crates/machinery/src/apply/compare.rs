//! The fields of a value, and how two values differ.

use serde_json::{Map, Value};

use super::{FieldSet, PathElement};
use crate::decode::zero_of;
use crate::patch::strategic::{element_node, field_node};
use crate::schema::{ListType, Node, Schema, Shape, Zero};

/// How server-side apply sees a value.
pub enum Granularity {
    /// One unit.
    Atomic,
    /// A struct (named fields) or, with `open`, a map whose entries are fields of their own.
    Fields,
    /// A list whose elements are told apart by keys.
    Keyed,
    /// A list whose elements are their own identity.
    Set,
}

/// The granularity of a value of the type.
pub fn granularity(schema: &Schema, node: &Node, value: &Value) -> Granularity {
    if schema.is_atomic(node) {
        return Granularity::Atomic;
    }
    match (schema.resolve(node), value) {
        (Shape::Struct(_) | Shape::Map(_), Value::Object(_)) => Granularity::Fields,
        // Free-form objects are deduced: objects by field, lists whole.
        (Shape::Any, Value::Object(_)) if node.preserve_unknown => Granularity::Fields,
        (Shape::List(_), Value::Array(_)) => match node.list_type {
            ListType::Atomic => Granularity::Atomic,
            ListType::Set => Granularity::Set,
            ListType::Map => Granularity::Keyed,
        },
        _ => Granularity::Atomic,
    }
}

/// Whether a field is declared by the type; entries of maps are not.
fn is_declared(schema: &Schema, node: &Node, field: &str) -> bool {
    matches!(schema.resolve(node), Shape::Struct(object) if object.fields.contains_key(field))
}

/// What identifies an element of a list.
pub fn identity(schema: &Schema, node: &Node, item: &Value) -> Option<PathElement> {
    match node.list_type {
        ListType::Set => Some(PathElement::Value(item.to_string())),
        ListType::Map => {
            let element = element_node(schema, node);
            let mut key = Map::new();
            for name in &node.map_keys {
                let value = item.get(&**name).cloned();
                let value = value.or_else(|| field_node(schema, element, name).default.clone());
                if let Some(value) = value {
                    key.insert(name.to_string(), value);
                }
            }
            (!key.is_empty()).then(|| PathElement::Key(Value::Object(key).to_string()))
        }
        ListType::Atomic => None,
    }
}

/// All fields of a value. The path that leads to it is a member when the value is a unit.
pub fn fields(schema: &Schema, node: &Node, value: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    match (granularity(schema, node, value), value) {
        (Granularity::Fields, Value::Object(object)) => {
            for (name, child) in object {
                set.insert(PathElement::Field(name.clone()), field(schema, node, name, child));
            }
        }
        (Granularity::Keyed | Granularity::Set, Value::Array(items)) => {
            for item in items {
                if let Some(element) = identity(schema, node, item) {
                    let mut child = fields(schema, element_node(schema, node), item);
                    child.member = true;
                    set.insert(element, child);
                }
            }
        }
        _ => set.member = true,
    }
    set
}

/// The fields of a struct's field or map's entry: entries and empty objects are members themselves.
fn field(schema: &Schema, node: &Node, name: &str, value: &Value) -> FieldSet {
    let mut set = fields(schema, field_node(schema, node, name), value);
    let is_empty_object = value.as_object().is_some_and(Map::is_empty);
    set.member |= value.is_null() || is_empty_object || !is_declared(schema, node, name);
    set
}

/// How one value became another.
#[derive(Clone, Debug, Default)]
pub struct Difference {
    /// Added, or of another value.
    pub changed: FieldSet,
    pub removed: FieldSet,
}

impl Difference {
    fn insert(&mut self, element: PathElement, child: Self) {
        self.changed.insert(element.clone(), child.changed);
        self.removed.insert(element, child.removed);
    }
}

/// Compares two values of one type.
pub fn difference(schema: &Schema, node: &Node, old: &Value, new: &Value) -> Difference {
    let mut difference = Difference::default();
    if old == new {
        return difference;
    }
    match (granularity(schema, node, old), granularity(schema, node, new), old, new) {
        (Granularity::Fields, Granularity::Fields, Value::Object(old), Value::Object(new)) => {
            for (name, new_value) in new {
                let child = match old.get(name) {
                    Some(old_value) => difference_of_field(schema, node, name, old_value, new_value),
                    None => Difference {
                        changed: added(schema, field_node(schema, node, name), new_value),
                        ..Difference::default()
                    },
                };
                difference.insert(PathElement::Field(name.clone()), child);
            }
            for (name, value) in old.iter().filter(|(name, _)| !new.contains_key(*name)) {
                let removed = whole(schema, field_node(schema, node, name), value);
                difference.insert(
                    PathElement::Field(name.clone()),
                    Difference { removed, ..Difference::default() },
                );
            }
        }
        (Granularity::Keyed, Granularity::Keyed, Value::Array(old), Value::Array(new))
        | (Granularity::Set, Granularity::Set, Value::Array(old), Value::Array(new)) => {
            compare_lists(schema, node, old, new, &mut difference);
        }
        _ => {
            difference.changed = fields(schema, node, new);
            difference.removed = fields(schema, node, old);
            difference.removed.subtract(&difference.changed.clone());
        }
    }
    difference
}

/// All fields of a value that came or went as a whole: what holds them came or went too.
fn whole(schema: &Schema, node: &Node, value: &Value) -> FieldSet {
    fn hold(set: &mut FieldSet) {
        set.member = true;
        set.children.values_mut().for_each(hold);
    }
    let mut set = fields(schema, node, value);
    hold(&mut set);
    set
}

/// What a field adds that was absent. Of fields that Go always writes the zero value was there before.
fn added(schema: &Schema, node: &Node, value: &Value) -> FieldSet {
    if node.zero != Zero::Written || schema.is_atomic(node) {
        return whole(schema, node, value);
    }
    let zero = match value {
        Value::Object(_) => Value::Object(Map::new()),
        Value::Array(_) => Value::Array(Vec::new()),
        _ => zero_of(schema, node).unwrap_or_default(),
    };
    difference(schema, node, &zero, value).changed
}

fn difference_of_field(schema: &Schema, node: &Node, name: &str, old: &Value, new: &Value) -> Difference {
    let mut child = difference(schema, field_node(schema, node, name), old, new);
    // An object that became empty (or stopped being so) is itself the field that changed.
    let empty = |value: &Value| value.as_object().is_some_and(Map::is_empty);
    child.changed.member |= empty(new) && !empty(old);
    child
}

fn compare_lists(schema: &Schema, node: &Node, old: &[Value], new: &[Value], difference: &mut Difference) {
    let element = element_node(schema, node);
    let identified = |item| Some((identity(schema, node, item)?, item));
    let old: Vec<(PathElement, &Value)> = old.iter().filter_map(identified).collect();
    let new: Vec<(PathElement, &Value)> = new.iter().filter_map(identified).collect();
    for (id, item) in &new {
        let child = match old.iter().find(|(other, _)| other == id) {
            Some((_, before)) if matches!(node.list_type, ListType::Map) => {
                self::difference(schema, element, before, item)
            }
            Some(_) => Difference::default(),
            None => Difference { changed: whole(schema, element, item), ..Difference::default() },
        };
        difference.insert(id.clone(), child);
    }
    for (id, item) in old.iter().filter(|(id, _)| !new.iter().any(|(other, _)| other == id)) {
        difference.insert(
            id.clone(),
            Difference { removed: whole(schema, element, item), ..Difference::default() },
        );
    }
}
