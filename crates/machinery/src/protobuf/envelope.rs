//! The envelope around a message: four magic bytes and a `runtime.Unknown` that says what is inside.

use super::ProtobufError;
use super::wire::{self, Pieces};

/// `k8s` and a zero byte.
const MAGIC: &[u8] = b"k8s\0";

/// What an envelope says, and the message in it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Envelope<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    pub raw: &'a [u8],
    /// Empty: the message is protobuf.
    pub content_type: &'a str,
}

/// Puts a message into its envelope.
pub fn wrap(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + api_version.len() + kind.len() + 24);
    out.extend_from_slice(MAGIC);
    let mut type_meta = Vec::with_capacity(api_version.len() + kind.len() + 4);
    wire::bytes(1, api_version.as_bytes(), &mut type_meta);
    wire::bytes(2, kind.as_bytes(), &mut type_meta);
    wire::bytes(1, &type_meta, &mut out);
    wire::bytes(2, raw, &mut out);
    wire::bytes(3, b"", &mut out);
    wire::bytes(4, b"", &mut out);
    out
}

/// Opens an envelope.
pub fn open(bytes: &[u8]) -> Result<Envelope<'_>, ProtobufError> {
    let unknown = bytes.strip_prefix(MAGIC).ok_or(ProtobufError::NoEnvelope)?;
    let mut envelope = Envelope::default();
    for piece in Pieces::new(unknown) {
        match piece? {
            (1, type_meta) => read_type_meta(type_meta.bytes()?, &mut envelope)?,
            (2, raw) => envelope.raw = raw.bytes()?,
            (3, encoding) if !encoding.bytes()?.is_empty() => {
                return Err(ProtobufError::ContentType(encoding.text()?.to_owned()));
            }
            (4, content_type) => envelope.content_type = content_type.text()?,
            _ => {}
        }
    }
    Ok(envelope)
}

fn read_type_meta<'a>(bytes: &'a [u8], envelope: &mut Envelope<'a>) -> Result<(), ProtobufError> {
    for piece in Pieces::new(bytes) {
        match piece? {
            (1, api_version) => envelope.api_version = api_version.text()?,
            (2, kind) => envelope.kind = kind.text()?,
            _ => {}
        }
    }
    Ok(())
}

/// A `metav1.WatchEvent` around an object in its envelope. It has no envelope of its own.
pub fn watch_event(event_type: &str, object: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(object.len() + 8);
    wire::bytes(1, object, &mut raw);
    let mut out = Vec::with_capacity(raw.len() + event_type.len() + 12);
    wire::bytes(1, event_type.as_bytes(), &mut out);
    wire::bytes(2, &raw, &mut out);
    out
}

/// A watch event as it stands in the stream `application/vnd.kubernetes.protobuf;stream=watch`: behind its length in
/// four bytes, the most significant first.
pub fn watch_frame(event_type: &str, object: &[u8]) -> Vec<u8> {
    let event = watch_event(event_type, object);
    let length = u32::try_from(event.len()).unwrap_or(u32::MAX);
    let mut out = Vec::with_capacity(event.len() + 4);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&event);
    out
}
