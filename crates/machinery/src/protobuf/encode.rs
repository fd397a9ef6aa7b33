//! From a JSON value to protobuf.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::table::{Kind, Message, Rule, ValueField, What};
use super::{MAX_DEPTH, ProtobufError, envelope, wire};
use crate::duration;
use crate::schema::builtin;

type Write = Result<(), ProtobufError>;

/// The JSON schema type, to which the "schema or …" types of custom resource definitions refer.
pub(super) const JSON_SCHEMA: &str =
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

/// An object in its envelope, which names the object's own `apiVersion` and `kind`.
pub fn encode(type_name: &str, value: &Value) -> Result<Vec<u8>, ProtobufError> {
    let raw = encode_message(type_name, value)?;
    let of = |name| value.get(name).and_then(Value::as_str).unwrap_or_default();
    Ok(envelope::wrap(of("apiVersion"), of("kind"), &raw))
}

/// An object of a built-in kind, which its `apiVersion` and `kind` name.
pub fn encode_any(value: &Value) -> Result<Vec<u8>, ProtobufError> {
    let of = |name| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = of("apiVersion").rsplit_once('/').unwrap_or(("", of("apiVersion")));
    let type_name = builtin().type_of(group, version, of("kind"));
    encode(type_name.ok_or_else(|| ProtobufError::UnknownType(of("kind").to_owned()))?, value)
}

/// A value as the bare message of a type, as it stands in lists.
pub fn encode_message(type_name: &str, value: &Value) -> Result<Vec<u8>, ProtobufError> {
    let mut out = Vec::with_capacity(512);
    named(type_name, value, MAX_DEPTH, &mut out)?;
    Ok(out)
}

/// A list in its envelope, made of bare messages that are encoded already. `metadata` is its `ListMeta`.
pub fn encode_list<'a>(
    api_version: &str,
    kind: &str,
    metadata: &Value,
    items: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<u8>, ProtobufError> {
    let mut raw = Vec::new();
    let metadata = encode_message("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta", metadata)?;
    wire::bytes(1, &metadata, &mut raw);
    for item in items {
        wire::bytes(2, item, &mut raw);
    }
    Ok(envelope::wrap(api_version, kind, &raw))
}

fn named(type_name: &str, value: &Value, depth: usize, out: &mut Vec<u8>) -> Write {
    let message =
        builtin().message(type_name).ok_or_else(|| ProtobufError::UnknownType(type_name.to_owned()))?;
    let fields = value.as_object().ok_or_else(|| ProtobufError::Unfit(type_name.to_owned()))?;
    let depth = depth.checked_sub(1).ok_or(ProtobufError::Malformed("the value is nested too deeply"))?;
    fields_of(message, fields, depth, out)
}

fn fields_of(message: &Message, fields: &Map<String, Value>, depth: usize, out: &mut Vec<u8>) -> Write {
    for field in &message.fields {
        match &field.what {
            What::Value(value_field) => match fields.get(&*value_field.name) {
                None | Some(Value::Null) => {}
                Some(value) => whole(value_field, field.number, value, depth, out)?,
            },
            What::Embedded(inner) => {
                wire::nested(field.number, out, |out| fields_of(inner, fields, depth, out))?;
            }
        }
    }
    Ok(())
}

/// A field with all its elements.
fn whole(field: &ValueField, number: u32, value: &Value, depth: usize, out: &mut Vec<u8>) -> Write {
    let unfit = || ProtobufError::Unfit(field.name.to_string());
    let one = |number, value, out: &mut Vec<u8>| {
        element(&field.kind, number, value, depth, out).map_err(|error| match error {
            ProtobufError::Unfit(inner) if inner.is_empty() => unfit(),
            other => other,
        })
    };
    match (field.rule, value) {
        (Rule::One, value) => one(number, value, out),
        (Rule::Repeated, Value::Array(items)) => items.iter().try_for_each(|item| one(number, item, out)),
        (Rule::Map, Value::Object(entries)) => entries.iter().try_for_each(|(key, entry)| {
            wire::nested(number, out, |out| {
                wire::bytes(1, key.as_bytes(), out);
                one(2, entry, out)
            })
        }),
        _ => Err(unfit()),
    }
}

fn unfit() -> ProtobufError {
    ProtobufError::Unfit(String::new())
}

fn text(value: &Value) -> Result<&str, ProtobufError> {
    value.as_str().ok_or_else(unfit)
}

