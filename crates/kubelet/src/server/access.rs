//! Who may ask what: every path is a request on a subresource of this node.

use auth::{Attributes, Credentials, Decision, User};
use http::{Method, Request, StatusCode};

use super::{Failure, Peer, Server};

/// The subresources of `nodes` that allow a path; one of them is enough (KEP-2862).
pub(super) fn subresources(path: &str) -> Vec<&'static str> {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    match first {
        "stats" => vec!["stats"],
        "metrics" => vec!["metrics"],
        "logs" => vec!["log"],
        "pods" | "runningpods" => vec!["pods", "proxy"],
        "healthz" | "livez" | "readyz" => vec!["healthz", "proxy"],
        "configz" => vec!["configz", "proxy"],
        _ => vec!["proxy"],
    }
}

/// The verb of a method.
pub(super) fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

impl Server {
    /// Authenticates and authorizes a request.
    pub(super) async fn admit<B>(&self, request: &Request<B>, peer: &Peer) -> Result<(), Failure> {
        let header =
            |name: http::HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
        let bearer = header(http::header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        let bearer = bearer.map(|token| token.trim().to_owned());
        let credentials = Credentials { peer_certificates: &peer.certificates, bearer: bearer.as_deref() };
        let user = match self.authenticator.authenticate(&credentials).await {
            Ok(Some(user)) => user,
            Ok(None) => User::anonymous(),
            Err(error) => {
                tracing::debug!(%error, "request not authenticated");
                return Err(Failure::new(StatusCode::UNAUTHORIZED, "Unauthorized"));
            }
        };
        self.authorize(user, request.method(), request.uri().path()).await
    }

    async fn authorize(&self, user: User, method: &Method, path: &str) -> Result<(), Failure> {
        let mut last = String::new();
        for subresource in subresources(path) {
            let attributes = Attributes {
                user: user.clone(),
                verb: verb(method).to_owned(),
                version: "v1".to_owned(),
                resource: "nodes".to_owned(),
                subresource: subresource.to_owned(),
                name: self.shared.node_name.clone(),
                ..Attributes::default()
            };
            if let Decision::Allow(_) = self.authorizer.review(&attributes).await {
                return Ok(());
            }
            last = format!(
                "Forbidden (user={}, verb={}, resource=nodes, subresource(s)=[{}])",
                user.name,
                attributes.verb,
                subresources(path).join(" ")
            );
        }
        Err(Failure::new(StatusCode::FORBIDDEN, last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let cases: [(&str, &[&str]); 6] = [
            ("/stats/summary", &["stats"]),
            ("/metrics/cadvisor", &["metrics"]),
            ("/pods", &["pods", "proxy"]),
            ("/exec/a/b/c", &["proxy"]),
            ("/containerLogs/a/b/c", &["proxy"]),
            ("/", &["proxy"]),
        ];
        for (path, want) in cases {
            assert_eq!(subresources(path), want, "{path}");
        }
        assert_eq!(verb(&Method::POST), "create");
    }
}
