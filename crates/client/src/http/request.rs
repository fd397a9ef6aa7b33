//! Paths, queries and upgrades.

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, StatusCode};
use http_body_util::Empty;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use machinery::Status;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::connect::Connector;
use crate::{DeleteOptions, ListOptions, Patch, Target, WatchOptions, WriteOptions};

/// What plain verbs send.
pub const JSON: [(HeaderName, &str); 2] =
    [(header::ACCEPT, "application/json"), (header::CONTENT_TYPE, "application/json")];

/// What stands unescaped in a query value.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

impl Target {
    /// The path on the server: `/apis/apps/v1/namespaces/default/deployments/web/status`.
    pub fn path(&self) -> String {
        let mut path = match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        // A namespace's own path has no namespace in front.
        let names_itself = self.group.is_empty() && self.resource == "namespaces";
        if !self.namespace.is_empty() && !names_itself {
            path.push_str("/namespaces/");
            path.push_str(&self.namespace);
        }
        for part in [&self.resource, &self.name, &self.subresource] {
            if !part.is_empty() {
                path.push('/');
                path.push_str(part);
            }
        }
        path
    }
}

/// A path with the parameters that are not empty.
pub fn with_query(path: String, parameters: &[(&str, &str)]) -> String {
    let mut path = path;
    let mut separator = if path.contains('?') { '&' } else { '?' };
    for (name, value) in parameters.iter().filter(|(_, value)| !value.is_empty()) {
        path.push(separator);
        path.push_str(name);
        path.push('=');
        path.extend(utf8_percent_encode(value, QUERY));
        separator = '&';
    }
    path
}

fn number(value: u64) -> String {
    if value == 0 { String::new() } else { value.to_string() }
}

pub fn list_path(target: &Target, options: &ListOptions) -> String {
    with_query(
        target.path(),
        &[
            ("labelSelector", &options.label_selector),
            ("fieldSelector", &options.field_selector),
            ("resourceVersion", &options.resource_version),
            ("resourceVersionMatch", &options.resource_version_match),
            ("limit", &number(options.limit)),
            ("continue", &options.continue_token),
        ],
    )
}

pub fn watch_path(target: &Target, options: &WatchOptions) -> String {
    let flag = |set: bool| if set { "true" } else { "" };
    let matching = if options.send_initial_events { "NotOlderThan" } else { "" };
    with_query(
        target.path(),
        &[
            ("watch", "true"),
            ("labelSelector", &options.label_selector),
            ("fieldSelector", &options.field_selector),
            ("resourceVersion", &options.resource_version),
            ("resourceVersionMatch", matching),
            ("allowWatchBookmarks", flag(options.bookmarks)),
            ("sendInitialEvents", flag(options.send_initial_events)),
            ("timeoutSeconds", &number(options.timeout_seconds)),
        ],
    )
}

pub fn write_path(target: &Target, options: &WriteOptions) -> String {
    with_query(
        target.path(),
        &[
            ("dryRun", if options.dry_run { "All" } else { "" }),
            ("fieldManager", &options.field_manager),
            ("fieldValidation", &options.field_validation),
            ("force", if options.force { "true" } else { "" }),
        ],
    )
}

/// The media type and body of a patch.
pub fn patch_body(patch: Patch) -> (&'static str, Value) {
    match patch {
        Patch::Json(body) => ("application/json-patch+json", body),
        Patch::Merge(body) => ("application/merge-patch+json", body),
        Patch::StrategicMerge(body) => ("application/strategic-merge-patch+json", body),
        Patch::Apply(body) => ("application/apply-patch+yaml", body),
    }
}

pub fn delete_body(options: &DeleteOptions) -> Bytes {
    let mut body = serde_json::to_value(options).unwrap_or_default();
    body["apiVersion"] = Value::from("v1");
    body["kind"] = Value::from("DeleteOptions");
    Bytes::from(body.to_string())
}

pub async fn upgrade(
    connector: &Connector,
    base: &str,
    path: &str,
    headers: &HeaderMap,
    protocols: &[&str],
) -> Result<(TokioIo<Upgraded>, String), Status> {
    let broken = |what: &str| Status::service_unavailable(format!("{base}: {what}"));
    let uri: http::Uri =
        format!("{base}{path}").parse().map_err(|_| Status::bad_request("not a valid path"))?;
    let stream = connector.connect(&uri, true).await.map_err(|error| broken(&error.to_string()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(&error.to_string()))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "an upgraded connection ended");
        }
    });
    let mut request = http::Request::get(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(header::HOST, uri.authority().map_or("", |authority| authority.as_str()))
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, tokio_tungstenite::tungstenite::handshake::client::generate_key())
        .header(header::SEC_WEBSOCKET_PROTOCOL, protocols.join(", "));
    if let Some(all) = request.headers_mut() {
        all.extend(headers.clone());
    }
    let request =
        request.body(Empty::<Bytes>::new()).map_err(|error| Status::bad_request(error.to_string()))?;
    let answer = sender.send_request(request).await.map_err(|error| broken(&error.to_string()))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(super::failure(answer).await);
    }
    let protocol = answer.headers().get(header::SEC_WEBSOCKET_PROTOCOL);
    let protocol = protocol.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let upgraded = hyper::upgrade::on(answer).await.map_err(|error| broken(&error.to_string()))?;
    Ok((TokioIo::new(upgraded), protocol))
}
