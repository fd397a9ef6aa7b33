//! Finding out that a server is the right one, before anything secret is said to it: the hash in the token names the
//! public key of the cluster's authority, which the ConfigMap `kube-public/cluster-info` shows to everybody.

use std::sync::Arc;

use auth::pki::{public_key_hash, validity};
use auth::token::BootstrapToken;
use client::{Client, Http};
use env::jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::objects::{CLUSTER_INFO, CLUSTER_INFO_AUTHORITY, PUBLIC_NAMESPACE};
use crate::cli::Failure;

/// The authority's certificate in PEM. What an untrusted server says counts only as far as the hash proves it, and it
/// is then asked again under that authority.
pub async fn authority(url: &str, hash: &str, now: Timestamp) -> Result<String, Failure> {
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
    if let Some(fault) = validity(&certificate).and_then(|validity| clock_fault(validity, now)) {
        return Err(Failure::new(fault));
    }
    let trusted =
        client::Server { certificate_authority: shown.clone(), insecure_skip_tls_verify: false, ..untrusted };
    match published(&trusted).await? == shown {
        true => Ok(shown),
        false => Err(Failure::new(format!("{url} shows two different authorities; somebody is in between"))),
    }
}

/// What is to be said of a clock by which an authority that the token vouches for would not be good.
fn clock_fault((from, until): (Timestamp, Timestamp), now: Timestamp) -> Option<String> {
    let wrong = match (now < from, now >= until) {
        (true, _) => format!("good only from {from}"),
        (_, true) => format!("good only until {until}"),
        _ => return None,
    };
    Some(format!(
        "this machine's clock says {now:.0}, and the cluster's authority is {wrong}; set the clock (`timedatectl set-ntp true`) and try again"
    ))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_far_off_is_named() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let validity = (at("2026-01-01T00:00:00Z"), at("2036-01-01T00:00:00Z"));
        for (now, wanted) in [
            ("2026-01-01T00:00:00Z", None),
            ("2030-01-01T00:00:00Z", None),
            (
                "2025-12-31T23:05:00Z",
                Some("clock says 2025-12-31T23:05:00Z, and the cluster's authority is good only from 2026"),
            ),
            ("2036-01-01T00:00:00Z", Some("good only until 2036-01-01T00:00:00Z; set the clock")),
        ] {
            let fault = clock_fault(validity, at(now));
            assert_eq!(fault.is_some(), wanted.is_some(), "{now}");
            assert!(
                wanted.is_none_or(|part| fault.as_ref().is_some_and(|fault| fault.contains(part))),
                "{fault:?}"
            );
        }
    }
}
