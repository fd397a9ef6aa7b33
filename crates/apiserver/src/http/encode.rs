//! Answers as bytes: whole objects and lists in the negotiated form.

use std::sync::Arc;

use bytes::Bytes;
use client::ObjectList;
use env::jiff::Timestamp;
use http::{HeaderMap, Response, header};
use machinery::schema::Schema;
use machinery::{Object, Status};
use resources::Resource;
use serde_json::{Value, json};

use crate::codec;

use super::body::{Body, accepts_gzip, compress, response, streamed};
use super::negotiate::{Accepted, Media, Shape};
use super::table::{Include, partial, table};

/// What an answer is made of, besides the objects.
pub struct Form<'a> {
    pub accepted: Accepted,
    pub include: Include,
    pub pretty: bool,
    pub headers: &'a HeaderMap,
    pub schema: &'a Schema,
    pub now: Timestamp,
}

impl Form<'_> {
    /// One object with a status code.
    pub fn object(&self, code: u16, row: &Resource, object: &Object) -> Result<Response<Body>, Status> {
        let bytes = match (self.accepted.shape, self.accepted.media) {
            (Shape::Object, Media::Json) if !self.pretty => object.json(),
            (Shape::Object, Media::Protobuf) => codec::enveloped(self.schema, object)?,
            (Shape::Object, _) => self.value(&object.value())?,
            (Shape::Partial, _) => self.value(&partial(&object.value()))?,
            (Shape::Table, _) => {
                let meta = json!({"resourceVersion": object.revision().to_string()});
                self.value(&table(row, std::iter::once(object), meta, self.include, true, self.now))?
            }
        };
        Ok(self.whole(code, bytes))
    }

    /// A list.
    pub fn list(&self, row: &Resource, list: &ObjectList) -> Result<Response<Body>, Status> {
        let bytes = match (self.accepted.shape, self.accepted.media) {
            (Shape::Object, Media::Json) if !self.pretty && is_long(list) && !accepts_gzip(self.headers) => {
                return Ok(streamed(
                    200,
                    self.accepted.media.name(),
                    Chunks::new(row, list).map(Bytes::from),
                ));
            }
            (Shape::Object, Media::Json) if !self.pretty => concatenated(row, list),
            (Shape::Object, Media::Protobuf) => {
                let kind = format!("{}List", row.kind);
                codec::protobuf_list(self.schema, &row.api_version(), &kind, &list_meta(list), &list.items)?
            }
            (Shape::Object, _) => {
                let value: Value =
                    serde_json::from_slice(&concatenated(row, list)).map_err(Status::internal)?;
                self.value(&value)?
            }
            (Shape::Partial, _) => {
                let items: Vec<Value> = list.items.iter().map(|object| partial(&object.value())).collect();
                self.value(&json!({
                    "kind": "PartialObjectMetadataList",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": list_meta(list),
                    "items": items,
                }))?
            }
            (Shape::Table, _) => {
                let objects = list.items.iter().map(|object| &**object);
                self.value(&table(row, objects, list_meta(list), self.include, true, self.now))?
            }
        };
        Ok(self.whole(200, bytes))
    }

    /// A status with its own code.
    pub fn status(&self, status: &Status) -> Response<Body> {
        let media = self.accepted.media;
        status_response(self.schema, media, status)
    }

    /// Any other API value.
    pub fn value(&self, value: &Value) -> Result<Vec<u8>, Status> {
        value_bytes(self.schema, self.accepted.media, value, self.pretty)
    }

    /// A whole answer in the negotiated media type, compressed if that pays.
    pub fn whole(&self, code: u16, bytes: Vec<u8>) -> Response<Body> {
        let (bytes, compressed) = compress(bytes, self.headers);
        let mut response = response(code, self.accepted.media.name(), bytes);
        if compressed {
            response.headers_mut().insert(header::CONTENT_ENCODING, header::HeaderValue::from_static("gzip"));
            response.headers_mut().insert(header::VARY, header::HeaderValue::from_static("Accept-Encoding"));
        }
        response
    }
}

