//! The transport that speaks HTTPS to an API server.

mod body;
mod connect;
mod insecure;
mod request;
mod resolve;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, Method, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use machinery::{Object, Status};
use serde_json::Value;

use crate::{
    DeleteOptions, Deleted, ListOptions, ObjectList, Patch, Target, Transport, WatchOptions, WatchStream,
    WriteOptions,
};
use connect::Connector;

pub use connect::{HttpError, Server};
pub use insecure::AnyCertificate;

/// The largest answer that is read into memory (lists of a whole cluster are paged well below it).
const ANSWER_MAX: usize = 512 << 20;

/// HTTPS to one API server. Follows no redirects.
pub struct Http {
    pool: ArcSwap<Pool<Connector, Full<Bytes>>>,
    connector: Connector,
    base: String,
    headers: HeaderMap,
}

/// A connection on which nothing came for this long is asked whether it still is one.
const PING_AFTER: Duration = Duration::from_secs(10);
/// How long the answer may take. A server that is gone without a word is noticed, and watches begin anew elsewhere.
const PING_PATIENCE: Duration = Duration::from_secs(5);

fn pool(connector: &Connector) -> Pool<Connector, Full<Bytes>> {
    Pool::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(PING_AFTER)
        .http2_keep_alive_timeout(PING_PATIENCE)
        .http2_keep_alive_while_idle(true)
        .build(connector.clone())
}

/// An answer whose status is a success.
pub type Answer = http::Response<Incoming>;

impl Http {
    /// A client of `server`; connects at the first request.
    pub fn new(server: &Server) -> Result<Self, HttpError> {
        let connector = Connector::new(server)?;
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, value(&server.user_agent)?);
        if let Some(token) = &server.token {
            let mut bearer = value(&format!("Bearer {token}"))?;
            bearer.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, bearer);
        }
        let pool = ArcSwap::from_pointee(pool(&connector));
        Ok(Self { pool, connector, base: server.url.trim_end_matches('/').to_owned(), headers })
    }

    /// Later requests go over new connections, which show the client's newest certificate. What is under way ends on
    /// its own.
    pub fn reconnect(&self) {
        self.pool.store(Arc::new(pool(&self.connector)));
    }

    /// Sends a request to a path (with query) of the server. Failures become the server's own `Status`.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        extra: &[(header::HeaderName, &str)],
        body: Bytes,
    ) -> Result<Answer, Status> {
        let mut request = http::Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(headers) = request.headers_mut() {
            headers.extend(self.headers.clone());
            for (name, text) in extra {
                headers.insert(
                    name.clone(),
                    value(text).map_err(|error| Status::bad_request(error.to_string()))?,
                );
            }
        }
        let request =
            request.body(Full::new(body)).map_err(|error| Status::bad_request(error.to_string()))?;
        let answer = self
            .pool
            .load_full()
            .request(request)
            .await
            .map_err(|error| unreachable_server(&self.base, &error))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        Err(failure(answer).await)
    }

    /// Sends a request and reads the whole answer.
    pub async fn fetch(
        &self,
        method: Method,
        path: &str,
        extra: &[(header::HeaderName, &str)],
        body: Bytes,
    ) -> Result<Bytes, Status> {
        read(self.send(method, path, extra, body).await?.into_body()).await
    }

    /// Opens a connection of its own and upgrades it to a WebSocket with one of `protocols`. Returns the stream
    /// behind the handshake and the protocol that the server chose.
    pub async fn upgrade(
        &self,
        path: &str,
        protocols: &[&str],
    ) -> Result<(hyper_util::rt::TokioIo<hyper::upgrade::Upgraded>, String), Status> {
        request::upgrade(&self.connector, &self.base, path, &self.headers, protocols).await
    }

    async fn object(&self, method: Method, path: &str, body: Option<Value>) -> Result<Arc<Object>, Status> {
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let answer = self.fetch(method, path, &request::JSON, body).await?;
        body::object(&answer)
    }
}

#[async_trait]
impl Transport for Http {
    async fn get(&self, target: &Target, options: &ListOptions) -> Result<Arc<Object>, Status> {
        self.object(Method::GET, &request::list_path(target, options), None).await
    }

    async fn list(&self, target: &Target, options: &ListOptions) -> Result<ObjectList, Status> {
        let path = request::list_path(target, options);
        body::list(&self.fetch(Method::GET, &path, &request::JSON, Bytes::new()).await?)
    }

    async fn watch(&self, target: &Target, options: &WatchOptions) -> Result<WatchStream, Status> {
        let path = request::watch_path(target, options);
        let answer = self.send(Method::GET, &path, &request::JSON, Bytes::new()).await?;
        Ok(body::watch(answer.into_body()).boxed())
    }

    async fn create(
        &self,
        target: &Target,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status> {
        let path = match target.subresource.as_str() {
            "" => request::write_path(&Target { name: String::new(), ..target.clone() }, options),
            _ => request::write_path(target, options),
        };
        self.object(Method::POST, &path, Some(body)).await
    }

    async fn update(
        &self,
        target: &Target,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status> {
        self.object(Method::PUT, &request::write_path(target, options), Some(body)).await
    }

    async fn patch(
        &self,
        target: &Target,
        patch: Patch,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status> {
        let (media_type, body) = request::patch_body(patch);
        let headers = [(header::ACCEPT, "application/json"), (header::CONTENT_TYPE, media_type)];
        let path = request::write_path(target, options);
        let answer = self.fetch(Method::PATCH, &path, &headers, Bytes::from(body.to_string())).await?;
        body::object(&answer)
    }

    async fn delete(&self, target: &Target, options: &DeleteOptions) -> Result<Deleted, Status> {
        let path = request::write_path(target, &WriteOptions::default());
        let answer = self.fetch(Method::DELETE, &path, &request::JSON, request::delete_body(options)).await?;
        body::deleted(target, &answer)
    }

    async fn delete_collection(
        &self,
        target: &Target,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<(), Status> {
        let path = request::list_path(target, list);
        self.fetch(Method::DELETE, &path, &request::JSON, request::delete_body(options)).await.map(drop)
    }

    async fn raw(&self, path: &str) -> Result<Bytes, Status> {
        self.fetch(Method::GET, path, &[], Bytes::new()).await
    }
}

fn value(text: &str) -> Result<HeaderValue, HttpError> {
    HeaderValue::from_str(text).map_err(|_| HttpError::Header(text.to_owned()))
}

/// Reads a body to its end, up to a bound.
pub async fn read(body: Incoming) -> Result<Bytes, Status> {
    let limited = Limited::new(body, ANSWER_MAX).collect().await;
    limited
        .map(|all| all.to_bytes())
        .map_err(|error| Status::service_unavailable(format!("reading the answer: {error}")))
}

async fn failure(answer: Answer) -> Status {
    let code = answer.status().as_u16();
    match read(answer.into_body()).await {
        Ok(body) => match serde_json::from_slice::<Status>(&body) {
            Ok(status) if status.kind == "Status" => status,
            _ => Status::failure(code, "", String::from_utf8_lossy(&body).trim().to_owned()),
        },
        Err(status) => status,
    }
}

fn unreachable_server(base: &str, error: &hyper_util::client::legacy::Error) -> Status {
    let mut causes = vec![error.to_string()];
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    Status::service_unavailable(format!("cannot reach the API server at {base}: {}", causes.join(": ")))
}
