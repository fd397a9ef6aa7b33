//! Joining a cluster: the server is recognized by the token's hash, the node gets its certificates through
//! CertificateSigningRequests and renews them by itself, its object and its range of pod addresses.
//!
//! What was learned is kept under `DATA_DIR/agent`, so that a later start needs neither the token nor, for pods that
//! run already, the server.

pub mod certificates;
mod discovery;
mod follow;
pub mod objects;
mod registration;
pub mod rotation;
mod token;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use auth::pki::{CurrentIdentity, Identity, Profile};
use client::{Client, Http};
use env::Env;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::cli::Failure;
use crate::config::Settings;
use crate::progress::Progress;

pub use objects::ClusterParameters;
pub use token::JoinToken;

/// A node that belongs to a cluster.
pub struct Membership {
    pub http: Arc<Http>,
    pub client: Client,
    pub authority: CertificateDer<'static>,
    /// The certificate by which the node speaks to the API server.
    pub identity: Arc<CurrentIdentity>,
    pub current: Identity,
}

/// Where an agent keeps what it learned.
pub fn agent_dir(settings: &Settings) -> PathBuf {
    settings.data_dir.join("agent")
}

fn server_file(dir: &Path) -> PathBuf {
    dir.join("server")
}

fn failure(error: impl std::error::Error + 'static) -> Failure {
    Failure::chain(&error)
}

impl Membership {
    /// Takes up the membership that an earlier start left, or joins with the token of the settings.
    pub async fn obtain(settings: &Settings, env: &Env, progress: &Progress) -> Result<Self, Failure> {
        let dir = agent_dir(settings);
        let url = url(settings, &dir)?;
        let authority = dir.join("ca.crt");
        let stored = auth::pki::read(&authority).map_err(failure)?;
        let profile = Profile::node(&settings.node_name);
        let known = Identity::load(&dir, "client").map_err(failure)?;
        if let (Some(authority_pem), Some(identity)) = (stored, known)
            && identity.is_valid(&profile, env.now())
        {
            return Self::new(url, authority_pem, identity);
        }
        let token = given_token(settings)?;
        let authority_pem = discovery::authority(&url, &token.authority_hash, env.now()).await?;
        progress.say(format_args!("the server at {url} is the token's"));
        let bootstrap = discovery::with_token(&url, &authority_pem, &token.bootstrap)?;
        let name = &settings.node_name;
        let wanted = certificates::client(name);
        let identity = certificates::request_again(&bootstrap, &wanted, &dir.join("client.key"))
            .await
            .map_err(|status| {
                let hint = match status.code {
                    401 => {
                        "; the token is wrong or expired: `kobune token create` on the server makes another"
                    }
                    _ => "",
                };
                Failure::new(format!("the cluster gave {name} no certificate: {status}{hint}"))
            })?;
        identity.store(&dir, "client").map_err(failure)?;
        auth::pki::write_private(&authority, authority_pem.as_bytes()).map_err(failure)?;
        auth::pki::write_private(&server_file(&dir), url.as_bytes()).map_err(failure)?;
        progress.say(format_args!("joined {url} as {name}"));
        Self::new(url, authority_pem, identity)
    }

    fn new(url: String, authority_pem: String, current: Identity) -> Result<Self, Failure> {
        let identity = CurrentIdentity::new(&current).map_err(failure)?;
        let server = client::Server {
            url,
            certificate_authority: authority_pem.clone(),
            client_identity: Some(identity.clone()),
            user_agent: "kobune-agent".to_owned(),
            ..client::Server::default()
        };
        let http = Arc::new(Http::new(&server).map_err(failure)?);
        let client = Client::new(http.clone());
        let authority = CertificateDer::from_pem_slice(authority_pem.as_bytes())
            .map_err(|error| Failure::new(format!("the cluster's authority cannot be read: {error}")))?;
        Ok(Self { http, client, authority, identity, current })
    }

    /// Registers the node, asks what the cluster is like and waits until the node has a range of pod addresses.
    pub async fn register(&self, settings: &mut Settings) -> Result<(), Failure> {
        let dir = agent_dir(settings);
        registration::register(&self.client, settings, &dir).await
    }

    /// The certificate that the kubelet serves with; the node must have reported its addresses.
    pub async fn serving(&self, settings: &Settings, env: &Env) -> Result<Identity, Failure> {
        let dir = agent_dir(settings);
        let profile = Profile::kubelet_serving(&settings.node_name, &[settings.node_ip]);
        if let Some(identity) = Identity::load(&dir, "serving").map_err(failure)?
            && identity.is_valid(&profile, env.now())
        {
            return Ok(identity);
        }
        let wanted = certificates::serving(&settings.node_name, &[settings.node_ip]);
        let identity = certificates::request(&self.client, &wanted).await;
        let identity = identity.map_err(|status| {
            Failure::new(format!("the cluster gave the kubelet no serving certificate: {status}"))
        })?;
        identity.store(&dir, "serving").map_err(failure)?;
        Ok(identity)
    }
}

/// The server of the settings, or the one that was joined before.
fn url(settings: &Settings, dir: &Path) -> Result<String, Failure> {
    if let Some(url) = &settings.join.server {
        return Ok(url.trim_end_matches('/').to_owned());
    }
    let stored = auth::pki::read(&server_file(dir)).map_err(failure)?;
    stored.ok_or_else(|| {
        Failure::usage("which cluster? give --server https://HOST:6443 and --token TOKEN (`kobune token create` on the server prints both)")
    })
}

fn given_token(settings: &Settings) -> Result<JoinToken, Failure> {
    let join = &settings.join;
    let text = match (&join.token, &join.token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(file)) => std::fs::read_to_string(file)
            .map_err(|error| Failure::usage(format!("cannot read {}: {error}", file.display())))?,
        (None, None) => {
            return Err(Failure::usage(
                "this machine has not joined yet: give --token TOKEN (`kobune token create` on the server prints one)",
            ));
        }
    };
    text.parse().map_err(|error| Failure::usage(format!("--token: {error}")))
}
