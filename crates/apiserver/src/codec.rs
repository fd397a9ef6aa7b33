//! The codecs of `machinery` as the doors use them: bytes in, values out, and back, failures as `Status`.

use bytes::Bytes;
use machinery::decode::{Decoded, Limits, decode_json};
use machinery::schema::Schema;
use machinery::{Object, Status, protobuf, yaml};
use serde_json::Value;

use crate::http::body::BODY_MAX;
use crate::http::negotiate::Media;

/// What clients are told when a value has no form in the media type they want.
const ALTERNATIVES: [&str; 2] = ["application/json", "application/yaml"];

/// Reads a body. Duplicate fields are listed, not refused.
pub fn decode(schema: &Schema, media: Media, bytes: &[u8]) -> Result<Decoded, Status> {
    match media {
        Media::Json => {
            let limits = Limits { max_bytes: BODY_MAX, ..Limits::default() };
            decode_json(bytes, &limits).map_err(|error| malformed(&error))
        }
        Media::Yaml => decode_yaml(bytes),
        Media::Protobuf => {
            decode_protobuf(schema, bytes).map(|value| Decoded { value, duplicate_fields: Vec::new() })
        }
    }
}

fn decode_yaml(bytes: &[u8]) -> Result<Decoded, Status> {
    let text = std::str::from_utf8(bytes).map_err(|error| malformed(&error))?;
    let documents = yaml::to_values(text).map_err(|error| malformed(&error))?;
    let duplicates = yaml::duplicate_keys(text);
    let duplicate_fields = match duplicates.is_empty() {
        true => Vec::new(),
        false => vec![format!("yaml: unmarshal errors:\n  {}", duplicates.join("\n  "))],
    };
    let value = documents
        .into_iter()
        .next()
        .ok_or_else(|| Status::bad_request("the body of the request was empty"))?;
    Ok(Decoded { value, duplicate_fields })
}

fn decode_protobuf(schema: &Schema, bytes: &[u8]) -> Result<Value, Status> {
    let envelope = protobuf::open(bytes).map_err(|error| malformed(&error))?;
    let (group, version) = envelope.api_version.rsplit_once('/').unwrap_or(("", envelope.api_version));
    let name = schema.type_of(group, version, envelope.kind).ok_or_else(|| {
        Status::bad_request(format!(
            "no kind {:?} is registered for version {:?}",
            envelope.kind, envelope.api_version
        ))
    })?;
    protobuf::decode(name, bytes).map_err(|error| malformed(&error))
}

/// Writes a value, whose `apiVersion` and `kind` say what it is.
pub fn encode(schema: &Schema, media: Media, value: &Value, pretty: bool) -> Result<Vec<u8>, Status> {
    match media {
        Media::Json if pretty => serde_json::to_vec_pretty(value).map_err(Status::internal),
        Media::Json => serde_json::to_vec(value).map_err(Status::internal),
        Media::Yaml => Ok(yaml::from_value(value).into_bytes()),
        Media::Protobuf => {
            let name = type_of(schema, value).ok_or_else(|| Status::not_acceptable(&ALTERNATIVES))?;
            protobuf::encode(name, value).map_err(|error| no_protobuf(&error))
        }
    }
}

fn type_of<'a>(schema: &'a Schema, value: &Value) -> Option<&'a str> {
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = text("apiVersion").rsplit_once('/').unwrap_or(("", text("apiVersion")));
    schema.type_of(group, version, text("kind"))
}

/// The bare message of an object, made once and shared; it stands so in lists.
pub fn message(schema: &Schema, object: &Object) -> Result<Bytes, Status> {
    let bytes = object.protobuf(|object| {
        let value = object.value();
        let encoded = type_of(schema, &value).map(|name| protobuf::encode_message(name, &value));
        match encoded {
            Some(Ok(bytes)) => bytes.into(),
            Some(Err(error)) => {
                tracing::warn!(object = %object.key(), %error, "an object has no protobuf form");
                Bytes::new()
            }
            None => Bytes::new(),
        }
    });
    // Every object has metadata, so its message is never empty.
    if bytes.is_empty() { Err(Status::not_acceptable(&ALTERNATIVES)) } else { Ok(bytes) }
}

/// An object in its envelope.
pub fn enveloped(schema: &Schema, object: &Object) -> Result<Vec<u8>, Status> {
    let (api_version, kind) = type_meta(object)?;
    Ok(protobuf::wrap(&api_version, &kind, &message(schema, object)?))
}

/// A list of objects in its envelope.
pub fn protobuf_list(
    schema: &Schema,
    api_version: &str,
    kind: &str,
    metadata: &Value,
    objects: &[std::sync::Arc<Object>],
) -> Result<Vec<u8>, Status> {
    let messages: Vec<Bytes> =
        objects.iter().map(|object| message(schema, object)).collect::<Result<_, _>>()?;
    let items = messages.iter().map(AsRef::as_ref);
    protobuf::encode_list(api_version, kind, metadata, items).map_err(|error| no_protobuf(&error))
}

/// A watch event behind its length, around an object in its envelope.
pub fn protobuf_event(kind: &str, enveloped: &[u8]) -> Bytes {
    protobuf::watch_frame(kind, enveloped).into()
}

fn type_meta(object: &Object) -> Result<(String, String), Status> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct TypeMeta {
        api_version: String,
        kind: String,
    }
    let meta: TypeMeta = serde_json::from_slice(object.stored()).map_err(Status::internal)?;
    Ok((meta.api_version, meta.kind))
}

fn no_protobuf(error: &protobuf::ProtobufError) -> Status {
    tracing::debug!(%error, "a value has no protobuf form");
    Status::not_acceptable(&ALTERNATIVES)
}

fn malformed(error: &dyn std::fmt::Display) -> Status {
    Status::bad_request(error.to_string())
}
