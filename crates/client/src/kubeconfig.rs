//! kubeconfig files: which server, whose credentials.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::http::Server;

/// Why a kubeconfig cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} is not a kubeconfig: {cause}")]
    Parse { path: PathBuf, cause: String },
    #[error("{path} has no {what} named {name:?}")]
    Missing { path: PathBuf, what: &'static str, name: String },
    #[error("{path}: {field} is not valid base64")]
    Base64 { path: PathBuf, field: &'static str },
    /// Plugins and providers would need programs of their own.
    #[error(
        "{path}: user {user:?} authenticates by {method}, which is not supported here; use a certificate or a token"
    )]
    Unsupported { path: PathBuf, user: String, method: &'static str },
}

/// A context of a kubeconfig, resolved.
pub struct Kubeconfig {
    pub server: Server,
    /// The context's namespace; empty when it names none.
    pub namespace: String,
    pub context: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct File {
    clusters: Vec<Named<Cluster>>,
    users: Vec<Named<User>>,
    contexts: Vec<Named<Context>>,
    current_context: String,
}

#[derive(Deserialize)]
struct Named<T> {
    name: String,
    #[serde(alias = "cluster", alias = "user", alias = "context")]
    value: T,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    exec: Option<serde_json::Value>,
    auth_provider: Option<serde_json::Value>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
    namespace: String,
}

impl Kubeconfig {
    /// Reads a file and resolves `context` (the current one when `None`).
    pub fn load(path: &Path, context: Option<&str>, user_agent: &str) -> Result<Self, KubeconfigError> {
        let text = read(path)?;
        let file: File = serde_saphyr::from_str(&text)
            .map_err(|error| KubeconfigError::Parse { path: path.to_owned(), cause: error.to_string() })?;
        let context = context.unwrap_or(&file.current_context).to_owned();
        let chosen = find(path, "context", &file.contexts, &context)?;
        let cluster = find(path, "cluster", &file.clusters, &chosen.cluster)?;
        let user = match chosen.user.as_str() {
            "" => User::default(),
            name => find(path, "user", &file.users, name)?,
        };
        let server = server(path, cluster, &chosen.user, user, user_agent)?;
        Ok(Self { server, namespace: chosen.namespace, context })
    }
}

fn find<T: Clone>(
    path: &Path,
    what: &'static str,
    all: &[Named<T>],
    name: &str,
) -> Result<T, KubeconfigError> {
    let found = all.iter().find(|named| named.name == name).map(|named| named.value.clone());
    found.ok_or_else(|| KubeconfigError::Missing { path: path.to_owned(), what, name: name.to_owned() })
}

fn server(
    path: &Path,
    cluster: Cluster,
    name: &str,
    user: User,
    agent: &str,
) -> Result<Server, KubeconfigError> {
    let unsupported =
        |method| KubeconfigError::Unsupported { path: path.to_owned(), user: name.to_owned(), method };
    if user.exec.is_some() {
        return Err(unsupported("an exec plugin"));
    }
    if user.auth_provider.is_some() {
        return Err(unsupported("an auth provider"));
    }
    let authority = pem(
        path,
        "certificate-authority-data",
        cluster.certificate_authority_data,
        cluster.certificate_authority,
    )?;
    let certificate =
        pem(path, "client-certificate-data", user.client_certificate_data, user.client_certificate)?;
    let key = pem(path, "client-key-data", user.client_key_data, user.client_key)?;
    let token = match (user.token, user.token_file) {
        (Some(token), _) => Some(token),
        (None, Some(file)) => Some(read(&beside(path, &file))?.trim().to_owned()),
        (None, None) => None,
    };
    Ok(Server {
        url: cluster.server,
        certificate_authority: authority.unwrap_or_default(),
        client_certificate: certificate.zip(key),
        client_identity: None,
        token,
        tls_server_name: cluster.tls_server_name,
        insecure_skip_tls_verify: cluster.insecure_skip_tls_verify,
        user_agent: agent.to_owned(),
    })
}

/// Inline data wins over a file, as in client-go.
fn pem(
    path: &Path,
    field: &'static str,
    data: Option<String>,
    file: Option<PathBuf>,
) -> Result<Option<String>, KubeconfigError> {
    if let Some(data) = data {
        let bytes = STANDARD.decode(data.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        return bytes.map(Some).ok_or_else(|| KubeconfigError::Base64 { path: path.to_owned(), field });
    }
    file.map(|file| read(&beside(path, &file))).transpose()
}

fn beside(kubeconfig: &Path, file: &Path) -> PathBuf {
    kubeconfig.parent().map_or_else(|| file.to_owned(), |folder| folder.join(file))
}

fn read(path: &Path) -> Result<String, KubeconfigError> {
    std::fs::read_to_string(path).map_err(|source| KubeconfigError::Read { path: path.to_owned(), source })
}
