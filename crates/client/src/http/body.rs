//! Answers: objects, lists, watch streams.

use std::sync::Arc;

use futures::Stream;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use machinery::{Object, Status};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::{Deleted, ObjectList, Target, WatchEvent};

/// The longest line of a watch: one object, which the server keeps below 3 MiB.
const LINE_MAX: usize = 16 << 20;

pub fn object(body: &[u8]) -> Result<Arc<Object>, Status> {
    let value: Value = serde_json::from_slice(body).map_err(garbled)?;
    Object::from_wire(value).map(Arc::new).map_err(garbled)
}

fn garbled(error: impl std::fmt::Display) -> Status {
    Status::internal(format!("the server's answer cannot be read: {error}"))
}

pub fn list(body: &[u8]) -> Result<ObjectList, Status> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct List {
        #[serde(default)]
        api_version: String,
        #[serde(default)]
        kind: String,
        #[serde(default)]
        metadata: Metadata,
        items: Option<Vec<Value>>,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Metadata {
        resource_version: String,
        #[serde(rename = "continue")]
        continue_token: String,
        remaining_item_count: Option<u64>,
    }
    let list: List = serde_json::from_slice(body).map_err(garbled)?;
    let item_kind = list.kind.strip_suffix("List").unwrap_or_default();
    let item = |mut value: Value| {
        // Items of a typed list do not repeat their kind.
        if value.get("kind").is_none() {
            value["kind"] = Value::from(item_kind);
            value["apiVersion"] = Value::from(list.api_version.as_str());
        }
        Object::from_wire(value).map(Arc::new).map_err(garbled)
    };
    Ok(ObjectList {
        items: list.items.unwrap_or_default().into_iter().map(item).collect::<Result<_, _>>()?,
        revision: list.metadata.resource_version.parse().unwrap_or(0),
        continue_token: list.metadata.continue_token,
        remaining_items: list.metadata.remaining_item_count,
    })
}

/// A delete answers with the object while it lingers, else with a `Status` (or the last state).
pub fn deleted(target: &Target, body: &[u8]) -> Result<Deleted, Status> {
    let mut value: Value = serde_json::from_slice(body).map_err(garbled)?;
    if value["kind"] == "Status" {
        value = serde_json::json!({"metadata": {
            "name": target.name,
            "namespace": target.namespace,
            "uid": value["details"]["uid"].as_str().unwrap_or_default(),
        }});
    }
    let object = Object::from_wire(value).map(Arc::new).map_err(garbled)?;
    let lingers = object.meta().deletion_timestamp.is_some();
    Ok(if lingers { Deleted::Later(object) } else { Deleted::Now(object) })
}

struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
    searched: usize,
    ended: bool,
}

impl Lines {
    async fn next(&mut self) -> Option<Result<Vec<u8>, Status>> {
        loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(self.searched + at + 1);
                self.searched = 0;
                return Some(Ok(std::mem::replace(&mut self.buffer, rest)));
            }
            self.searched = self.buffer.len();
            if self.ended || self.buffer.len() > LINE_MAX {
                return None;
            }
            match self.body.frame().await {
                None => self.ended = true,
                Some(Ok(frame)) => self.buffer.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
                Some(Err(error)) => {
                    self.ended = true;
                    return Some(Err(Status::service_unavailable(format!("the watch broke: {error}"))));
                }
            }
        }
    }
}

/// The events of a watch answer.
pub fn watch(body: Incoming) -> impl Stream<Item = Result<WatchEvent, Status>> {
    let lines = Lines { body, buffer: Vec::new(), searched: 0, ended: false };
    futures::stream::unfold(Some(lines), |lines| async move {
        let mut lines = lines?;
        let event = match lines.next().await? {
            Ok(line) => event(&line),
            Err(status) => Err(status),
        };
        let next = event.is_ok().then_some(lines);
        Some((event, next))
    })
}

fn event(line: &[u8]) -> Result<WatchEvent, Status> {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
        #[serde(borrow)]
        object: &'a RawValue,
    }
    let event: Event<'_> = serde_json::from_slice(line).map_err(garbled)?;
    if event.kind == "ERROR" {
        return Err(serde_json::from_str::<Status>(event.object.get()).unwrap_or_else(garbled));
    }
    let object = object(event.object.get().as_bytes())?;
    match event.kind {
        "ADDED" => Ok(WatchEvent::Added(object)),
        "MODIFIED" => Ok(WatchEvent::Modified(object)),
        "DELETED" => Ok(WatchEvent::Deleted(object)),
        "BOOKMARK" => {
            let value = object.value();
            let initial = value.pointer("/metadata/annotations/k8s.io~1initial-events-end");
            Ok(WatchEvent::Bookmark { revision: object.revision(), initial_events_end: initial.is_some() })
        }
        other => Err(garbled(format!("unknown event {other:?}"))),
    }
}
