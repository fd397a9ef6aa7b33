//! Service account tokens: `TokenRequest`, validation against the bound objects, OIDC discovery.

use std::sync::Arc;

use env::Env;
use env::jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::Pod;
use machinery::{FieldError, Object, Status};
use serde_json::{Value, json};

use super::claims::{BoundClaims, Claims, Reference};
use super::jwt::{JwtError, SigningKey, peek};
use super::objects::Objects;
use super::{TokenAuthenticator, Verified, legacy};
use crate::AuthenticationError;
use crate::user::service_account_name;

const DEFAULT_SECONDS: i64 = 3600;
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;
/// The lifetime that the default volume of pods asks for. Such tokens live a year, so that old clients, which read
/// their token once, go on working; they warn after the lifetime that was asked for.
const WARN_ONLY_SECONDS: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;
/// How long tokens live on after their pod or account was marked for deletion.
const DELETION_LEEWAY: SignedDuration = SignedDuration::from_secs(60);

/// What tokens say about us.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    /// `https://kubernetes.default.svc.cluster.local`.
    pub issuer: String,
    /// The audiences that mean this API server; the first is the default.
    pub audiences: Vec<String>,
    /// Where other systems find the keys: `https://HOST:PORT/openid/v1/jwks`.
    pub jwks_uri: String,
}

impl TokenConfig {
    /// The usual: issuer and only audience are the API server's name in the cluster, where pods also find the keys.
    pub fn new(cluster_domain: &str) -> Self {
        let issuer = format!("https://kubernetes.default.svc.{cluster_domain}");
        let jwks_uri = format!("{issuer}/openid/v1/jwks");
        Self { audiences: vec![issuer.clone()], issuer, jwks_uri }
    }
}

/// A signed token, and when its holder should have replaced it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    pub token: String,
    pub expires: Timestamp,
}

/// Issues and validates service account tokens.
pub struct ServiceAccountTokens {
    key: SigningKey,
    config: TokenConfig,
    objects: Arc<dyn Objects>,
    env: Env,
}

impl ServiceAccountTokens {
    pub fn new(key: SigningKey, config: TokenConfig, objects: Arc<dyn Objects>, env: Env) -> Self {
        Self { key, config, objects, env }
    }

    /// The audiences that mean this API server.
    pub fn audiences(&self) -> &[String] {
        &self.config.audiences
    }

    pub(super) fn key(&self) -> &SigningKey {
        &self.key
    }

    pub(super) fn objects(&self) -> &dyn Objects {
        &*self.objects
    }

