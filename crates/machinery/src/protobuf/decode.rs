//! From protobuf to a JSON value.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::encode::JSON_SCHEMA;
use super::table::{Kind, Message, Rule, ValueField, What};
use super::wire::{Piece, Pieces};
use super::{MAX_DEPTH, ProtobufError, envelope};
use crate::duration;
use crate::schema::{Zero, builtin};

type Read<T> = Result<T, ProtobufError>;

/// Reads an object of a type from its envelope. `apiVersion` and `kind` are those of the envelope, if it has any.
pub fn decode(type_name: &str, bytes: &[u8]) -> Read<Value> {
    from_envelope(Some(type_name), bytes, MAX_DEPTH)
}

/// Reads an object of the built-in kind that its envelope names.
pub fn decode_any(bytes: &[u8]) -> Read<Value> {
    from_envelope(None, bytes, MAX_DEPTH)
}

/// Reads a bare message of a type.
pub fn decode_message(type_name: &str, bytes: &[u8]) -> Read<Value> {
    named(type_name, bytes, MAX_DEPTH)
}

fn from_envelope(type_name: Option<&str>, bytes: &[u8], depth: usize) -> Read<Value> {
    let envelope = envelope::open(bytes)?;
    match envelope.content_type {
        "" | super::MEDIA_TYPE => {}
        "application/json" => return Ok(serde_json::from_slice(envelope.raw)?),
        other => return Err(ProtobufError::ContentType(other.to_owned())),
    }
    let (group, version) = envelope.api_version.rsplit_once('/').unwrap_or(("", envelope.api_version));
    let type_name = type_name.or_else(|| builtin().type_of(group, version, envelope.kind));
    let type_name = type_name.ok_or_else(|| ProtobufError::UnknownType(envelope.kind.to_owned()))?;
    let mut value = named(type_name, envelope.raw, depth)?;
    for (name, text) in [("apiVersion", envelope.api_version), ("kind", envelope.kind)] {
        if let (Some(fields), false) = (value.as_object_mut(), text.is_empty()) {
            fields.insert(name.to_owned(), Value::from(text));
        }
    }
    Ok(value)
}

fn named(type_name: &str, bytes: &[u8], depth: usize) -> Read<Value> {
    let message =
        builtin().message(type_name).ok_or_else(|| ProtobufError::UnknownType(type_name.to_owned()))?;
    let depth = depth.checked_sub(1).ok_or(ProtobufError::Malformed("the message is nested too deeply"))?;
    let mut fields = Map::new();
    read_fields(message, bytes, depth, &mut fields)?;
    Ok(Value::Object(fields))
}

fn read_fields(message: &Message, bytes: &[u8], depth: usize, fields: &mut Map<String, Value>) -> Read<()> {
    for piece in Pieces::new(bytes) {
        let (number, piece) = piece?;
        match message.field(number) {
            Some(What::Value(field)) => read_field(field, piece, depth, fields)?,
            Some(What::Embedded(inner)) => read_fields(inner, piece.bytes()?, depth, fields)?,
            None => {}
        }
    }
    Ok(())
}

fn read_field(
    field: &ValueField,
    piece: Piece<'_>,
    depth: usize,
    fields: &mut Map<String, Value>,
) -> Read<()> {
    match field.rule {
        Rule::One => {
            match element(&field.kind, piece, depth)?
                .filter(|value| field.zero != Zero::Dropped || !is_zero(value))
            {
                Some(value) => fields.insert(field.name.to_string(), value),
                None => fields.remove(&*field.name),
            };
        }
        Rule::Repeated => {
            let list = fields.entry(&*field.name).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(items) = list {
                read_items(&field.kind, piece, depth, items)?;
            }
        }
        Rule::Map => {
            let map = fields.entry(&*field.name).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(entries) = map {
                read_entry(&field.kind, piece.bytes()?, depth, entries)?;
            }
        }
    }
    Ok(())
}

/// One element of a list, or a whole list of numbers that is packed.
fn read_items(kind: &Kind, piece: Piece<'_>, depth: usize, items: &mut Vec<Value>) -> Read<()> {
    match (kind, piece) {
        (Kind::Int32 | Kind::Int64 | Kind::Bool, Piece::Bytes(packed)) => {
            let mut numbers = Pieces::new(packed);
            while let Some(number) = numbers.bare_integer()? {
                items.extend(element(kind, Piece::Integer(number), depth)?);
            }
        }
        (Kind::Double, Piece::Bytes(packed)) => {
            let mut numbers = Pieces::new(packed);
            while let Some(number) = numbers.bare_fixed64()? {
                items.extend(element(kind, Piece::Fixed64(number), depth)?);
            }
        }
        (_, piece) => items.push(element(kind, piece, depth)?.unwrap_or(Value::Null)),
    }
    Ok(())
}

fn read_entry(kind: &Kind, bytes: &[u8], depth: usize, entries: &mut Map<String, Value>) -> Read<()> {
    let (mut key, mut value) = ("", None);
    for piece in Pieces::new(bytes) {
        match piece? {
            (1, piece) => key = piece.text()?,
            (2, piece) => value = element(kind, piece, depth)?,
            _ => {}
        }
    }
    let value = match (value, kind) {
        (Some(value), _) => value,
        // Go leaves an empty value out of the entry.
        (None, Kind::String | Kind::Bytes) => Value::from(""),
        (None, Kind::Quantity) => Value::from("0"),
        (None, Kind::Strings) => Value::Array(Vec::new()),
        (None, Kind::Message(_)) => Value::Object(Map::new()),
        (None, _) => Value::Null,
    };
    entries.insert(key.to_owned(), value);
    Ok(())
}

