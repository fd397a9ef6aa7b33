//! Joins the API server's seam for tokens with `auth`'s tokens.

use std::sync::Arc;

use async_trait::async_trait;
use auth::Authentication;
use auth::token::ServiceAccountTokens;
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

#[async_trait]
impl apiserver::Tokens for Issuer {
    async fn create(&self, namespace: &str, name: &str, request: &Value) -> Result<Value, Status> {
        self.tokens.create(namespace, name, request).await
    }

    async fn review(&self, request: &Value) -> Value {
        self.authentication.review(request).await
    }

    fn discovery(&self) -> Option<Value> {
        Some(self.tokens.discovery())
    }

    fn keys(&self) -> Option<Value> {
        Some(self.tokens.jwks())
    }
}

impl controllers::token_secrets::Signer for Issuer {
    fn sign(&self, namespace: &str, secret: &str, account: &str, uid: &str) -> Result<String, Status> {
        self.tokens.issue_for_secret(namespace, secret, account, uid)
    }
}
