//! The codecs of `machinery` as the doors use them: bytes in, values out, and back, failures as `Status`.

use bytes::Bytes;
use machinery::Status;
use machinery::decode::{Decoded, Limits, decode_json};
use machinery::schema::Schema;
use serde_json::Value;

use crate::http::body::BODY_MAX;
use crate::http::negotiate::Media;

/// What clients are told when a value has no form in the media type they want.
const ALTERNATIVES: [&str; 2] = ["application/json", "application/yaml"];

/// Reads a body. Duplicate fields are listed, not refused.
pub fn decode(_schema: &Schema, media: Media, bytes: &[u8]) -> Result<Decoded, Status> {
    match media {
        Media::Json => {
            let limits = Limits { max_bytes: BODY_MAX, ..Limits::default() };
            decode_json(bytes, &limits).map_err(|error| malformed(&error))
        }
        Media::Yaml | Media::Protobuf => Err(Status::unsupported_media_type(&["application/json"])),
    }
}

/// Writes a value.
pub fn encode(_schema: &Schema, media: Media, value: &Value, pretty: bool) -> Result<Vec<u8>, Status> {
    match media {
        Media::Json if pretty => serde_json::to_vec_pretty(value).map_err(Status::internal),
        Media::Json => serde_json::to_vec(value).map_err(Status::internal),
        Media::Yaml | Media::Protobuf => Err(Status::not_acceptable(&ALTERNATIVES)),
    }
}

/// A watch event in protobuf around an object that is already encoded.
pub fn protobuf_event(_kind: &str, object: &[u8]) -> Bytes {
    Bytes::copy_from_slice(object)
}

fn malformed(error: &dyn std::fmt::Display) -> Status {
    Status::bad_request(error.to_string())
}
