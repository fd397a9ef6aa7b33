//! Cells of table rows, the parts that kinds share.

use jiff::Timestamp;
use serde_json::Value;

use crate::table_format::{age, plain};
use crate::value::Access;

/// The object's name.
pub fn name(object: &Value) -> Value {
    Value::String(object.text("/metadata/name").to_owned())
}

/// The time since the object was made.
pub fn created(now: Timestamp, object: &Value) -> Value {
    Value::String(age(now, object.pointer("/metadata/creationTimestamp")))
}

/// The text at a pointer, `instead` when there is none.
pub fn text(object: &Value, pointer: &str, instead: &str) -> Value {
    let found = plain(object.at(pointer));
    Value::String(if found.is_empty() { instead.to_owned() } else { found })
}

/// The number at a pointer, 0 when there is none.
pub fn number(object: &Value, pointer: &str) -> Value {
    object.int(pointer).unwrap_or(0).into()
}

/// How many elements a list or map has.
pub fn count(object: &Value, pointer: &str) -> Value {
    let found = object.at(pointer);
    found.as_array().map(Vec::len).or(found.as_object().map(serde_json::Map::len)).unwrap_or(0).into()
}
