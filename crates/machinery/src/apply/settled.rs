//! The quick path of a write: most of them (a status, a heartbeat) change what their writer owns already.
//!
//! It reads `fieldsV1` as it is written, without decoding it.

use serde_json::{Map, Value};

use super::compare::Difference;
use super::{FieldSet, OPERATION_UPDATE, Writer};

/// Whether a change leaves every entry as it is: nothing is removed that anybody owns, and what is changed belongs to
/// the writer alone. The list must be one that this module's [`super::Managed`] wrote: it compares texts.
pub fn is_settled(list: &[Value], change: &Difference, writer: &Writer<'_>) -> bool {
    let mut owns = change.changed.is_empty();
    for entry in list {
        let fields = &entry["fieldsV1"];
        if intersects(fields, &change.removed) {
            return false;
        }
        if is_of(entry, writer) {
            owns = covers(fields, &change.changed);
            if !owns {
                return false;
            }
        } else if intersects(fields, &change.changed) {
            return false;
        }
    }
    owns
}

fn is_of(entry: &Value, writer: &Writer<'_>) -> bool {
    let is =
        |field: &str, wanted: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default() == wanted;
    is("operation", OPERATION_UPDATE)
        && is("manager", writer.manager)
        && is("apiVersion", writer.api_version)
        && is("subresource", writer.subresource)
}

fn is_member(fields: &Map<String, Value>) -> bool {
    fields.is_empty() || fields.contains_key(".")
}

/// Whether all paths of `set` are in the encoded one.
fn covers(fields: &Value, set: &FieldSet) -> bool {
    let Value::Object(fields) = fields else { return false };
    (!set.member || is_member(fields))
        && set
            .children
            .iter()
            .all(|(element, child)| fields.get(&element.encode()).is_some_and(|fields| covers(fields, child)))
}

/// Whether any path of `set` is in the encoded one.
fn intersects(fields: &Value, set: &FieldSet) -> bool {
    let Value::Object(fields) = fields else { return false };
    (set.member && is_member(fields))
        || set.children.iter().any(|(element, child)| {
            fields.get(&element.encode()).is_some_and(|fields| intersects(fields, child))
        })
}
