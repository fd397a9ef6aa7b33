//! The HTTPS door: from a request to a call of the pipeline, and back.

pub mod body;
pub mod encode;
pub mod impersonate;
pub mod listener;
pub mod negotiate;
pub mod resource;
pub mod service;
pub mod table;
pub mod watch_body;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body_util::BodyExt;
use machinery::Status;

use crate::core::Core;
use crate::pipeline::Caller;
use crate::request::{Query, RequestInfo};

/// A plain GET by a caller inside the process.
pub async fn raw(core: &Arc<Core>, caller: &Arc<Caller>, path_and_query: &str) -> Result<Bytes, Status> {
    let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
    let query = Query::parse(query)?;
    let info = RequestInfo::parse(&Method::GET, path, &query);
    let request = service::Incoming {
        method: Method::GET,
        headers: HeaderMap::new(),
        info,
        query,
        body: service::RequestBody::Empty,
        upgrade: None,
    };
    let response = service::dispatch(core, caller, request).await?;
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.map_err(Status::internal)?.to_bytes();
    if code >= 400 {
        return Err(serde_json::from_slice(&bytes).unwrap_or_else(|_not_a_status| {
            Status::failure(code, "Unknown", String::from_utf8_lossy(&bytes).into_owned())
        }));
    }
    Ok(bytes)
}