/// One value; none for a time that is not set.
fn element(kind: &Kind, piece: Piece<'_>, depth: usize) -> Read<Option<Value>> {
    Ok(Some(match kind {
        Kind::String => Value::from(piece.text()?),
        // A 32-bit number is the lower half of what was written, as in every protobuf decoder.
        Kind::Int32 => Value::from(piece.integer()? as i32),
        Kind::Int64 => Value::from(piece.integer()?),
        Kind::Bool => Value::from(piece.integer()? != 0),
        Kind::Double => double(piece)?,
        Kind::Bytes => Value::from(STANDARD.encode(piece.bytes()?)),
        Kind::Message(name) => named(name, piece.bytes()?, depth)?,
        Kind::Strings => strings(1, piece.bytes()?)?,
        Kind::Time => return time(piece.bytes()?, false),
        Kind::MicroTime => return time(piece.bytes()?, true),
        Kind::Duration => Value::from(duration::format(first_integer(piece.bytes()?)?)),
        Kind::Quantity => quantity(piece.bytes()?)?,
        Kind::IntOrString => int_or_string(piece.bytes()?)?,
        Kind::Raw => return raw(piece.bytes()?, depth),
        Kind::SchemaOrArray | Kind::SchemaOrBool | Kind::SchemaOrStrings => {
            schema_or(kind, piece.bytes()?, depth)?
        }
    }))
}

fn double(piece: Piece<'_>) -> Read<Value> {
    let Piece::Fixed64(bits) = piece else {
        return Err(ProtobufError::Malformed("a field has the wrong wire type"));
    };
    let number = serde_json::Number::from_f64(f64::from_bits(bits));
    number.map(Value::Number).ok_or(ProtobufError::Malformed("a number is not finite"))
}

fn strings(number: u32, bytes: &[u8]) -> Read<Value> {
    let mut items = Vec::new();
    for piece in Pieces::new(bytes) {
        let (found, piece) = piece?;
        if found == number {
            items.push(Value::from(piece.text()?));
        }
    }
    Ok(Value::Array(items))
}

fn time(bytes: &[u8], micro: bool) -> Read<Option<Value>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (mut seconds, mut nanos) = (0, 0);
    for piece in Pieces::new(bytes) {
        match piece? {
            (1, piece) => seconds = piece.integer()?,
            (2, piece) => nanos = piece.integer()? as i32,
            _ => {}
        }
    }
    let time = jiff::Timestamp::new(seconds, if micro { nanos } else { 0 });
    let time = time.map_err(|_| ProtobufError::Malformed("a time is out of range"))?;
    let format = if micro { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
    Ok(Some(Value::String(time.strftime(format).to_string())))
}

/// The integer that is a message's field 1.
fn first_integer(bytes: &[u8]) -> Read<i64> {
    let mut number = 0;
    for piece in Pieces::new(bytes) {
        if let (1, piece) = piece? {
            number = piece.integer()?;
        }
    }
    Ok(number)
}

fn quantity(bytes: &[u8]) -> Read<Value> {
    let mut text = "";
    for piece in Pieces::new(bytes) {
        if let (1, piece) = piece? {
            text = piece.text()?;
        }
    }
    Ok(Value::from(if text.is_empty() { "0" } else { text }))
}

fn int_or_string(bytes: &[u8]) -> Read<Value> {
    let (mut kind, mut number, mut text) = (0, 0, "");
    for piece in Pieces::new(bytes) {
        match piece? {
            (1, piece) => kind = piece.integer()?,
            (2, piece) => number = piece.integer()? as i32,
            (3, piece) => text = piece.text()?,
            _ => {}
        }
    }
    Ok(if kind == 0 { Value::from(number) } else { Value::from(text) })
}

/// JSON bytes, or an object in an envelope of its own.
fn raw(bytes: &[u8], depth: usize) -> Read<Option<Value>> {
    let mut body: &[u8] = &[];
    for piece in Pieces::new(bytes) {
        if let (1, piece) = piece? {
            body = piece.bytes()?;
        }
    }
    if body.is_empty() {
        return Ok(None);
    }
    if body.starts_with(b"k8s\0") {
        let depth =
            depth.checked_sub(1).ok_or(ProtobufError::Malformed("the message is nested too deeply"))?;
        return from_envelope(None, body, depth).map(Some);
    }
    Ok(Some(serde_json::from_slice(body)?))
}

fn schema_or(kind: &Kind, bytes: &[u8], depth: usize) -> Read<Value> {
    let (mut schema, mut allows, mut list) = (None, false, Vec::new());
    for piece in Pieces::new(bytes) {
        match (kind, piece?) {
            (Kind::SchemaOrBool, (1, piece)) => allows = piece.integer()? != 0,
            (Kind::SchemaOrBool, (2, piece)) | (_, (1, piece)) => {
                schema = Some(named(JSON_SCHEMA, piece.bytes()?, depth)?);
            }
            (Kind::SchemaOrArray, (2, piece)) => list.push(named(JSON_SCHEMA, piece.bytes()?, depth)?),
            (Kind::SchemaOrStrings, (2, piece)) => list.push(Value::from(piece.text()?)),
            _ => {}
        }
    }
    Ok(match (schema, kind) {
        (Some(schema), _) => schema,
        (None, Kind::SchemaOrBool) => Value::Bool(allows),
        (None, _) => Value::Array(list),
    })
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Bool(truth) => !truth,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}
