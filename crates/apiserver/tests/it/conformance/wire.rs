//! Requests as clients on the wire make them: JSON in, JSON out.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use client::Http;
use futures::{Stream, StreamExt};
use http::{Method, header};
use http_body_util::BodyExt;
use machinery::Status;
use serde_json::Value;

/// How long anything may take that a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const JSON: &str = "application/json";
pub const MERGE: &str = "application/merge-patch+json";
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub const JSON_PATCH: &str = "application/json-patch+json";
pub const APPLY: &str = "application/apply-patch+yaml";

/// A client and its identity.
pub struct Wire(pub Http);

impl Wire {
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: String,
    ) -> Result<Value, Status> {
        let headers = [(header::CONTENT_TYPE, content_type), (header::ACCEPT, JSON)];
        let answer = self.0.fetch(method, path, &headers, Bytes::from(body)).await?;
        Ok(serde_json::from_slice(&answer).unwrap_or_default())
    }

    pub async fn get(&self, path: &str) -> Result<Value, Status> {
        self.send(Method::GET, path, JSON, String::new()).await
    }

    /// A GET with an `Accept` header: the answer's content type and its body.
    pub async fn get_as(&self, path: &str, accept: &str) -> Result<(String, Bytes), Status> {
        let headers = [(header::ACCEPT, accept)];
        let answer = self.0.send(Method::GET, path, &headers, Bytes::new()).await?;
        let content_type = answer.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
        Ok((content_type, client::http::read(answer.into_body()).await?))
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Status> {
        self.send(Method::POST, path, JSON, body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Result<Value, Status> {
        self.send(Method::PUT, path, JSON, body.to_string()).await
    }

    pub async fn patch(&self, path: &str, content_type: &str, body: &Value) -> Result<Value, Status> {
        self.send(Method::PATCH, path, content_type, body.to_string()).await
    }

    pub async fn delete(&self, path: &str) -> Result<Value, Status> {
        self.send(Method::DELETE, path, JSON, String::new()).await
    }

    pub async fn delete_with(&self, path: &str, options: &Value) -> Result<Value, Status> {
        self.send(Method::DELETE, path, JSON, options.to_string()).await
    }

    /// The items of a list.
    pub async fn items(&self, path: &str) -> Vec<Value> {
        match self.get(path).await.unwrap()["items"].take() {
            Value::Array(items) => items,
            other => panic!("{path}: no list of items: {other}"),
        }
    }

    /// A watch that was accepted when this returns.
    pub async fn watch(&self, path: &str) -> Events {
        let headers = [(header::ACCEPT, JSON)];
        let answer = self.0.send(Method::GET, path, &headers, Bytes::new()).await.unwrap();
        let body = answer.into_body().into_data_stream().map(|chunk| chunk.unwrap());
        Events { body: body.boxed(), buffer: BytesMut::new() }
    }

    /// Asks again and again until the answer is right. For what other components bring about.
    pub async fn until(&self, what: &str, path: &str, is_right: impl Fn(&Result<Value, Status>) -> bool) {
        let started = tokio::time::Instant::now();
        loop {
            let answer = self.get(path).await;
            if is_right(&answer) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}: {answer:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn until_gone(&self, path: &str) {
        self.until("the object is gone", path, |answer| answer.as_ref().is_err_and(Status::is_not_found))
            .await;
    }
}

/// The events of a watch.
pub struct Events {
    body: futures::stream::BoxStream<'static, Bytes>,
    buffer: BytesMut,
}

impl Events {
    /// The next event: its type and object.
    pub async fn next(&mut self) -> (String, Value) {
        tokio::time::timeout(PATIENCE, self.line()).await.expect("the watch says something in time")
    }

    async fn line(&mut self) -> (String, Value) {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                let mut event: Value = serde_json::from_slice(&line).unwrap();
                return (event["type"].as_str().unwrap().to_owned(), event["object"].take());
            }
            let chunk = next_chunk(&mut self.body).await;
            self.buffer.extend_from_slice(&chunk.expect("the watch goes on"));
        }
    }

    /// Reads until an event of a type about an object for which `is_right` holds.
    pub async fn until(&mut self, kind: &str, is_right: impl Fn(&Value) -> bool) -> Value {
        loop {
            let (found, object) = self.next().await;
            assert_ne!(found, "ERROR", "{object}");
            if found == kind && is_right(&object) {
                return object;
            }
        }
    }

    /// Whether nothing comes for a moment.
    pub async fn is_quiet(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(200), self.line()).await.is_err()
    }
}

async fn next_chunk(body: &mut (impl Stream<Item = Bytes> + Unpin)) -> Option<Bytes> {
    body.next().await
}
