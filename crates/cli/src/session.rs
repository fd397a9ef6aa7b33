//! One run of a command: the server, the namespace, and where output goes.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use client::{Http, Kubeconfig};
use env::Env;
use futures::stream::BoxStream;
use http::Method;
use machinery::Status;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::api::{Api, Request};
use crate::discovery::{self, Discovery, Kind};
use crate::{Error, Global};

/// What the server's kubeconfig is when nobody made one of their own.
const MACHINE_KUBECONFIG: &str = "/var/lib/kobune/kubeconfig";
const AGENT: &str = concat!("kobune-kubectl/", env!("CARGO_PKG_VERSION"));

/// A place for text.
pub struct Sink(Mutex<Box<dyn Write + Send>>);

impl Sink {
    pub fn new(sink: impl Write + Send + 'static) -> Self {
        Self(Mutex::new(Box::new(sink)))
    }

    /// Writes text as it is, and flushes.
    pub fn text(&self, text: &str) -> Result<(), Error> {
        self.bytes(text.as_bytes())
    }

    pub fn bytes(&self, bytes: &[u8]) -> Result<(), Error> {
        let mut sink = self.0.lock();
        sink.write_all(bytes)?;
        sink.flush()?;
        Ok(())
    }

    /// Writes a line.
    pub fn line(&self, line: impl AsRef<str>) -> Result<(), Error> {
        self.text(&format!("{}\n", line.as_ref()))
    }
}

/// The connection and the surroundings of a command.
pub struct Session {
    pub api: Arc<dyn Api>,
    pub namespace: String,
    /// Whether the user named the namespace, which manifests must then not contradict.
    pub namespace_given: bool,
    /// The server's URL.
    pub server: String,
    pub out: Sink,
    pub err: Sink,
    pub env: Env,
    discovery: OnceCell<Arc<Discovery>>,
}

impl Session {
    /// Connects as the kubeconfig says; the first request opens the connection.
    pub fn open(global: &Global) -> Result<Self, Error> {
        let path = kubeconfig_path(global)?;
        let config = Kubeconfig::load(&path, global.context.as_deref(), AGENT)?;
        let http = Http::new(&config.server)?;
        let namespace = [global.namespace.clone().unwrap_or_default(), config.namespace, "default".into()];
        let namespace = namespace.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
        Ok(Self {
            namespace_given: global.namespace.is_some(),
            server: config.server.url,
            ..Self::over(Arc::new(http), &namespace)
        })
    }

    /// A session with an API server of any kind.
    pub fn over(api: Arc<dyn Api>, namespace: &str) -> Self {
        Self {
            api,
            namespace: namespace.to_owned(),
            namespace_given: false,
            server: String::new(),
            out: Sink::new(std::io::stdout()),
            err: Sink::new(std::io::stderr()),
            env: Env::system(),
            discovery: OnceCell::new(),
        }
    }

    /// A session without a server, for what needs none.
    pub fn detached() -> Self {
        Self::over(Arc::new(Nowhere), "default")
    }

    /// What the server can do; asked once.
    pub async fn discovery(&self) -> Result<&Discovery, Error> {
        let found = self.discovery.get_or_try_init(|| discovery::load(&*self.api)).await?;
        Ok(found)
    }

    /// The kind that a name on the command line means.
    pub async fn kind(&self, name: &str) -> Result<Arc<Kind>, Error> {
        let found = self.discovery().await?.find(name);
        found.ok_or_else(|| Error::usage(format!("the server doesn't have a resource type {name:?}")))
    }

    /// The namespace of a kind's objects: none for cluster-scoped ones.
    pub fn namespace_of(&self, kind: &Kind) -> &str {
        if kind.namespaced { &self.namespace } else { "" }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Option<&Value>,
    ) -> Result<Value, Error> {
        let content_type = if body.is_some() { kind } else { "" };
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request = Request { method, path, accept: "application/json", content_type, body };
        read(&self.api.fetch(request).await?)
    }

    pub async fn get(&self, path: &str) -> Result<Value, Error> {
        self.call(Method::GET, path, "", None).await
    }

    /// As [`Session::get`], in another representation.
    pub async fn get_as(&self, path: &str, accept: &str) -> Result<Value, Error> {
        let request = Request { method: Method::GET, path, accept, content_type: "", body: Bytes::new() };
        read(&self.api.fetch(request).await?)
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Error> {
        self.call(Method::POST, path, "application/json", Some(body)).await
    }

    /// Sends a patch of a media type.
    pub async fn patch(&self, path: &str, media_type: &str, body: &Value) -> Result<Value, Error> {
        self.call(Method::PATCH, path, media_type, Some(body)).await
    }

    pub async fn delete(&self, path: &str, body: &Value) -> Result<Value, Error> {
        self.call(Method::DELETE, path, "application/json", Some(body)).await
    }
}

/// The media types of patches.
pub mod media {
    pub const JSON_PATCH: &str = "application/json-patch+json";
    pub const MERGE: &str = "application/merge-patch+json";
    pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
    pub const APPLY: &str = "application/apply-patch+yaml";
}

fn read(bytes: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::usage(format!("the server's answer cannot be read: {error}")))
}

/// The kubeconfig to use: the first that exists of those that may be meant.
pub fn kubeconfig_path(global: &Global) -> Result<PathBuf, Error> {
    if let Some(path) = &global.kubeconfig {
        return Ok(path.clone());
    }
    let listed = std::env::var_os("KUBECONFIG").filter(|list| !list.is_empty());
    let mut candidates: Vec<PathBuf> =
        listed.map(|list| std::env::split_paths(&list).collect()).unwrap_or_default();
    if candidates.is_empty() {
        candidates.extend(std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube/config")));
        candidates.push(PathBuf::from(MACHINE_KUBECONFIG));
    }
    let found = candidates.iter().find(|path| path.is_file());
    found.cloned().ok_or_else(|| {
        let tried: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
        Error::usage(format!("no kubeconfig found; looked for {}", tried.join(", ")))
    })
}

/// What stands in for a server where none is needed.
struct Nowhere;

#[async_trait]
impl Api for Nowhere {
    async fn fetch(&self, _: Request<'_>) -> Result<Bytes, Status> {
        Err(Status::service_unavailable("not connected to a server"))
    }

    async fn stream(&self, _: &str, _: &str) -> Result<BoxStream<'static, Result<Bytes, Status>>, Status> {
        Err(Status::service_unavailable("not connected to a server"))
    }

    async fn upgrade(&self, _: &str, _: &str) -> Result<streaming::Io, Status> {
        Err(Status::service_unavailable("not connected to a server"))
    }
}