/// A value in a media type.
pub fn value_bytes(schema: &Schema, media: Media, value: &Value, pretty: bool) -> Result<Vec<u8>, Status> {
    codec::encode(schema, media, value, pretty)
}

/// A status as an answer.
pub fn status_response(schema: &Schema, media: Media, status: &Status) -> Response<Body> {
    let value = json!(status);
    let (media, bytes) = match value_bytes(schema, media, &value, false) {
        Ok(bytes) => (media, bytes),
        Err(_no_such_form) => (Media::Json, value.to_string().into_bytes()),
    };
    let mut response = response(status.code, media.name(), bytes);
    let retry = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    if retry > 0 {
        response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from(retry));
    }
    response
}

/// `metav1.ListMeta`.
pub fn list_meta(list: &ObjectList) -> Value {
    let mut meta = json!({"resourceVersion": list.revision.to_string()});
    if !list.continue_token.is_empty() {
        meta["continue"] = json!(list.continue_token);
    }
    if let Some(remaining) = list.remaining_items {
        meta["remainingItemCount"] = json!(remaining);
    }
    meta
}

/// Lists of more objects are written piece by piece, as the connection takes them.
const WHOLE_MAX: usize = 100;
/// The least length of a piece but the last.
const PIECE: usize = 64 << 10;

fn is_long(list: &ObjectList) -> bool {
    list.items.len() > WHOLE_MAX
}

/// A list in JSON: the stored bytes of its items one after the other.
pub fn concatenated(row: &Resource, list: &ObjectList) -> Vec<u8> {
    let size: usize = list.items.iter().map(|object| object.stored().len() + 64).sum();
    let mut chunks = Chunks::new(row, list);
    let mut out = Vec::with_capacity(size + 256);
    while chunks.write(&mut out) {}
    out
}

/// A list in JSON in pieces.
struct Chunks {
    head: Option<String>,
    items: std::vec::IntoIter<Arc<Object>>,
    first: bool,
    complete: bool,
}

impl Chunks {
    fn new(row: &Resource, list: &ObjectList) -> Self {
        let head = format!(
            "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{},\"items\":[",
            row.kind,
            row.api_version(),
            list_meta(list)
        );
        Self { head: Some(head), items: list.items.clone().into_iter(), first: true, complete: false }
    }

    /// Appends one more part; `false` when there is none.
    fn write(&mut self, out: &mut Vec<u8>) -> bool {
        if let Some(head) = self.head.take() {
            out.extend_from_slice(head.as_bytes());
            return true;
        }
        match self.items.next() {
            Some(object) => {
                if !std::mem::take(&mut self.first) {
                    out.push(b',');
                }
                object.write_json(out);
                true
            }
            None if self.complete => false,
            None => {
                out.extend_from_slice(b"]}");
                self.complete = true;
                true
            }
        }
    }
}

impl Iterator for Chunks {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut piece = Vec::with_capacity(PIECE + PIECE / 8);
        while piece.len() < PIECE && self.write(&mut piece) {}
        (!piece.is_empty()).then_some(piece)
    }
}

/// From the served to the stored version, for what looks at stored values only.
pub fn to_stored(row: &Resource, value: &mut Value) {
    crate::pipeline::to_storage(row, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_are_the_whole() {
        let table = resources::builtin_table();
        let row = table.rows().iter().find(|row| row.resource == "configmaps").unwrap();
        for count in [0, 1, 3, 2000] {
            let object = |index| {
                let value =
                    json!({"metadata": {"name": format!("m{index}")}, "data": {"k": "x".repeat(100)}});
                Arc::new(Object::from_value(&value, 7).unwrap())
            };
            let items = (0..count).map(object).collect();
            let list = ObjectList { items, revision: 9, ..ObjectList::default() };
            let pieces: Vec<_> = Chunks::new(row, &list).collect();
            assert_eq!(pieces.concat(), concatenated(row, &list));
            assert_eq!(pieces.len() > 1, count == 2000);
            let read: Value = serde_json::from_slice(&pieces.concat()).unwrap();
            assert_eq!(read["items"].as_array().unwrap().len(), count);
            assert_eq!(read["metadata"]["resourceVersion"], "9");
        }
    }
}
