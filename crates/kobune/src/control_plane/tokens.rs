//! Joins the API server's seam for tokens with `auth`'s tokens.

use std::sync::Arc;

use apiserver::{IssuedToken, ReviewedToken, TokenClaims};
use async_trait::async_trait;
use auth::Authentication;
use auth::token::{BoundClaims, Reference, ServiceAccountTokens};
use machinery::Status;
use serde_json::Value;

/// Issues with the key of this cluster, reviews with everything that authenticates here.
pub struct Issuer {
    tokens: Arc<ServiceAccountTokens>,
    authentication: Arc<Authentication>,
}

impl Issuer {
    pub fn new(tokens: Arc<ServiceAccountTokens>, authentication: Arc<Authentication>) -> Self {
        Self { tokens, authentication }
    }
}

fn reference(name: String, uid: String) -> Reference {
    Reference { name, uid }
}

#[async_trait]
impl apiserver::Issuer for Issuer {
    async fn issue(&self, claims: TokenClaims) -> Result<IssuedToken, Status> {
        let (mut pod, mut secret, mut node) = (None, None, claims.node.map(|(name, uid)| reference(name, uid)));
        match claims.bound_object {
            Some((kind, name, uid)) if kind == "Pod" => pod = Some(reference(name, uid)),
            Some((kind, name, uid)) if kind == "Secret" => secret = Some(reference(name, uid)),
            Some((kind, name, uid)) if kind == "Node" => node = Some(reference(name, uid)),
            _ => {}
        }
        let bound = BoundClaims {
            namespace: claims.namespace,
            serviceaccount: reference(claims.service_account, claims.service_account_uid),
            pod,
            secret,
            node,
            warnafter: None,
        };
        let issued = self.tokens.issue(bound, claims.audiences, claims.expiration_seconds)?;
        Ok(IssuedToken { token: issued.token, expiration_timestamp: rfc3339(issued.expires) })
    }

    async fn review(&self, token: &str, audiences: &[String]) -> Result<ReviewedToken, String> {
        let verified = self.authentication.verify(token, audiences).await.map_err(|error| error.to_string())?;
        Ok(ReviewedToken { user: verified.user.authenticated(), audiences: verified.audiences })
    }

    fn configuration(&self) -> Option<Value> {
        Some(self.tokens.discovery())
    }

    fn keys(&self) -> Option<Value> {
        Some(self.tokens.jwks())
    }
}

fn rfc3339(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
