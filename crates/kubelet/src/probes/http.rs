//! One HTTP GET for a probe or hook: a bounded body, a deadline, redirects only on the same host.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::HTTPGetAction;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::{Prober, address, connect_error};

/// What is kept of an answer's body.
const MAX_BODY: usize = 10 * 1024;
const MAX_REDIRECTS: usize = 10;

/// What to get.
#[derive(Clone, Debug)]
pub struct Request {
    pub https: bool,
    pub host: String,
    pub port: u16,
    pub path: String,
    pub headers: Vec<(String, String)>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Status {
        code: u16,
        body: Vec<u8>,
    },
    /// No answer, in Go's words.
    Failed(String),
}

impl Request {
    /// From the API's action; `pod_ip` is asked unless it names a host.
    pub fn of(get: &HTTPGetAction, port: u16, pod_ip: &str) -> Self {
        let host = get.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_ip).to_owned();
        let path = get.path.as_deref().unwrap_or_default();
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let headers = get.http_headers.iter().flatten();
        Self {
            https: get.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
            host,
            port,
            path,
            headers: headers.map(|header| (header.name.clone(), header.value.clone())).collect(),
        }
    }

    fn url(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}{}", address(&self.host, self.port), self.path)
    }

    /// Follows a redirect on the same host; `None` when it leads elsewhere, which then counts as success.
    fn redirected(&self, location: &str) -> Option<Self> {
        if location.starts_with('/') && !location.starts_with("//") {
            return Some(Self { path: location.to_owned(), ..self.clone() });
        }
        let uri: http::Uri = location.parse().ok()?;
        let https = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let host = uri.host()?.trim_matches(['[', ']']);
        if host != self.host {
            return None;
        }
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Some(Self { https, port, path, ..self.clone() })
    }
}

/// Gets, following redirects on the same host.
pub async fn get(prober: &Prober, request: &Request, limit: Duration) -> Answer {
    let mut request = request.clone();
    let first = request.url();
    let work = async {
        for _ in 0..=MAX_REDIRECTS {
            let (code, location, body) = once(prober, &request).await?;
            let next = location.filter(|_| (300..400).contains(&code)).and_then(|to| request.redirected(&to));
            match next {
                Some(next) => request = next,
                None => return Ok(Answer::Status { code, body }),
            }
        }
        Err(format!("stopped after {MAX_REDIRECTS} redirects"))
    };
    match tokio::time::timeout(limit, work).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(cause)) => Answer::Failed(format!("Get {first:?}: {cause}")),
        Err(_late) => Answer::Failed(format!(
            "Get {first:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
    }
}

async fn once(prober: &Prober, request: &Request) -> Result<(u16, Option<String>, Vec<u8>), String> {
    let connected = TcpStream::connect((request.host.as_str(), request.port)).await;
    let stream = connected.map_err(|error| {
        format!("dial tcp {}: {}", address(&request.host, request.port), connect_error(&error))
    })?;
    if !request.https {
        return exchange(stream, request).await;
    }
    let name = ServerName::try_from(request.host.clone()).map_err(|error| error.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(prober.tls.clone());
    let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
    exchange(stream, request).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: &Request,
) -> Result<(u16, Option<String>, Vec<u8>), String> {
    let text = |error: hyper::Error| {
        if error.is_incomplete_message() { "EOF".to_owned() } else { error.to_string() }
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let message = message(request)?;
    let connection = async move {
        // How the connection ended is told by the answer.
        let _ended = connection.await;
        std::future::pending::<()>().await;
    };
    let answer = async {
        let mut response = sender.send_request(message).await.map_err(text)?;
        let code = response.status().as_u16();
        let location =
            response.headers().get("location").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut body = Vec::new();
        while let Some(frame) = response.frame().await {
            if let Ok(data) = frame.map_err(text)?.into_data() {
                body.extend_from_slice(&data[..data.len().min(MAX_BODY - body.len())]);
            }
            if body.len() >= MAX_BODY {
                break;
            }
        }
        Ok((code, location, body))
    };
    tokio::select! {
        answer = answer => answer,
        () = connection => Err("EOF".to_owned()),
    }
}

fn message(request: &Request) -> Result<http::Request<Empty<Bytes>>, String> {
    let mut builder = http::Request::get(&request.path);
    let named = |name: &str| request.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
    if !named("host") {
        builder = builder.header("host", address(&request.host, request.port));
    }
    if !named("user-agent") {
        builder = builder.header("user-agent", "kube-probe/1.36");
    }
    if !named("accept") {
        builder = builder.header("accept", "*/*");
    }
    for (name, value) in request.headers.iter().filter(|(_, value)| !value.is_empty()) {
        builder = builder.header(name, value);
    }
    builder.header("connection", "close").body(Empty::new()).map_err(|error| error.to_string())
}
