//! What the API server is made of; everything comes from outside.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use auth::{Authenticator, Authorizer};
use env::Env;
use machinery::Status;
use machinery::schema::Schema;
use resources::Table;
use serde_json::Value;
use store::Store;

use crate::connect::{Dialer, TcpDialer};

/// What [`crate::Server::build`] needs.
pub struct Config {
    pub env: Env,
    pub store: Arc<dyn Store>,
    pub table: Table,
    pub schema: &'static Schema,
    pub authenticator: Arc<dyn Authenticator>,
    pub authorizer: Arc<dyn Authorizer>,
    pub tokens: Arc<dyn Tokens>,
    /// Trusts the kubelets and presents the server's client certificate; `None`: connectors answer 503.
    pub kubelet_tls: Option<Arc<rustls::ClientConfig>>,
    pub dialer: Arc<dyn Dialer>,
    pub facts: Facts,
}

impl Config {
    /// A configuration without tokens and without a way to kubelets.
    pub fn new(
        env: Env,
        store: Arc<dyn Store>,
        table: Table,
        authenticator: Arc<dyn Authenticator>,
        authorizer: Arc<dyn Authorizer>,
    ) -> Self {
        Self {
            env,
            store,
            table,
            schema: machinery::schema::builtin(),
            authenticator,
            authorizer,
            tokens: Arc::new(NoTokens),
            kubelet_tls: None,
            dialer: Arc::new(TcpDialer),
            facts: Facts::default(),
        }
    }
}

/// Facts of the cluster and the program that answers show.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `HOST:PORT` that clients are told to use.
    pub advertised: String,
    pub version: String,
    pub commit: String,
    pub build_date: String,
    /// As Go names it: `amd64`, `arm64`.
    pub architecture: String,
}

impl Default for Facts {
    fn default() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self {
            advertised: "127.0.0.1:6443".to_owned(),
            version: "v1.36.0+kobune".to_owned(),
            commit: String::new(),
            build_date: "1970-01-01T00:00:00Z".to_owned(),
            architecture: architecture.to_owned(),
        }
    }
}

/// Signs and reviews tokens: the seam to `auth::token`.
#[async_trait]
pub trait Tokens: Send + Sync {
    /// Takes a `TokenRequest` for a service account and gives it back with its status.
    async fn create(&self, namespace: &str, name: &str, request: &Value) -> Result<Value, Status>;
    /// Takes a `TokenReview` and gives it back with its status.
    async fn review(&self, request: &Value) -> Value;
    /// `/.well-known/openid-configuration`; `None`: there are no tokens.
    fn discovery(&self) -> Option<Value>;
    /// `/openid/v1/jwks`.
    fn keys(&self) -> Option<Value>;
}

/// A server without service-account tokens.
pub struct NoTokens;

#[async_trait]
impl Tokens for NoTokens {
    async fn create(&self, _namespace: &str, _name: &str, _request: &Value) -> Result<Value, Status> {
        Err(Status::service_unavailable("this server has no key to sign tokens with"))
    }

    async fn review(&self, request: &Value) -> Value {
        let mut answer = request.clone();
        answer["status"] =
            serde_json::json!({"user": {}, "error": "this server has no key to check tokens with"});
        answer
    }

    fn discovery(&self) -> Option<Value> {
        None
    }

    fn keys(&self) -> Option<Value> {
        None
    }
}

/// What [`crate::Server::bootstrap`] writes into a new cluster.
#[derive(Clone, Debug)]
pub struct ClusterFacts {
    /// The first address of the service range; the `kubernetes` Service has it. More for dual stack.
    pub service_addresses: Vec<IpAddr>,
    /// The ranges of Services in CIDR notation; they become the ServiceCIDR `kubernetes`.
    pub service_ranges: Vec<String>,
    /// Where the API server itself is reached by pods.
    pub server_addresses: Vec<IpAddr>,
    pub server_port: u16,
}
