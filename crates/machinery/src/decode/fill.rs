//! Completing an object: what absent fields become.

use serde_json::{Map, Value};

use crate::schema::{Node, Schema, Shape, Zero};

/// Gives absent fields the defaults that the schema declares (`protocol: TCP`).
pub fn default_fields(schema: &Schema, node: &Node, value: &mut Value) {
    Filler { schema, absent: |_: &Schema, field: &Node| field.default.clone() }.fill(node, value);
}

/// Gives absent fields that Go always writes their zero value (`readyReplicas: 0`, `resources: {}`), so that an object
/// is the same whether it came as JSON or as protobuf.
pub fn write_zero_fields(schema: &Schema, node: &Node, value: &mut Value) {
    let absent = |schema: &Schema, field: &Node| {
        (field.zero == Zero::Written).then(|| zero_of(schema, field)).flatten()
    };
    Filler { schema, absent }.fill(node, value);
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

struct Filler<'a, F> {
    schema: &'a Schema,
    absent: F,
}

impl<F: Fn(&Schema, &Node) -> Option<Value>> Filler<'_, F> {
    fn fill(&self, node: &Node, value: &mut Value) {
        match (self.schema.resolve(node), value) {
            (Shape::Struct(body), Value::Object(fields)) => {
                for (name, field) in &body.fields {
                    self.fill_field(name, field, fields);
                }
            }
            (Shape::List(inner), Value::Array(items)) if self.matters(inner) => {
                items.iter_mut().for_each(|item| self.fill(inner, item));
            }
            (Shape::Map(inner), Value::Object(entries)) if self.matters(inner) => {
                entries.iter_mut().for_each(|(_, entry)| self.fill(inner, entry));
            }
            _ => {}
        }
    }

    fn fill_field(&self, name: &str, field: &Node, fields: &mut Map<String, Value>) {
        if let Some(present) = fields.get_mut(name) {
            return self.fill(field, present);
        }
        if let Some(mut made) = (self.absent)(self.schema, field) {
            self.fill(field, &mut made);
            fields.insert(name.to_owned(), made);
        }
    }

    fn matters(&self, inner: &Node) -> bool {
        matches!(inner.shape, Shape::Ref(_) | Shape::Struct(_) | Shape::List(_) | Shape::Map(_))
    }
}