fn element(kind: &Kind, number: u32, value: &Value, depth: usize, out: &mut Vec<u8>) -> Write {
    match kind {
        Kind::String => wire::bytes(number, text(value)?.as_bytes(), out),
        Kind::Int32 | Kind::Int64 => wire::integer(number, value.as_i64().ok_or_else(unfit)?, out),
        Kind::Bool => wire::integer(number, i64::from(value.as_bool().ok_or_else(unfit)?), out),
        Kind::Double => wire::double(number, value.as_f64().ok_or_else(unfit)?, out),
        Kind::Bytes => wire::bytes(number, &STANDARD.decode(text(value)?).map_err(|_| unfit())?, out),
        Kind::Message(name) => return wire::nested(number, out, |out| named(name, value, depth, out)),
        Kind::Strings => return wire::nested(number, out, |out| strings(1, value, out)),
        Kind::Time => return wire::nested(number, out, |out| time(value, false, out)),
        Kind::MicroTime => return wire::nested(number, out, |out| time(value, true, out)),
        Kind::Duration => {
            let nanoseconds = duration::parse(text(value)?).ok_or_else(unfit)?;
            return wire::nested(number, out, |out| {
                wire::integer(1, nanoseconds, out);
                Ok(())
            });
        }
        Kind::Quantity => return wire::nested(number, out, |out| quantity(value, out)),
        Kind::IntOrString => return wire::nested(number, out, |out| int_or_string(value, out)),
        Kind::Raw => return wire::nested(number, out, |out| raw(value, out)),
        Kind::SchemaOrArray | Kind::SchemaOrBool | Kind::SchemaOrStrings => {
            return wire::nested(number, out, |out| schema_or(kind, value, depth, out));
        }
    }
    Ok(())
}

fn strings(number: u32, value: &Value, out: &mut Vec<u8>) -> Write {
    for item in value.as_array().ok_or_else(unfit)? {
        wire::bytes(number, text(item)?.as_bytes(), out);
    }
    Ok(())
}

fn time(value: &Value, micro: bool, out: &mut Vec<u8>) -> Write {
    let time: jiff::Timestamp = text(value)?.parse().map_err(|_| unfit())?;
    // A time before 1970 counts its fraction forwards from the second before it, as Go does.
    let nanos = time.as_nanosecond();
    let seconds = i64::try_from(nanos.div_euclid(1_000_000_000)).map_err(|_| unfit())?;
    let fraction = i64::try_from(nanos.rem_euclid(1_000_000_000)).map_err(|_| unfit())?;
    wire::integer(1, seconds, out);
    wire::integer(2, if micro { fraction / 1000 * 1000 } else { 0 }, out);
    Ok(())
}

fn quantity(value: &Value, out: &mut Vec<u8>) -> Write {
    match value {
        Value::String(text) => wire::bytes(1, text.as_bytes(), out),
        Value::Number(number) => wire::bytes(1, number.to_string().as_bytes(), out),
        _ => return Err(unfit()),
    }
    Ok(())
}

fn int_or_string(value: &Value, out: &mut Vec<u8>) -> Write {
    let (kind, number, text) = match value {
        Value::String(text) => (1, 0, text.as_str()),
        value => (0, value.as_i64().ok_or_else(unfit)?, ""),
    };
    wire::integer(1, kind, out);
    wire::integer(2, number, out);
    wire::bytes(3, text.as_bytes(), out);
    Ok(())
}

fn raw(value: &Value, out: &mut Vec<u8>) -> Write {
    wire::bytes(1, &serde_json::to_vec(value)?, out);
    Ok(())
}

fn schema_or(kind: &Kind, value: &Value, depth: usize, out: &mut Vec<u8>) -> Write {
    let schema = |number, value, out: &mut Vec<u8>| {
        wire::nested(number, out, |out| named(JSON_SCHEMA, value, depth, out))
    };
    match (kind, value) {
        (Kind::SchemaOrBool, Value::Bool(allows)) => wire::integer(1, i64::from(*allows), out),
        (Kind::SchemaOrBool, value) => {
            wire::integer(1, 1, out);
            return schema(2, value, out);
        }
        (Kind::SchemaOrArray, Value::Array(items)) => {
            return items.iter().try_for_each(|item| schema(2, item, out));
        }
        (Kind::SchemaOrStrings, Value::Array(_)) => return strings(2, value, out),
        (_, value) => return schema(1, value, out),
    }
    Ok(())
}
