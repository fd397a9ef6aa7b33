//! All authenticators together, and `TokenReview`.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::token::{TokenAuthenticator, Verified};
use crate::x509::X509Authenticator;
use crate::{AuthenticationError, Authenticator, Credentials, User};

/// Certificates first, then bearer tokens of every sort.
pub struct Authentication {
    certificates: Option<X509Authenticator>,
    tokens: Vec<Arc<dyn TokenAuthenticator>>,
    /// The audiences that mean this API server.
    audiences: Vec<String>,
}

impl Authentication {
    pub fn new(
        certificates: Option<X509Authenticator>,
        tokens: Vec<Arc<dyn TokenAuthenticator>>,
        audiences: Vec<String>,
    ) -> Self {
        Self { certificates, tokens, audiences }
    }

    /// Whose token it is, if it is good for one of `audiences` (empty: those of the API server).
    pub async fn verify(&self, token: &str, audiences: &[String]) -> Result<Verified, AuthenticationError> {
        let audiences = if audiences.is_empty() { &self.audiences } else { audiences };
        for authenticator in &self.tokens {
            if let Some(verified) = authenticator.verify(token, audiences).await? {
                return Ok(verified);
            }
        }
        Err(AuthenticationError("the token is of no known sort".to_owned()))
    }

    /// Answers a `TokenReview`: gives it back with its status.
    pub async fn review(&self, request: &Value) -> Value {
        let token = request["spec"]["token"].as_str().unwrap_or("");
        let asked: Vec<String> =
            serde_json::from_value(request["spec"]["audiences"].clone()).unwrap_or_default();
        let status = match self.verify(token, &asked).await {
            Ok(Verified { user, audiences }) => {
                json!({"authenticated": true, "user": user.authenticated(), "audiences": audiences})
            }
            Err(error) => json!({"error": format!("[invalid bearer token, {error}]"), "user": {}}),
        };
        let mut answer = request.clone();
        answer["apiVersion"] = "authentication.k8s.io/v1".into();
        answer["kind"] = "TokenReview".into();
        if answer["metadata"].is_null() {
            answer["metadata"] = json!({});
        }
        answer["status"] = status;
        answer
    }
}

#[async_trait]
impl Authenticator for Authentication {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<User>, AuthenticationError> {
        if let Some(certificates) = &self.certificates
            && let Some(user) = certificates.authenticate(credentials).await?
        {
            return Ok(Some(user));
        }
        match credentials.bearer.map(str::trim).filter(|token| !token.is_empty()) {
            None => Ok(None),
            Some(token) => Ok(Some(self.verify(token, &self.audiences).await?.user.authenticated())),
        }
    }
}
