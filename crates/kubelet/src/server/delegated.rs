//! Authentication and authorization by the API server, for a kubelet that is on another machine (KEP-279).

use async_trait::async_trait;
use auth::{
    AccessReviewer, Attributes, AuthenticationError, Authenticator, Authorizer, Credentials, Decision,
    Masters, User, X509Authenticator,
};
use client::Client;
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use serde_json::{Value, json};

/// Knows certificates of the cluster's authority; has tokens reviewed by the API server.
pub struct DelegatedAuthenticator {
    certificates: X509Authenticator,
    client: Client,
}

impl DelegatedAuthenticator {
    pub fn new(certificates: X509Authenticator, client: Client) -> Self {
        Self { certificates, client }
    }

    async fn by_token(&self, token: &str) -> Result<User, AuthenticationError> {
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token},
        });
        let review = self.client.all::<TokenReview>().create(&body).await;
        let review = review.map_err(|status| AuthenticationError(format!("token review: {status}")))?.value();
        match review.pointer("/status/authenticated") {
            Some(Value::Bool(true)) => serde_json::from_value(review["status"]["user"].clone())
                .map_err(|error| AuthenticationError(format!("token review: {error}"))),
            _ => Err(AuthenticationError("the API server does not know the token".to_owned())),
        }
    }
}

#[async_trait]
impl Authenticator for DelegatedAuthenticator {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<User>, AuthenticationError> {
        if let Some(user) = self.certificates.authenticate(credentials).await? {
            return Ok(Some(user));
        }
        match credentials.bearer {
            Some(token) => self.by_token(token).await.map(Some),
            None => Ok(None),
        }
    }
}

/// Asks the API server, but for `system:masters`, of whom the API server itself is one.
pub struct DelegatedAuthorizer {
    client: Client,
}

impl DelegatedAuthorizer {
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

#[async_trait]
impl AccessReviewer for DelegatedAuthorizer {
    async fn review(&self, attributes: &Attributes) -> Decision {
        let known = Masters.authorize(attributes);
        if known.is_allowed() {
            return known;
        }
        let body = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": attributes.user.name,
                "uid": attributes.user.uid,
                "groups": attributes.user.groups,
                "extra": attributes.user.extra,
                "resourceAttributes": {
                    "verb": attributes.verb,
                    "group": attributes.group,
                    "version": attributes.version,
                    "resource": attributes.resource,
                    "subresource": attributes.subresource,
                    "name": attributes.name,
                },
            },
        });
        match self.client.all::<SubjectAccessReview>().create(&body).await {
            Ok(review) if review.value().pointer("/status/allowed") == Some(&Value::Bool(true)) => {
                Decision::Allow(String::new())
            }
            Ok(_) => Decision::NoOpinion(String::new()),
            Err(status) => {
                tracing::warn!(%status, "the API server did not say who may do what");
                Decision::NoOpinion(status.to_string())
            }
        }
    }
}
