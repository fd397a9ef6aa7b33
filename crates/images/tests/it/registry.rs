//! A registry in the test's own process: serves what it is given, and misbehaves when told to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A request as it came in: path with query, and headers in lower case.
pub struct Request {
    pub path: String,
    pub headers: BTreeMap<String, String>,
}

pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Close the connection after so many bytes of the body.
    pub cut_at: Option<usize>,
}

impl Response {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), cut_at: None }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

type Rule = Box<dyn Fn(&Request) -> Option<Response> + Send + Sync>;

/// A running registry. Rules are asked first; then the content.
#[derive(Clone)]
pub struct Registry {
    pub host: String,
    content: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    rules: Arc<Mutex<Vec<Rule>>>,
    pub log: Arc<Mutex<Vec<String>>>,
    pub blobs_served: Arc<AtomicUsize>,
}

pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

impl Registry {
    pub async fn start() -> Self {
        Self::serve(None).await
    }

    /// Speaks TLS when given an acceptor.
    pub async fn serve(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registry = Self {
            host: listener.local_addr().unwrap().to_string(),
            content: Arc::default(),
            rules: Arc::default(),
            log: Arc::default(),
            blobs_served: Arc::default(),
        };
        let serving = registry.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (registry, tls) = (serving.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => registry.connection(stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                registry.connection(stream).await;
                            }
                        }
                    }
                });
            }
        });
        registry
    }

    pub fn rule(&self, rule: impl Fn(&Request) -> Option<Response> + Send + Sync + 'static) {
        self.rules.lock().push(Box::new(rule));
    }

    /// Stores a blob and returns its digest.
    pub fn blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        self.content.lock().insert(format!("/v2/{repository}/blobs/{digest}"), bytes.to_vec());
        digest
    }

    /// Stores a manifest under its digest and a tag, and returns the digest.
    pub fn manifest(&self, repository: &str, tag: &str, manifest: &serde_json::Value) -> String {
        let bytes = serde_json::to_vec(manifest).unwrap();
        let digest = digest(&bytes);
        for name in [tag, &digest] {
            self.content.lock().insert(format!("/v2/{repository}/manifests/{name}"), bytes.clone());
        }
        digest
    }

    async fn connection(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        while let Some(request) = read(&mut stream).await {
            self.log.lock().push(request.path.clone());
            let response = self.respond(&request);
            let reason = "status";
            let mut head = format!(
                "HTTP/1.1 {} {reason}\r\ncontent-length: {}\r\n",
                response.status,
                response.body.len()
            );
            for (name, value) in &response.headers {
                head += &format!("{name}: {value}\r\n");
            }
            let end = response.cut_at.unwrap_or(response.body.len());
            let bytes = [head.as_bytes(), b"\r\n", &response.body[..end]].concat();
            if stream.write_all(&bytes).await.is_err() || response.cut_at.is_some() {
                return;
            }
        }
    }

    fn respond(&self, request: &Request) -> Response {
        if let Some(response) = self.rules.lock().iter().find_map(|rule| rule(request)) {
            return response;
        }
        let content = self.content.lock();
        let Some(bytes) = content.get(&request.path) else {
            return Response::new(
                404,
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
            );
        };
        if request.path.contains("/blobs/") {
            self.blobs_served.fetch_add(1, Ordering::Relaxed);
        }
        let start = request
            .headers
            .get("range")
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        match start {
            Some(start) => Response::new(206, &bytes[start..])
                .header("content-range", format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len())),
            None => Response::new(200, bytes.clone()),
        }
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let text = String::from_utf8(head).ok()?;
    let mut lines = text.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request { path, headers })
}
