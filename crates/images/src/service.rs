//! The image interface, as the kubelet and the runtime see it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// An image on this machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// The digest of its configuration: `sha256:…`.
    pub id: String,
    /// Full names with tags, `docker.io/library/nginx:latest`.
    pub tags: Vec<String>,
    /// Full names with digests.
    pub digests: Vec<String>,
    pub size_bytes: u64,
    pub config: ImageConfig,
    /// The unpacked layers, lowest first, as overlayfs takes them.
    pub layers: Vec<PathBuf>,
}

/// What the image says about the process it wants.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    pub entrypoint: Vec<String>,
    pub command: Vec<String>,
    pub environment: Vec<String>,
    pub working_directory: String,
    /// `user`, `uid`, `user:group`, …
    pub user: String,
    pub exposed_ports: Vec<String>,
    pub volumes: Vec<PathBuf>,
    /// `SIGTERM` when empty.
    pub stop_signal: String,
    pub labels: BTreeMap<String, String>,
}

/// A user name and password for a registry, or a token.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    pub identity_token: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Credentials({})", self.username)
    }
}

/// How one registry host is reached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// Base URLs tried in order before the host itself.
    pub mirrors: Vec<String>,
    /// Speak plain HTTP to the host itself.
    pub plain_http: bool,
    pub username: String,
    pub password: String,
    /// A PEM file with the CA of the host.
    pub ca_file: Option<PathBuf>,
}

/// Registry host → how to reach it.
pub type Registries = BTreeMap<String, RegistryConfig>;

/// Why an image is not to be had. The variants are what the kubelet tells apart.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("invalid image name {name:?}: {cause}")]
    InvalidName { name: String, cause: String },
    #[error("image {0} not found")]
    NotFound(String),
    /// Wrong or missing credentials.
    #[error("pull access to {name} denied: {cause}")]
    Denied { name: String, cause: String },
    /// The registry did not answer or answered nonsense.
    #[error("registry of {name}: {cause}")]
    Registry { name: String, cause: String },
    #[error("image {name} is damaged: {cause}")]
    Damaged { name: String, cause: String },
    #[error("{what}")]
    Io {
        what: String,
        #[source]
        source: std::io::Error,
    },
}

/// The images of this machine.
#[async_trait]
pub trait ImageService: Send + Sync {
    /// Fetches an image (all credentials are tried in order, then none) and returns it. Simultaneous pulls of one
    /// image share the work; a finished layer is never fetched again.
    async fn pull(&self, name: &str, credentials: &[Credentials]) -> Result<Image, ImageError>;
    /// Finds by name (short names are completed with `docker.io/library/` and `:latest`), digest or ID.
    async fn find(&self, name: &str) -> Result<Option<Image>, ImageError>;
    async fn list(&self) -> Result<Vec<Image>, ImageError>;
    /// Removes a name, or the image with all its names when given an ID. Layers in use elsewhere stay.
    async fn remove(&self, name: &str) -> Result<(), ImageError>;
}
