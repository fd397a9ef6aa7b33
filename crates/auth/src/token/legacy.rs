//! Tokens without an end, kept in Secrets of type `kubernetes.io/service-account-token`: what clients used before
//! `TokenRequest`. Such a token is good as long as its Secret and its account are there.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use machinery::Status;
use serde::{Deserialize, Serialize};

use super::claims::Reference;
use super::jwt::JwtError;
use super::{ServiceAccountTokens, Verified};
use crate::user::service_account_name;
use crate::{AuthenticationError, User};

/// What such tokens say as their issuer.
pub(super) const ISSUER: &str = "kubernetes/serviceaccount";

/// The claims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LegacyClaims {
    iss: String,
    sub: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    uid: String,
}

impl ServiceAccountTokens {
    /// Signs the token of a Secret for a service account.
    pub fn issue_for_secret(
        &self,
        namespace: &str,
        secret: &str,
        account: &str,
        uid: &str,
    ) -> Result<String, Status> {
        let claims = LegacyClaims {
            iss: ISSUER.to_owned(),
            sub: service_account_name(namespace, account),
            namespace: namespace.to_owned(),
            secret: secret.to_owned(),
            account: account.to_owned(),
            uid: uid.to_owned(),
        };
        self.key().sign(&claims).map_err(Status::internal)
    }

    pub(super) async fn verify_of_secret(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Verified, AuthenticationError> {
        let claims: LegacyClaims =
            self.key().verify(token).map_err(|error: JwtError| AuthenticationError(error.to_string()))?;
        // Such a token names no audience: it is good for the API server itself.
        let audiences: Vec<_> =
            audiences.iter().filter(|name| self.audiences().contains(name)).cloned().collect();
        if audiences.is_empty() {
            return Err(AuthenticationError("the token is not good for the target audiences".to_owned()));
        }
        self.check_secret(&claims, token).await.map_err(AuthenticationError)?;
        let user = User::service_account(&claims.namespace, &claims.account, &claims.uid);
        Ok(Verified { user, audiences })
    }

    async fn check_secret(&self, claims: &LegacyClaims, token: &str) -> Result<(), String> {
        let LegacyClaims { namespace, secret, account, uid, .. } = claims;
        let found = self.objects().find("secrets", namespace, secret).await;
        let found = found.map_err(|status| format!("reading secret {secret:?}: {status}"))?;
        let stored = found.filter(|secret| secret.meta().deletion_timestamp.is_none());
        let value = stored.ok_or_else(|| format!("secret {secret:?} has been invalidated"))?.value();
        let kept = value.pointer("/data/token").and_then(serde_json::Value::as_str).unwrap_or_default();
        if STANDARD.decode(kept).unwrap_or_default() != token.as_bytes() {
            return Err("the token does not match the one in its secret".to_owned());
        }
        let account = Reference { name: account.clone(), uid: uid.clone() };
        self.check_live("serviceaccounts", namespace, &account).await
    }
}
