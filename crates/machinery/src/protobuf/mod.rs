//! `application/vnd.kubernetes.protobuf`: a codec driven by the tables of the schema.
//!
//! It maps between a JSON value and protobuf without generated code. What protobuf cannot carry (custom resources,
//! `Table`) has no table and is refused; clients then ask for JSON.

mod decode;
mod encode;
mod envelope;
mod table;
pub(crate) mod wire;

pub use decode::{decode, decode_any, decode_message};
pub use encode::{encode, encode_any, encode_list, encode_message};
pub use envelope::{Envelope, open, watch_event, watch_frame, wrap};
pub(crate) use table::Message;

/// The media type of protobuf objects.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// Messages nested deeper than this are refused.
const MAX_DEPTH: usize = 100;

/// Why a value has no protobuf form, or bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum ProtobufError {
    #[error("the type {0:?} has no protobuf form")]
    UnknownType(String),
    #[error("the field {0:?} does not fit its protobuf type")]
    Unfit(String),
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NoEnvelope,
    #[error("the content type {0:?} inside the protobuf envelope is not supported")]
    ContentType(String),
    #[error("malformed protobuf message: {0}")]
    Malformed(&'static str),
    #[error("malformed JSON inside a protobuf message")]
    Json(#[from] serde_json::Error),
}
