//! A watch as the body of an answer: JSON lines, or protobuf messages behind their lengths.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::{Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use machinery::{Object, Status};
use resources::Resource;
use serde_json::{Value, json};

use super::body::{Body, BoxError};
use super::negotiate::{Accepted, Media, Shape};
use super::table::{Include, partial, table};
use crate::cache::{Encoding, EventKind, Item, WatchSource};
use crate::codec;
use crate::core::Core;

const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// How the events of one watch are written.
pub struct WatchForm {
    pub core: Arc<Core>,
    pub row: Arc<Resource>,
    pub accepted: Accepted,
    pub include: Include,
}

/// The answer to a watch. A failure to start is sent as the only event, as upstream does.
pub fn answer(source: Result<WatchSource, Status>, form: WatchForm) -> Response<Body> {
    let media = form.accepted.media;
    let body = match source {
        Ok(source) => stream(source, form),
        Err(status) => super::body::full(form.error(&status)),
    };
    let mut response = Response::new(body);
    let content_type = match media {
        Media::Json | Media::Yaml => "application/json",
        Media::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-cache, private"));
    response
}

fn stream(source: WatchSource, form: WatchForm) -> Body {
    let watching = Watching { source, form, first: true };
    let stream = futures::stream::unfold(watching, |mut watching| async {
        let bytes = watching.next().await?;
        Some((Ok::<_, BoxError>(Frame::data(bytes)), watching))
    });
    StreamBody::new(stream.boxed()).boxed_unsync()
}

struct Watching {
    source: WatchSource,
    form: WatchForm,
    /// Whether nothing was sent: only the first table has column definitions.
    first: bool,
}

impl Watching {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let item = self.source.next().await?;
            let first = std::mem::take(&mut self.first);
            if let Some(bytes) = self.form.item(&item, first) {
                return Some(bytes);
            }
        }
    }
}

impl WatchForm {
    fn item(&self, item: &Item, first: bool) -> Option<Bytes> {
        match item {
            Item::Initial(object) => Some(self.event("ADDED", &self.core.present(&self.row, object), first)),
            Item::Change(kind, delivery) => {
                let object = delivery.change.object(*kind)?;
                let shared = self.accepted.shape == Shape::Object && !self.row.is_converted();
                let encode =
                    || self.event(EventKind::name(*kind), &self.core.present(&self.row, &object), first);
                Some(if shared { delivery.encoded(*kind, self.encoding(), encode) } else { encode() })
            }
            Item::Bookmark { revision, initial_events_end } => {
                Some(self.bookmark(*revision, *initial_events_end))
            }
        }
    }

    fn encoding(&self) -> Encoding {
        if self.accepted.media == Media::Protobuf { Encoding::Protobuf } else { Encoding::Json }
    }

    fn event(&self, kind: &str, object: &Object, first: bool) -> Bytes {
        match self.accepted.shape {
            Shape::Object if self.encoding() == Encoding::Protobuf => {
                match codec::enveloped(self.core.schema, object) {
                    Ok(object) => codec::protobuf_event(kind, &object),
                    Err(status) => self.error(&status),
                }
            }
            Shape::Object => json_event(kind, object),
            Shape::Partial => self.value_event(kind, &partial(&object.value())),
            Shape::Table => {
                let meta = json!({"resourceVersion": object.revision().to_string()});
                let now = self.core.env.now();
                self.value_event(
                    kind,
                    &table(&self.row, std::iter::once(object), meta, self.include, first, now),
                )
            }
        }
    }

    fn value_event(&self, kind: &str, value: &Value) -> Bytes {
        if self.encoding() == Encoding::Protobuf
            && let Ok(object) = codec::encode(self.core.schema, Media::Protobuf, value, false)
        {
            return codec::protobuf_event(kind, &object);
        }
        let mut line = json!({"type": kind, "object": value}).to_string();
        line.push('\n');
        line.into()
    }

    fn bookmark(&self, revision: u64, initial_events_end: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if initial_events_end {
            metadata["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        let object = match self.accepted.shape {
            Shape::Object => {
                json!({"kind": self.row.kind, "apiVersion": self.row.api_version(), "metadata": metadata})
            }
            Shape::Partial => partial(&json!({"metadata": metadata})),
            // The row's object carries the annotation; clients read the revision from there, too.
            Shape::Table => {
                let shown = partial(&json!({"metadata": metadata}));
                json!({
                    "kind": "Table", "apiVersion": "meta.k8s.io/v1",
                    "metadata": {"resourceVersion": revision.to_string()},
                    "columnDefinitions": null,
                    "rows": [{"cells": null, "object": shown}],
                })
            }
        };
        self.value_event("BOOKMARK", &object)
    }

    fn error(&self, status: &Status) -> Bytes {
        self.value_event("ERROR", &json!(status))
    }
}

/// `{"type":"ADDED","object":…}` and a line end.
fn json_event(kind: &str, object: &Object) -> Bytes {
    let mut line = Vec::with_capacity(object.stored().len() + 96);
    line.extend_from_slice(format!("{{\"type\":\"{kind}\",\"object\":").as_bytes());
    object.write_json(&mut line);
    line.extend_from_slice(b"}\n");
    line.into()
}
