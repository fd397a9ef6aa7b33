//! One request: who, may they, what, and the answer.

use std::sync::Arc;

use auth::{Credentials, User};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, header};
use machinery::Status;
use rustls_pki_types::CertificateDer;

use super::body::{self, Body};
use super::{encode, impersonate, negotiate, resource};
use crate::core::Core;
use crate::fairness::{Asked, Class, Flow};
use crate::pipeline::Caller;
use crate::request::{Query, RequestInfo, Route};

/// Who stands at the other end of a connection.
#[derive(Clone, Default)]
pub struct Peer {
    pub certificates: Arc<[CertificateDer<'static>]>,
}

/// A request's body, read when a verb needs it.
pub enum RequestBody {
    Empty,
    Stream(hyper::body::Incoming),
}

impl RequestBody {
    /// The whole body, up to the limit.
    pub async fn read(self) -> Result<Bytes, Status> {
        match self {
            Self::Empty => Ok(Bytes::new()),
            Self::Stream(body) => body::read(body).await,
        }
    }
}

/// A request after its line was understood.
pub struct Incoming {
    pub method: Method,
    pub headers: HeaderMap,
    pub info: RequestInfo,
    pub query: Query,
    pub body: RequestBody,
    /// The connection, for requests that ask to speak another protocol.
    pub upgrade: Option<hyper::upgrade::OnUpgrade>,
}

impl Incoming {
    /// A header as text; empty when absent.
    pub fn header(&self, name: impl header::AsHeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Answers a request; every failure is a `Status`.
pub async fn serve(
    core: Arc<Core>,
    peer: Peer,
    mut request: Request<hyper::body::Incoming>,
) -> Response<Body> {
    let started = tokio::time::Instant::now();
    let accept = header_text(request.headers(), header::ACCEPT).to_owned();
    let upgrade = request.headers().contains_key(header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let (parts, stream) = request.into_parts();
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let info =
        RequestInfo::parse(&parts.method, parts.uri.path(), query.as_ref().unwrap_or(&Query::default()));
    let label = Label::of(&info);
    let head = parts.method == Method::HEAD;
    let mut flow = None;
    let outcome = match query {
        Ok(query) => {
            let body = RequestBody::Stream(stream);
            let incoming =
                Incoming { method: parts.method, headers: parts.headers, info, query, body, upgrade };
            admitted(&core, &peer, incoming, &mut flow).await
        }
        Err(status) => Err(status),
    };
    let mut response = outcome.unwrap_or_else(|status| {
        encode::status_response(core.schema, negotiate::for_errors(&accept), &status)
    });
    if let Some(flow) = flow {
        tell_flow(response.headers_mut(), &flow);
    }
    if head {
        *response.body_mut() = body::full(Bytes::new());
    }
    core.metrics.observe(&label.verb, &label.resource, response.status().as_u16(), started.elapsed());
    response
}

/// What a request is counted as.
struct Label {
    verb: String,
    resource: String,
}

impl Label {
    fn of(info: &RequestInfo) -> Self {
        let resource = match &info.route {
            Route::Resource(target) if target.subresource.is_empty() => target.resource.clone(),
            Route::Resource(target) => format!("{}/{}", target.resource, target.subresource),
            Route::Other => String::new(),
        };
        Self { verb: info.verb.to_uppercase(), resource }
    }
}

async fn admitted(
    core: &Arc<Core>,
    peer: &Peer,
    request: Incoming,
    flow: &mut Option<Flow>,
) -> Result<Response<Body>, Status> {
    let user = authenticate(core, peer, &request.headers).await?;
    let caller = Caller { user, agent: request.header(header::USER_AGENT).to_owned() };
    let caller = impersonate::resolve(core, caller, &request.headers)?;
    *flow = flow_of(core, &caller.user, &request.info);
    let _place = core.fairness.enter(&caller.user, class(&request))?;
    dispatch(core, &caller, request).await
}

fn flow_of(core: &Core, user: &User, info: &RequestInfo) -> Option<Flow> {
    let resource = info.target().map(|target| {
        let name = match target.subresource.as_str() {
            "" => target.resource.clone(),
            subresource => format!("{}/{subresource}", target.resource),
        };
        (target.group.as_str(), name, target.namespace.as_str())
    });
    let resource = resource.as_ref().map(|(group, name, namespace)| (*group, name.as_str(), *namespace));
    core.fairness.flow(&core.cache, Asked { user, verb: info.verb, resource, path: &info.path })
}

/// The headers by which clients learn what they were sorted into.
fn tell_flow(headers: &mut HeaderMap, flow: &Flow) {
    for (name, uid) in
        [("x-kubernetes-pf-flowschema-uid", &flow.schema), ("x-kubernetes-pf-prioritylevel-uid", &flow.level)]
    {
        if let Ok(value) = uid.parse() {
            headers.insert(name, value);
        }
    }
}

/// Answers the request of a caller who is known.
pub async fn dispatch(
    core: &Arc<Core>,
    caller: &Arc<Caller>,
    request: Incoming,
) -> Result<Response<Body>, Status> {
    match request.info.target().cloned() {
        Some(target) => resource::answer(core, caller, target, request).await,
        None => crate::discovery::answer(core, caller, &request).await,
    }
}

async fn authenticate(core: &Core, peer: &Peer, headers: &HeaderMap) -> Result<User, Status> {
    let bearer = header_text(headers, header::AUTHORIZATION);
    let bearer = bearer.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let from_websocket = auth::websocket_bearer(header_text(headers, header::SEC_WEBSOCKET_PROTOCOL));
    let bearer =
        bearer.map(|(_, token)| token.trim().to_owned()).or(from_websocket).filter(|token| !token.is_empty());
    let credentials = Credentials { peer_certificates: &peer.certificates, bearer: bearer.as_deref() };
    match core.authenticator.authenticate(&credentials).await {
        Ok(Some(user)) => Ok(user.authenticated()),
        Ok(None) => Ok(User::anonymous()),
        Err(error) => {
            tracing::info!(%error, "credentials were refused");
            Err(Status::unauthorized())
        }
    }
}

fn class(request: &Incoming) -> Class {
    const LONG: [&str; 5] = ["log", "exec", "attach", "portforward", "proxy"];
    let connects = request.info.target().is_some_and(|target| LONG.contains(&target.subresource.as_str()));
    match request.info.verb {
        "watch" => Class::LongRunning,
        _ if connects => Class::LongRunning,
        "get" | "list" | "head" | "options" => Class::ReadOnly,
        _ => Class::Mutating,
    }
}

fn header_text(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
