//! Finding out that a server is the right one, before anything secret is said to it: the hash in the token names the
//! public key of the cluster's authority, which the ConfigMap `kube-public/cluster-info` shows to everybody.

use std::sync::Arc;

use auth::pki::public_key_hash;
use auth::token::BootstrapToken;
use client::{Client, Http};
use k8s_openapi::api::core::v1::ConfigMap;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::objects::{CLUSTER_INFO, CLUSTER_INFO_AUTHORITY, PUBLIC_NAMESPACE};
use crate::cli::Failure;

/// The authority's certificate in PEM. What an untrusted server says counts only as far as the hash proves it, and it
/// is then asked again under that authority.
pub async fn authority(url: &str, hash: &str) -> Result<String, Failure> {
    let untrusted = client::Server {
        url: url.to_owned(),
        insecure_skip_tls_verify: true,
        user_agent: "kobune-agent".to_owned(),
        ..client::Server::default()
    };
    let shown = published(&untrusted).await?;
    let certificate = CertificateDer::from_pem_slice(shown.as_bytes())
        .map_err(|error| Failure::new(format!("{url} shows no certificate: {error}")))?;
    let own = public_key_hash(&certificate).unwrap_or_default();
    if own != hash {
        return Err(Failure::new(format!(
            "{url} is not the cluster that the token is for: its authority is {own}, the token names {hash}"
        )));
    }
    let trusted =
        client::Server { certificate_authority: shown.clone(), insecure_skip_tls_verify: false, ..untrusted };
    match published(&trusted).await? == shown {
        true => Ok(shown),
        false => Err(Failure::new(format!("{url} shows two different authorities; somebody is in between"))),
    }
}

async fn published(server: &client::Server) -> Result<String, Failure> {
    let http = Http::new(server).map_err(|error| Failure::chain(&error))?;
    let client = Client::new(Arc::new(http));
    let info = client.namespaced::<ConfigMap>(PUBLIC_NAMESPACE).get(CLUSTER_INFO).await;
    let info = info.map_err(|status| Failure::new(format!("cannot ask {}: {status}", server.url)))?;
    let authority = info.value()["data"][CLUSTER_INFO_AUTHORITY].as_str().map(str::to_owned);
    authority.ok_or_else(|| {
        Failure::new(format!(
            "{} has no {PUBLIC_NAMESPACE}/{CLUSTER_INFO}; is it a Kobune server?",
            server.url
        ))
    })
}

/// A client that shows the bootstrap token.
pub fn with_token(url: &str, authority: &str, token: &BootstrapToken) -> Result<Client, Failure> {
    let server = client::Server {
        url: url.to_owned(),
        certificate_authority: authority.to_owned(),
        token: Some(token.to_string()),
        user_agent: "kobune-agent".to_owned(),
        ..client::Server::default()
    };
    let http = Http::new(&server).map_err(|error| Failure::chain(&error))?;
    Ok(Client::new(Arc::new(http)))
}
