//! `/openapi/v2` and `/openapi/v3`: documents that the schema and the table write; nothing is kept.

use std::collections::BTreeMap;

use http::{HeaderValue, Response, header};
use machinery::Status;
use machinery::openapi::{self, Api, Row, Subresource};
use resources::{Resource, Table};

use super::with_etag;
use crate::core::Core;
use crate::http::body::{Body, response};
use crate::http::service::Incoming;

/// The one document of v2, in JSON or in the protobuf form that kubectl prefers.
pub(super) fn v2(core: &Core, request: &Incoming) -> Result<Response<Body>, Status> {
    let rows = rows(&core.table.load());
    let api = Api { rows: &rows, custom: &BTreeMap::new(), version: &core.facts.version };
    let accept = request.header(header::ACCEPT);
    let wants_protobuf = openapi::V2_PROTOBUF.iter().any(|name| accept.contains(*name));
    Ok(match wants_protobuf {
        // The other name, with an `@`, is no media type: Go refuses it in an answer.
        true => with_etag(request, openapi::V2_PROTOBUF[0], openapi::v2_protobuf(&api)),
        false => with_etag(request, "application/json", openapi::v2_document(&api)),
    })
}

/// Where the documents of v3 are.
pub(super) fn index(core: &Core) -> Result<Response<Body>, Status> {
    let rows = rows(&core.table.load());
    let api = Api { rows: &rows, custom: &BTreeMap::new(), version: &core.facts.version };
    Ok(response(200, "application/json", openapi::v3_index(&api)))
}

/// The document of one group and version. With its hash in the query it never changes.
pub(super) fn v3(core: &Core, request: &Incoming, rest: &[&str]) -> Result<Response<Body>, Status> {
    let (group, version) = match rest {
        ["api", version] => ("", *version),
        ["apis", group, version] => (*group, *version),
        _ => return Err(Status::no_such_path()),
    };
    let rows = rows(&core.table.load());
    let api = Api { rows: &rows, custom: &BTreeMap::new(), version: &core.facts.version };
    let document = openapi::v3_document(&api, group, version).ok_or_else(Status::no_such_path)?;
    let mut answer = with_etag(request, "application/json", document);
    if request.query.get("hash") == openapi::v3_hash(&api, group, version) {
        let forever = HeaderValue::from_static("public, immutable");
        answer.headers_mut().insert(header::CACHE_CONTROL, forever);
    }
    Ok(answer)
}

fn rows(table: &Table) -> Vec<Row> {
    table.rows().iter().map(|row| described(row)).collect()
}

fn described(row: &Resource) -> Row {
    let subresources = row.subresources.iter().map(|sub| Subresource {
        name: sub.name.clone(),
        group: sub.group.clone(),
        version: sub.version.clone(),
        kind: sub.kind.clone(),
        verbs: sub.verbs.clone(),
    });
    Row {
        group: row.group.clone(),
        version: row.version.clone(),
        kind: row.kind.clone(),
        resource: row.resource.clone(),
        namespaced: row.is_namespaced(),
        verbs: row.verbs.clone(),
        subresources: subresources.collect(),
        type_name: row.schema.clone(),
    }
}
