//! What the API server is made of; everything comes from outside.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use auth::{Authenticator, Authorizer, User};
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
    pub issuer: Arc<dyn Issuer>,
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
            issuer: Arc::new(NoIssuer),
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

/// What a service-account token says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenClaims {
    pub namespace: String,
    pub service_account: String,
    pub service_account_uid: String,
    /// Empty: for the API server itself.
    pub audiences: Vec<String>,
    pub expiration_seconds: i64,
    /// The object whose deletion ends the token: kind, name and UID.
    pub bound_object: Option<(String, String, String)>,
    /// The node of a bound pod: name and UID.
    pub node: Option<(String, String)>,
}

/// A signed token and when it expires (RFC 3339).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedToken {
    pub token: String,
    pub expiration_timestamp: String,
}

/// What a reviewed token turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReviewedToken {
    pub user: User,
    pub audiences: Vec<String>,
}

/// Signs and reads tokens: the seam to the `auth` crate.
#[async_trait]
pub trait Issuer: Send + Sync {
    async fn issue(&self, claims: TokenClaims) -> Result<IssuedToken, Status>;
    /// Who a token belongs to, if it is valid for one of `audiences` (empty: the API server); the error says why not.
    async fn review(&self, token: &str, audiences: &[String]) -> Result<ReviewedToken, String>;
    /// `/.well-known/openid-configuration`.
    fn configuration(&self) -> Option<Value>;
    /// `/openid/v1/jwks`.
    fn keys(&self) -> Option<Value>;
}

/// A server without service-account tokens.
pub struct NoIssuer;

#[async_trait]
impl Issuer for NoIssuer {
    async fn issue(&self, _claims: TokenClaims) -> Result<IssuedToken, Status> {
        Err(Status::service_unavailable("this server has no key to sign tokens with"))
    }

    async fn review(&self, _token: &str, _audiences: &[String]) -> Result<ReviewedToken, String> {
        Err("this server has no key to check tokens with".to_owned())
    }

    fn configuration(&self) -> Option<Value> {
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
    /// Where the API server itself is reached by pods.
    pub server_addresses: Vec<IpAddr>,
    pub server_port: u16,
}
