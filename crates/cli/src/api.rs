//! The seam to the server: what the commands need of HTTP.

use async_trait::async_trait;
use bytes::Bytes;
use client::Http;
use futures::stream::{BoxStream, StreamExt};
use http::Method;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName};
use http_body_util::BodyExt;
use machinery::Status;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What stands unescaped in a query value.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// A request that is answered as a whole.
pub struct Request<'a> {
    pub method: Method,
    /// With the query.
    pub path: &'a str,
    pub accept: &'a str,
    /// Empty without a body.
    pub content_type: &'a str,
    pub body: Bytes,
}

/// An API server.
#[async_trait]
pub trait Api: Send + Sync {
    /// The whole answer to a request.
    async fn fetch(&self, request: Request<'_>) -> Result<Bytes, Status>;

    /// The answer to a `GET`, as it comes in.
    async fn stream(
        &self,
        path: &str,
        accept: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, Status>>, Status>;

    /// A connection that was upgraded to a WebSocket of one protocol.
    async fn upgrade(&self, path: &str, protocol: &str) -> Result<streaming::Io, Status>;
}

#[async_trait]
impl Api for Http {
    async fn fetch(&self, request: Request<'_>) -> Result<Bytes, Status> {
        let mut headers: Vec<(HeaderName, &str)> = vec![(ACCEPT, request.accept)];
        if !request.content_type.is_empty() {
            headers.push((CONTENT_TYPE, request.content_type));
        }
        Http::fetch(self, request.method, request.path, &headers, request.body).await
    }

    async fn stream(
        &self,
        path: &str,
        accept: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, Status>>, Status> {
        let answer = self.send(Method::GET, path, &[(ACCEPT, accept)], Bytes::new()).await?;
        let broken = |error| Status::service_unavailable(format!("reading the answer: {error}"));
        Ok(answer.into_body().into_data_stream().map(move |part| part.map_err(broken)).boxed())
    }

    async fn upgrade(&self, path: &str, protocol: &str) -> Result<streaming::Io, Status> {
        let (io, agreed) = Http::upgrade(self, path, &[protocol]).await?;
        if agreed != protocol {
            return Err(Status::bad_request(format!("the server speaks {agreed:?}, not {protocol:?}")));
        }
        Ok(Box::new(io))
    }
}

/// A path with the parameters that are not empty.
pub fn with_query(path: &str, parameters: &[(&str, &str)]) -> String {
    let mut path = path.to_owned();
    let mut separator = if path.contains('?') { '&' } else { '?' };
    for (name, value) in parameters.iter().filter(|(_, value)| !value.is_empty()) {
        path.push(separator);
        path.push_str(name);
        path.push('=');
        path.extend(utf8_percent_encode(value, QUERY));
        separator = '&';
    }
    path
}