    /// `/.well-known/openid-configuration`.
    pub fn discovery(&self) -> Value {
        json!({
            "issuer": self.config.issuer,
            "jwks_uri": self.config.jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }

    /// `/openid/v1/jwks`.
    pub fn jwks(&self) -> Value {
        self.key.jwks()
    }

    /// `POST …/serviceaccounts/NAME/token`: takes a `TokenRequest` and gives it back with its status.
    pub async fn create(&self, namespace: &str, name: &str, request: &Value) -> Result<Value, Status> {
        let request: TokenRequest = serde_json::from_value(request.clone())
            .map_err(|error| Status::bad_request(error.to_string()))?;
        let mut spec = request.spec.unwrap_or_default();
        let seconds = *spec.expiration_seconds.get_or_insert(DEFAULT_SECONDS);
        if spec.audiences.as_ref().is_none_or(Vec::is_empty) {
            spec.audiences = Some(self.config.audiences.clone());
        }
        validate(name, seconds)?;
        let account = self.account(namespace, name).await?;
        let bound = self.bound(&account, &spec).await?;
        let audiences = spec.audiences.clone().unwrap_or_default();
        let Issued { token, expires } = self.issue(bound, audiences, seconds)?;
        Ok(json!({
            "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": name, "namespace": namespace, "creationTimestamp": rfc3339(self.env.now())},
            "spec": spec,
            "status": {"token": token, "expirationTimestamp": rfc3339(expires)},
        }))
    }

    /// Signs a token for a service account and objects that the caller has checked, for `audiences` (empty: the API
    /// server) and a lifetime in seconds.
    pub fn issue(
        &self,
        mut bound: BoundClaims,
        audiences: Vec<String>,
        seconds: i64,
    ) -> Result<Issued, Status> {
        let audiences = if audiences.is_empty() { self.config.audiences.clone() } else { audiences };
        let time = self.env.now();
        let now = time.as_second();
        let ours = audiences.iter().all(|audience| self.config.audiences.contains(audience));
        let extended = ours && seconds == WARN_ONLY_SECONDS && bound.pod.is_some();
        bound.warnafter = extended.then_some(now + seconds);
        let claims = Claims {
            aud: audiences,
            exp: now + if extended { EXTENDED_SECONDS } else { seconds },
            iat: now,
            iss: self.config.issuer.clone(),
            jti: self.env.uuid(),
            nbf: now,
            sub: service_account_name(&bound.namespace, &bound.serviceaccount.name),
            bound,
        };
        let token = self.key.sign(&claims).map_err(Status::internal)?;
        let expires = time.saturating_add(SignedDuration::from_secs(seconds)).map_err(Status::internal)?;
        Ok(Issued { token, expires })
    }

    async fn account(&self, namespace: &str, name: &str) -> Result<Arc<Object>, Status> {
        let account = self.objects.find("serviceaccounts", namespace, name).await?;
        account.ok_or_else(|| Status::not_found("", "serviceaccounts", name))
    }

    async fn bound(&self, account: &Object, spec: &TokenRequestSpec) -> Result<BoundClaims, Status> {
        let namespace = account.meta().namespace.clone();
        let mut bound =
            BoundClaims { namespace, serviceaccount: reference(account), ..BoundClaims::default() };
        if let Some(wanted) = &spec.bound_object_ref {
            self.bind(account, wanted, &mut bound).await?;
        }
        Ok(bound)
    }

    async fn bind(
        &self,
        account: &Object,
        wanted: &BoundObjectReference,
        bound: &mut BoundClaims,
    ) -> Result<(), Status> {
        let (kind, name) = (wanted.kind.as_deref().unwrap_or(""), wanted.name.as_deref().unwrap_or(""));
        let resource = match (kind, wanted.api_version.as_deref().unwrap_or("")) {
            ("Pod", "v1") => "pods",
            ("Secret", "v1") => "secrets",
            ("Node", "v1") => "nodes",
            (kind, version) => {
                let group = version.rsplit_once('/').map_or("", |(group, _)| group);
                let what = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
                return Err(Status::bad_request(format!("cannot bind token to object of type {what}")));
            }
        };
        let namespace = if kind == "Node" { "" } else { &account.meta().namespace };
        let object = self.objects.find(resource, namespace, name).await?;
        let object = object.ok_or_else(|| Status::not_found("", resource, name))?;
        check_uid(resource, wanted.uid.as_deref().unwrap_or(""), &object)?;
        match kind {
            "Secret" => bound.secret = Some(reference(&object)),
            "Node" => bound.node = Some(reference(&object)),
            _ => {
                bound.node = self.node_of(account, &object).await?;
                bound.pod = Some(reference(&object));
            }
        }
        Ok(())
    }

    /// Checks that the pod runs as the account and finds its node.
    async fn node_of(&self, account: &Object, pod: &Object) -> Result<Option<Reference>, Status> {
        let pod = client::typed::<Pod>(pod)?;
        let spec = pod.spec.as_ref();
        let runs_as = spec.and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("");
        let name = &account.meta().name;
        if runs_as != name {
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount {name:?} to pod running with different serviceaccount name."
            )));
        }
        let node = spec.and_then(|spec| spec.node_name.as_deref()).unwrap_or("");
        if node.is_empty() {
            return Ok(None);
        }
        let found = self.objects.find("nodes", "", node).await?;
        let uid = found.map(|node| node.meta().uid.clone()).unwrap_or_default();
        Ok(Some(Reference { name: node.to_owned(), uid }))
    }

    /// Checks that what a token is bound to still exists.
    async fn check_bound(&self, claims: &Claims) -> Result<(), String> {
        let bound = &claims.bound;
        let namespace = &bound.namespace;
        if claims.sub != service_account_name(namespace, &bound.serviceaccount.name) {
            return Err("the subject and the service account of the token differ".to_owned());
        }
        self.check_live("serviceaccounts", namespace, &bound.serviceaccount).await?;
        if let Some(secret) = &bound.secret {
            self.check_live("secrets", namespace, secret).await?;
        }
        match (&bound.pod, &bound.node) {
            // The node of a pod-bound token is told, not required.
            (Some(pod), _) => self.check_live("pods", namespace, pod).await,
            (None, Some(node)) => self.check_live("nodes", "", node).await,
            (None, None) => Ok(()),
        }
    }

    pub(super) async fn check_live(
        &self,
        resource: &str,
        namespace: &str,
        wanted: &Reference,
    ) -> Result<(), String> {
        let found = self.objects.find(resource, namespace, &wanted.name).await;
        let found = found.map_err(|status| format!("reading {resource} {:?}: {status}", wanted.name))?;
        let object = found.ok_or_else(|| format!("{resource} {:?} has been invalidated", wanted.name))?;
        if object.meta().uid != wanted.uid {
            return Err(format!("{resource} {:?} is another one than the token was bound to", wanted.name));
        }
        let deleted =
            object.meta().deletion_timestamp.as_ref().and_then(|text| text.parse::<Timestamp>().ok());
        if deleted.is_some_and(|deleted| self.env.now().duration_since(deleted) > DELETION_LEEWAY) {
            return Err(format!("{resource} {:?} has been deleted", wanted.name));
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl TokenAuthenticator for ServiceAccountTokens {
    async fn verify(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Verified>, AuthenticationError> {
        let claimed = peek::<Value>(token);
        if claimed.as_ref().is_some_and(|claims| claims["iss"] == legacy::ISSUER) {
            return self.verify_of_secret(token, audiences).await.map(Some);
        }
        if claimed.is_none_or(|claims| claims["iss"] != self.config.issuer.as_str()) {
            return Ok(None);
        }
        let claims: Claims =
            self.key.verify(token).map_err(|error: JwtError| AuthenticationError(error.to_string()))?;
        claims
            .check_time(self.env.now().as_second())
            .map_err(|error| AuthenticationError(error.to_owned()))?;
        let audiences: Vec<_> = audiences.iter().filter(|name| claims.aud.contains(name)).cloned().collect();
        if audiences.is_empty() {
            let text = format!("token audiences {:?} is invalid for the target audiences", claims.aud);
            return Err(AuthenticationError(text));
        }
        self.check_bound(&claims).await.map_err(AuthenticationError)?;
        Ok(Some(Verified { user: claims.user(), audiences }))
    }
}

fn validate(name: &str, seconds: i64) -> Result<(), Status> {
    let field = "spec.expirationSeconds";
    let error = match seconds {
        ..MIN_SECONDS => {
            FieldError::invalid(field, seconds, "may not specify a duration less than 10 minutes")
        }
        MIN_SECONDS..=MAX_SECONDS => return Ok(()),
        _ => FieldError::invalid(field, seconds, "may not specify a duration larger than 2^32 seconds"),
    };
    Err(Status::invalid("authentication.k8s.io", "TokenRequest", name, &[error]))
}

fn check_uid(resource: &str, wanted: &str, object: &Object) -> Result<(), Status> {
    let found = &object.meta().uid;
    if wanted.is_empty() || wanted == found {
        return Ok(());
    }
    let detail = format!(
        "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
    );
    Err(Status::conflict("", resource, &object.meta().name, &detail))
}

fn reference(object: &Object) -> Reference {
    Reference { name: object.meta().name.clone(), uid: object.meta().uid.clone() }
}

/// Seconds precision, as `metav1.Time`.
fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests;
