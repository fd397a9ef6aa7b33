//! Completing an object: what absent fields become.

use serde_json::{Map, Value};

use crate::schema::{Node, Schema, Shape, Struct, Zero};

/// Gives absent fields the defaults that the schema declares (`protocol: TCP`), and those that Go always writes their
/// zero value (`readyReplicas: 0`, `resources: {}`), so that an object is the same whether it came as JSON or as protobuf.
pub fn complete_fields(schema: &Schema, node: &Node, value: &mut Value) {
    Filler { schema }.fill(node, value);
}

/// The zero value of a field; lists and maps have none, as Go would write `null`.
pub(crate) fn zero_of(schema: &Schema, node: &Node) -> Option<Value> {
    match schema.resolve(node) {
        Shape::Boolean => Some(Value::Bool(false)),
        Shape::Integer | Shape::Number => Some(Value::from(0)),
        Shape::String if node.format.is_none() => Some(Value::from("")),
        Shape::Quantity => Some(Value::from("0")),
        Shape::Struct(_) => Some(Value::Object(Map::new())),
        _ => None,
    }
}

struct Filler<'a> {
    schema: &'a Schema,
}

impl Filler<'_> {
    fn fill(&self, node: &Node, value: &mut Value) {
        match (self.schema.resolve(node), value) {
            (Shape::Struct(body), Value::Object(fields)) => self.fill_struct(body, fields),
            (Shape::List(inner), Value::Array(items)) if matters(inner) => {
                items.iter_mut().for_each(|item| self.fill(inner, item));
            }
            (Shape::Map(inner), Value::Object(entries)) if matters(inner) => {
                entries.iter_mut().for_each(|(_, entry)| self.fill(inner, entry));
            }
            _ => {}
        }
    }

    /// Most fields of a type are absent and stay so: they cost one look at the schema, not a search.
    fn fill_struct(&self, body: &Struct, fields: &mut Map<String, Value>) {
        for (name, present) in fields.iter_mut() {
            if let Some(field) = body.fields.get(name.as_str()).filter(|field| matters(field)) {
                self.fill(field, present);
            }
        }
        let filled = body.fields.iter().filter(|(_, field)| is_filled(field));
        for (name, field) in filled {
            if !fields.contains_key(&**name)
                && let Some(mut made) = self.absent(field)
            {
                self.fill(field, &mut made);
                fields.insert(name.to_string(), made);
            }
        }
    }

    fn absent(&self, field: &Node) -> Option<Value> {
        field.default.clone().or_else(|| zero_of(self.schema, field))
    }
}

/// Whether an absent field may become something.
fn is_filled(field: &Node) -> bool {
    field.default.is_some() || field.zero == Zero::Written
}

/// Whether there may be something to complete in a value.
fn matters(node: &Node) -> bool {
    matches!(node.shape, Shape::Ref(_) | Shape::Struct(_) | Shape::List(_) | Shape::Map(_))
}
