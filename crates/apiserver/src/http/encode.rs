//! Answers as bytes: whole objects and lists in the negotiated form.

use client::ObjectList;
use env::jiff::Timestamp;
use http::{HeaderMap, Response, header};
use machinery::schema::Schema;
use machinery::{Object, Status};
use resources::Resource;
use serde_json::{Value, json};

use crate::codec;

use super::body::{Body, compress, response};
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

/// A list in JSON: the stored bytes of its items one after the other.
pub fn concatenated(row: &Resource, list: &ObjectList) -> Vec<u8> {
    let size: usize = list.items.iter().map(|object| object.stored().len() + 64).sum();
    let mut out = Vec::with_capacity(size + 256);
    let head = format!(
        "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{},\"items\":[",
        row.kind,
        row.api_version(),
        list_meta(list)
    );
    out.extend_from_slice(head.as_bytes());
    for (index, object) in list.items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        object.write_json(&mut out);
    }
    out.extend_from_slice(b"]}");
    out
}

/// From the served to the stored version, for what looks at stored values only.
pub fn to_stored(row: &Resource, value: &mut Value) {
    crate::pipeline::to_storage(row, value);
}
