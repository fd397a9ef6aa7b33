//! What a machine needs to join: a bootstrap token, and the hash by which it knows the cluster's authority.

use std::fmt;
use std::str::FromStr;

use auth::pki::public_key_hash;
use auth::token::BootstrapToken;
use client::Client;
use env::Env;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use machinery::Status;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::objects::NAMESPACE;

const HASH_PREFIX: &str = "sha256:";
const HASH_LENGTH: usize = 64;

/// `ID.SECRET.HASH`: a bootstrap token and the SHA-256 of the authority's public key in hexadecimal.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    pub bootstrap: BootstrapToken,
    /// `sha256:…`, as `auth::pki::public_key_hash` gives it.
    pub authority_hash: String,
}

impl JoinToken {
    /// Makes a token that may be used until `lifetime` has passed, at the cluster of this authority (in PEM).
    pub async fn create(
        client: &Client,
        authority_pem: &str,
        env: &Env,
        lifetime: SignedDuration,
        description: &str,
    ) -> Result<(Self, Timestamp), Status> {
        let authority = CertificateDer::from_pem_slice(authority_pem.as_bytes()).map_err(Status::internal)?;
        let authority_hash = public_key_hash(&authority)
            .ok_or_else(|| Status::internal("the cluster's authority cannot be read"))?;
        let bootstrap = BootstrapToken::random(env);
        let expiration = env.now().saturating_add(lifetime).map_err(Status::internal)?;
        let secret = bootstrap.to_secret(Some(expiration), description, &[]);
        client.namespaced::<Secret>(NAMESPACE).create(&secret).await?;
        Ok((Self { bootstrap, authority_hash }, expiration))
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.bootstrap, self.authority_hash.trim_start_matches(HASH_PREFIX))
    }
}

impl FromStr for JoinToken {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str =
            "a token has the form ID.SECRET.HASH; `kobune token create` on the server prints one";
        let (bootstrap, hash) = text.trim().rsplit_once('.').ok_or(WRONG)?;
        let is_hash = hash.len() == HASH_LENGTH && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hash {
            return Err(WRONG);
        }
        let bootstrap = bootstrap.parse().map_err(|_| WRONG)?;
        Ok(Self { bootstrap, authority_hash: format!("{HASH_PREFIX}{}", hash.to_lowercase()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_as_they_are_printed() {
        let text = format!("abcdef.0123456789abcdef.{}", "0f".repeat(32));
        let token: JoinToken = text.parse().unwrap();
        assert_eq!(token.authority_hash, format!("sha256:{}", "0f".repeat(32)));
        assert_eq!(token.to_string(), text);
        for wrong in ["", "abcdef.0123456789abcdef", "abcdef.short.00", &format!("{text}0")] {
            assert!(wrong.parse::<JoinToken>().is_err(), "{wrong}");
        }
    }
}
