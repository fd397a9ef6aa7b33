//! What the API server asks of authentication and authorization.

use async_trait::async_trait;
use rustls_pki_types::CertificateDer;

use crate::User;

/// What a connection and a request present.
#[derive(Clone, Copy, Debug, Default)]
pub struct Credentials<'a> {
    /// The client's chain, leaf first. The TLS layer proved possession of the key; it need not have checked the
    /// chain.
    pub peer_certificates: &'a [CertificateDer<'static>],
    /// The value of `Authorization` behind `Bearer `, or the token of the WebSocket subprotocol (see
    /// [`websocket_bearer`]).
    pub bearer: Option<&'a str>,
}

/// Credentials were given and are wrong; the answer is 401. The text is for the log, never for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AuthenticationError(pub String);

/// Finds out who makes a request.
#[async_trait]
pub trait Authenticator: Send + Sync {
    /// `None`: no credentials that this authenticator knows; the request is anonymous.
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<User>, AuthenticationError>;
}

/// What a request wants to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub user: User,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, or of non-resource
    /// requests the lower-case HTTP method.
    pub verb: String,
    pub group: String,
    pub version: String,
    /// Plural; empty for non-resource requests.
    pub resource: String,
    pub subresource: String,
    /// Empty for cluster-scoped resources and for all namespaces.
    pub namespace: String,
    pub name: String,
    /// The path of a non-resource request; empty for resource requests.
    pub path: String,
    /// The request's selectors, for authorizers that look at them (the Node authorizer does).
    pub field_selector: String,
    pub label_selector: String,
}

impl Attributes {
    pub fn is_resource(&self) -> bool {
        self.path.is_empty()
    }

    pub fn is_read_only(&self) -> bool {
        matches!(self.verb.as_str(), "get" | "list" | "watch")
    }
}

/// An authorizer's answer, with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow(String),
    /// No authorizer that comes later is asked.
    Deny(String),
    NoOpinion(String),
}

impl Decision {
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow(_))
    }

    pub fn reason(&self) -> &str {
        match self {
            Self::Allow(reason) | Self::Deny(reason) | Self::NoOpinion(reason) => reason,
        }
    }
}

/// `authorization.k8s.io` `ResourceRule`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceRule {
    pub verbs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
}

/// `authorization.k8s.io` `NonResourceRule`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NonResourceRule {
    pub verbs: Vec<String>,
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
}

/// What a user may do in a namespace: the status of a `SelfSubjectRulesReview`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UserRules {
    pub resource_rules: Vec<ResourceRule>,
    pub non_resource_rules: Vec<NonResourceRule>,
    /// The lists may be shorter than what is allowed.
    pub incomplete: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub evaluation_error: String,
}

/// Judges requests. Answers come from memory, so the call is synchronous.
pub trait Authorizer: Send + Sync {
    fn authorize(&self, attributes: &Attributes) -> Decision;

    /// What `user` may do in `namespace`, as far as it can be listed.
    fn rules_for(&self, _user: &User, _namespace: &str) -> UserRules {
        UserRules { incomplete: true, ..UserRules::default() }
    }
}

/// Judges requests, if need be by asking elsewhere. Every [`Authorizer`] is one.
#[async_trait]
pub trait AccessReviewer: Send + Sync {
    async fn review(&self, attributes: &Attributes) -> Decision;
}

#[async_trait]
impl<A: Authorizer> AccessReviewer for A {
    async fn review(&self, attributes: &Attributes) -> Decision {
        self.authorize(attributes)
    }
}

/// The token in a WebSocket's `Sec-WebSocket-Protocol` header: `base64url.bearer.authorization.k8s.io.TOKEN`, for
/// browsers, which cannot set `Authorization`. The header must offer another protocol, too.
pub fn websocket_bearer(protocols: &str) -> Option<String> {
    use base64::Engine;
    const PREFIX: &str = "base64url.bearer.authorization.k8s.io.";
    let mut offered = protocols.split(',').map(str::trim);
    let encoded = offered.clone().find_map(|protocol| protocol.strip_prefix(PREFIX))?;
    offered.find(|protocol| !protocol.starts_with(PREFIX))?;
    let token = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(encoded).ok()?;
    String::from_utf8(token).ok()
}

/// The text of a 403 behind `… is forbidden: `: `User "a" cannot get resource "pods" in API group "" in the
/// namespace "b"`, with the authorizers' reason at the end if there is one.
pub fn forbidden_detail(attributes: &Attributes, reason: &str) -> String {
    let Attributes { user, verb, group, resource, subresource, namespace, path, .. } = attributes;
    let mut text = format!("User {:?} cannot {verb}", user.name);
    if attributes.is_resource() {
        let resource = match subresource.as_str() {
            "" => resource.clone(),
            sub => format!("{resource}/{sub}"),
        };
        text += &format!(" resource {resource:?} in API group {group:?}");
        match namespace.as_str() {
            "" => text += " at the cluster scope",
            namespace => text += &format!(" in the namespace {namespace:?}"),
        }
    } else {
        text += &format!(" path {path:?}");
    }
    if !reason.is_empty() {
        text += &format!(": {reason}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forbidden_text_is_upstreams() {
        let mut asked = Attributes {
            user: User::new("jane", &[]),
            verb: "get".into(),
            resource: "pods".into(),
            subresource: "log".into(),
            namespace: "web".into(),
            ..Attributes::default()
        };
        let text = r#"User "jane" cannot get resource "pods/log" in API group "" in the namespace "web""#;
        assert_eq!(forbidden_detail(&asked, ""), text);
        asked.path = "/metrics".into();
        assert_eq!(forbidden_detail(&asked, "no"), r#"User "jane" cannot get path "/metrics": no"#);
    }

    #[test]
    fn a_websocket_token_needs_a_second_protocol() {
        let token = "base64url.bearer.authorization.k8s.io.YWJj";
        assert_eq!(websocket_bearer(&format!("{token}, v4.channel.k8s.io")), Some("abc".into()));
        assert_eq!(websocket_bearer(token), None);
    }
}
