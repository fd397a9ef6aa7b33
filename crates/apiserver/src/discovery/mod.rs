//! Everything that is not a resource: discovery documents, OpenAPI, version, health, metrics, keys of tokens.

mod aggregated;
pub mod health;
mod openapi;
mod plain;
mod snapshot;

use std::sync::Arc;

use auth::Attributes;
use http::{HeaderValue, Response, StatusCode, header};
use machinery::Status;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::core::Core;
use crate::http::body::{self, Body, response};
use crate::http::encode::value_bytes;
use crate::http::negotiate::negotiate_discovery;
use crate::http::service::Incoming;
use crate::pipeline::Caller;

/// Answers a request for a path that names no resource.
pub async fn answer(
    core: &Arc<Core>,
    caller: &Arc<Caller>,
    request: &Incoming,
) -> Result<Response<Body>, Status> {
    let path = request.info.path.as_str();
    core.judge(&Attributes {
        user: caller.user.clone(),
        verb: request.info.verb.to_owned(),
        path: path.to_owned(),
        ..Attributes::default()
    })?;
    if !matches!(request.info.verb, "get" | "head") {
        return Err(Status::failure(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        ));
    }
    let trimmed = path.trim_matches('/');
    let segments: Vec<&str> = if trimmed.is_empty() { Vec::new() } else { trimmed.split('/').collect() };
    match segments.as_slice() {
        [] => json_answer(&plain::paths(core)),
        ["version"] => json_answer(&version(core)),
        ["api"] => groups(core, request, true),
        ["apis"] => groups(core, request, false),
        ["api", version] => document(core, request, plain::resources(&core.table.load(), "", version)),
        ["apis", group] => document(core, request, plain::group(&core.table.load(), group)),
        ["apis", group, version] => {
            document(core, request, plain::resources(&core.table.load(), group, version))
        }
        ["openapi", "v2"] => openapi::v2(core, request),
        ["openapi", "v3"] => openapi::index(core),
        ["openapi", "v3", rest @ ..] => openapi::v3(core, request, rest),
        ["healthz" | "livez" | "readyz", rest @ ..] => {
            health::answer(core, segments[0], rest, &request.query)
        }
        ["metrics"] => Ok(metrics(core)),
        ["kobune", "snapshot"] => Ok(snapshot::answer(core)),
        [".well-known", "openid-configuration"] => {
            issuer_document(core.tokens.discovery(), "application/json")
        }
        ["openid", "v1", "jwks"] => issuer_document(core.tokens.keys(), "application/jwk-set+json"),
        _ => Err(Status::no_such_path()),
    }
}

fn json_answer(value: &Value) -> Result<Response<Body>, Status> {
    let bytes = serde_json::to_vec(value).map_err(Status::internal)?;
    Ok(response(200, "application/json", bytes))
}

fn document(core: &Core, request: &Incoming, value: Option<Value>) -> Result<Response<Body>, Status> {
    let value = value.ok_or_else(Status::no_such_path)?;
    let (_, media) = negotiate_discovery(request.header(header::ACCEPT))?;
    let bytes = value_bytes(core.schema, media, &value, request.query.pretty)?;
    Ok(response(200, media.name(), bytes))
}

/// `/api` and `/apis`, plain or aggregated.
fn groups(core: &Core, request: &Incoming, legacy: bool) -> Result<Response<Body>, Status> {
    let table = core.table.load();
    let (is_aggregated, media) = negotiate_discovery(request.header(header::ACCEPT))?;
    if !is_aggregated {
        let value = if legacy { plain::versions(core) } else { plain::groups(&table) };
        let bytes = value_bytes(core.schema, media, &value, request.query.pretty)?;
        let mut answer = response(200, media.name(), bytes);
        answer.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
        return Ok(answer);
    }
    let bytes = serde_json::to_vec(&aggregated::document(&table, legacy)).map_err(Status::internal)?;
    let content_type = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let mut answer = with_etag(request, content_type, bytes);
    answer.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    Ok(answer)
}

/// An answer that clients keep until its hash changes.
pub(crate) fn with_etag(request: &Incoming, content_type: &str, bytes: Vec<u8>) -> Response<Body> {
    let tag = format!("\"{}\"", hash(&bytes));
    let matches = request.header(header::IF_NONE_MATCH).split(',').any(|known| known.trim() == tag);
    let (bytes, compressed) = body::compress(if matches { Vec::new() } else { bytes }, &request.headers);
    let mut answer = response(200, content_type, bytes);
    if compressed {
        answer.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if matches {
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
    }
    if let Ok(value) = tag.parse() {
        answer.headers_mut().insert(header::ETAG, value);
    }
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    answer
}

/// SHA-256 in upper-case hexadecimal digits, as upstream writes it.
pub(crate) fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02X}")).collect()
}

fn version(core: &Core) -> Value {
    let facts = &core.facts;
    json!({
        "major": "1",
        "minor": "36",
        "emulationMajor": "1",
        "emulationMinor": "36",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": facts.version,
        "gitCommit": facts.commit,
        "gitTreeState": "clean",
        "buildDate": facts.build_date,
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("linux/{}", facts.architecture),
    })
}

fn metrics(core: &Core) -> Response<Body> {
    let text = core.metrics.text(core);
    body::response(200, "text/plain; version=0.0.4; charset=utf-8", text)
}

fn issuer_document(document: Option<Value>, content_type: &str) -> Result<Response<Body>, Status> {
    let document = document.ok_or_else(Status::no_such_path)?;
    let bytes = serde_json::to_vec(&document).map_err(Status::internal)?;
    let mut answer = response(200, content_type, bytes);
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    Ok(answer)
}
