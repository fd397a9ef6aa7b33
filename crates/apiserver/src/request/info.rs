//! From a method and a path to a verb and a resource, as `k8s.io/apiserver/pkg/endpoints/request` does.

use client::Target;
use http::Method;
use percent_encoding::percent_decode_str;

use super::Query;

/// What a path names.
#[derive(Clone, Debug, PartialEq)]
pub enum Route {
    /// A resource, its collection or a subresource.
    Resource(Target),
    /// Anything else: `/healthz`, discovery documents, OpenAPI.
    Other,
}

/// A parsed request line.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestInfo {
    pub path: String,
    /// `get`, `list`, `watch`, `create`, …; for other paths the method in lower case.
    pub verb: &'static str,
    pub route: Route,
    /// What follows the subresource: the path for a `proxy`.
    pub rest: String,
}

impl RequestInfo {
    /// Parses the request line. A path that is almost a resource is [`Route::Other`], which has no handler.
    pub fn parse(method: &Method, path: &str, query: &Query) -> Self {
        let other = || Self {
            path: path.to_owned(),
            verb: other_verb(method),
            route: Route::Other,
            rest: String::new(),
        };
        let Some((mut target, rest, watch_prefix)) = resource_of(path) else { return other() };
        let collection = target.name.is_empty();
        let wants_watch = watch_prefix || (collection && *method == Method::GET && query.watch);
        let verb = match () {
            () if wants_watch => "watch",
            () => resource_verb(method, collection),
        };
        if watch_prefix && !target.name.is_empty() {
            target.subresource = String::new();
        }
        Self { path: path.to_owned(), verb, route: Route::Resource(target), rest }
    }

    /// The target when the path names a resource.
    pub fn target(&self) -> Option<&Target> {
        match &self.route {
            Route::Resource(target) => Some(target),
            Route::Other => None,
        }
    }
}

fn other_verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::HEAD => "head",
        Method::OPTIONS => "options",
        _ => "get",
    }
}

fn resource_verb(method: &Method, collection: bool) -> &'static str {
    match (method, collection) {
        (&Method::POST, _) => "create",
        (&Method::PUT, _) => "update",
        (&Method::PATCH, _) => "patch",
        (&Method::DELETE, true) => "deletecollection",
        (&Method::DELETE, false) => "delete",
        (&Method::GET | &Method::HEAD, true) => "list",
        (&Method::GET | &Method::HEAD, false) => "get",
        _ => "",
    }
}

/// `/api/v1/…` and `/apis/GROUP/VERSION/…`: the target, the rest behind a subresource, and whether the path has the
/// old `watch/` prefix.
fn resource_of(path: &str) -> Option<(Target, String, bool)> {
    let mut segments: Vec<String> = path
        .trim_matches('/')
        .split('/')
        .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
        .collect();
    let group = match segments.first()?.as_str() {
        "api" => {
            segments.remove(0);
            String::new()
        }
        "apis" if segments.len() > 1 => segments.drain(..2).nth(1)?,
        _ => return None,
    };
    if segments.len() < 2 {
        return None;
    }
    let version = segments.remove(0);
    let watch_prefix = segments[0] == "watch";
    if watch_prefix {
        segments.remove(0);
    }
    let mut target = Target { group, version, ..Target::default() };
    let below_namespace = segments.first()? == "namespaces" && segments.len() > 2;
    // `namespaces/NAME/status` and `namespaces/NAME/finalize` are subresources of the namespace itself.
    let own_subresource = segments.len() == 3 && matches!(segments[2].as_str(), "status" | "finalize");
    if below_namespace && !own_subresource {
        target.namespace = segments.drain(..2).nth(1)?;
    }
    let mut segments = segments.into_iter();
    target.resource = segments.next()?;
    target.name = segments.next().unwrap_or_default();
    target.subresource = segments.next().unwrap_or_default();
    let rest: Vec<String> = segments.collect();
    let mut rest = rest.join("/");
    if !rest.is_empty() || (path.ends_with('/') && !target.subresource.is_empty()) {
        rest.insert(0, '/');
    }
    if path.ends_with('/') && rest.len() > 1 {
        rest.push('/');
    }
    (!target.resource.is_empty()).then_some((target, rest, watch_prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(method: Method, line: &str) -> String {
        let (path, query) = line.split_once('?').unwrap_or((line, ""));
        let info = RequestInfo::parse(&method, path, &Query::parse(query).unwrap());
        match info.route {
            Route::Other => format!("{} other", info.verb),
            Route::Resource(t) => format!(
                "{} {}/{}/{} ns={} name={} sub={} rest={}",
                info.verb, t.group, t.version, t.resource, t.namespace, t.name, t.subresource, info.rest
            ),
        }
    }

    #[test]
    fn paths() {
        let cases = [
            (Method::GET, "/api/v1/pods", "list /v1/pods ns= name= sub= rest="),
            (Method::GET, "/api/v1/pods?watch=1", "watch /v1/pods ns= name= sub= rest="),
            (Method::GET, "/api/v1/namespaces/a/pods/b/log", "get /v1/pods ns=a name=b sub=log rest="),
            (Method::GET, "/api/v1/namespaces/a", "get /v1/namespaces ns= name=a sub= rest="),
            (
                Method::PUT,
                "/api/v1/namespaces/a/finalize",
                "update /v1/namespaces ns= name=a sub=finalize rest=",
            ),
            (Method::GET, "/api/v1/watch/namespaces/a/pods", "watch /v1/pods ns=a name= sub= rest="),
            (
                Method::POST,
                "/apis/apps/v1/namespaces/a/deployments",
                "create apps/v1/deployments ns=a name= sub= rest=",
            ),
            (
                Method::DELETE,
                "/apis/apps/v1/namespaces/a/deployments",
                "deletecollection apps/v1/deployments ns=a name= sub= rest=",
            ),
            (
                Method::GET,
                "/api/v1/namespaces/a/services/http:s:80/proxy/x/y/",
                "get /v1/services ns=a name=http:s:80 sub=proxy rest=/x/y/",
            ),
            (Method::GET, "/apis/apps/v1", "get other"),
            (Method::GET, "/healthz", "get other"),
        ];
        for (method, line, expected) in cases {
            assert_eq!(show(method, line), expected, "{line}");
        }
    }
}
