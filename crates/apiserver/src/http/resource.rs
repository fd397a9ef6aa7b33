//! Requests for resources: options and body in, object, list, watch or status out.

use std::sync::Arc;

use bytes::Bytes;
use client::{DeleteOptions, Deleted, Patch, Target};
use http::{HeaderValue, Response, header};
use machinery::status::Details;
use machinery::{Object, Status};
use serde_json::Value;

use super::body::Body;
use super::encode::Form;
use super::negotiate::{Media, negotiate};
use super::service::{Incoming, RequestBody};
use super::table::Include;
use super::watch_body::{self, WatchForm};
use crate::codec;
use crate::connect;
use crate::core::Core;
use crate::pipeline::{Call, Caller, Problems, Selectors};

/// Answers a request for `target`.
pub async fn answer(
    core: &Arc<Core>,
    caller: &Arc<Caller>,
    target: Target,
    mut request: Incoming,
) -> Result<Response<Body>, Status> {
    let verb = request.info.verb;
    let selectors =
        Selectors { labels: request.query.get("labelSelector"), fields: request.query.get("fieldSelector") };
    let call = core.authorize(caller, verb, &target, selectors)?;
    if !fits(verb, &target) {
        let text = "the server does not allow this method on the requested resource";
        return Err(Status::failure(405, "MethodNotAllowed", text));
    }
    if connect::is_connector(&target) {
        return connect::answer(core, &call, request).await;
    }
    let is_stored = ["get", "list"].iter().any(|verb| call.row.supports(verb));
    let accepted = negotiate(request.header(header::ACCEPT), is_stored)?;
    let include = Include::parse(request.query.get("includeObject"));
    if verb == "watch" {
        let source = match core.watch(&call, &request.query.watch_options()?).await {
            Err(status) if !status.is_expired() => return Err(status),
            source => source,
        };
        let form = WatchForm { core: core.clone(), row: call.row.clone(), accepted, include };
        return Ok(watch_body::answer(source, form));
    }
    let body = std::mem::replace(&mut request.body, RequestBody::Empty);
    let body = if matches!(verb, "get" | "list") { Bytes::new() } else { body.read().await? };
    let form = Form {
        accepted,
        include,
        pretty: request.query.pretty,
        headers: &request.headers,
        schema: core.schema,
        now: core.env.now(),
    };
    let mut response = act(core, &call, &request, body, &form).await?;
    add_warnings(&call, &mut response);
    Ok(response)
}

/// Whether the path is of the sort that the verb is for: an object, or a collection.
fn fits(verb: &str, target: &Target) -> bool {
    match verb {
        "update" | "patch" => !target.name.is_empty(),
        "create" => target.name.is_empty() || !target.subresource.is_empty(),
        _ => true,
    }
}

async fn act(
    core: &Arc<Core>,
    call: &Call,
    request: &Incoming,
    body: Bytes,
    form: &Form<'_>,
) -> Result<Response<Body>, Status> {
    match call.verb {
        "get" => {
            let object = core.get(call, &request.query.list_options()).await?;
            form.object(200, &call.row, &object)
        }
        "list" => form.list(&call.row, &core.list(call, &request.query.list_options()).await?),
        "create" => {
            let options = request.query.write_options(&call.caller.agent)?;
            let (value, problems) = decode_body(core, request, &body)?;
            created(form, call, &*core.create(call, value, problems, &options).await?)
        }
        "update" => {
            let options = request.query.write_options(&call.caller.agent)?;
            let (value, problems) = decode_body(core, request, &body)?;
            form.object(200, &call.row, &*core.update(call, value, problems, &options).await?)
        }
        "patch" => patched(core, call, request, &body, form).await,
        "delete" => {
            let deleted = core.delete(call, &delete_options(core, request, &body)?).await?;
            Ok(deleted_answer(form, call, deleted)?)
        }
        "deletecollection" => {
            let options = delete_options(core, request, &body)?;
            let list = core.delete_collection(call, &request.query.list_options(), &options).await?;
            form.list(&call.row, &list)
        }
        _ => Err(Status::method_not_supported(&call.row.group, &call.row.resource, call.verb)),
    }
}

/// 201 with the object; a computed `Status` has its own code.
fn created(form: &Form<'_>, call: &Call, object: &Object) -> Result<Response<Body>, Status> {
    if !call.row.storage_prefix.is_empty() && call.target.subresource.is_empty() {
        return form.object(201, &call.row, object);
    }
    let code = object.value().get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
    form.object(code.unwrap_or(201), &call.row, object)
}

async fn patched(
    core: &Arc<Core>,
    call: &Call,
    request: &Incoming,
    body: &Bytes,
    form: &Form<'_>,
) -> Result<Response<Body>, Status> {
    let options = request.query.write_options(&call.caller.agent)?;
    let (patch, problems) = decode_patch(core, request, body)?;
    let is_apply = matches!(patch, Patch::Apply(_));
    if is_apply && request.query.get("fieldManager").is_empty() {
        let message = "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
        return Err(Status::failure(422, "Invalid", message));
    }
    if !is_apply && options.force {
        let message = "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch";
        return Err(Status::failure(422, "Invalid", message));
    }
    let patched = core.patch(call, patch, problems, &options).await?;
    form.object(if patched.created { 201 } else { 200 }, &call.row, &patched.object)
}

fn deleted_answer(form: &Form<'_>, call: &Call, deleted: Deleted) -> Result<Response<Body>, Status> {
    match deleted {
        Deleted::Later(object) => form.object(200, &call.row, &object),
        Deleted::Now(object) => Ok(form.status(&Status::success(Details {
            name: object.meta().name.clone(),
            group: call.row.group.clone(),
            kind: call.row.resource.clone(),
            uid: object.meta().uid.clone(),
            ..Details::default()
        }))),
    }
}

/// The body as a value, with the duplicate fields that strict validation reports.
fn decode_body(core: &Core, request: &Incoming, body: &Bytes) -> Result<(Value, Problems), Status> {
    if body.is_empty() {
        return Err(Status::bad_request("the body of the request was empty"));
    }
    decode_media(core, Media::of_body(request.header(header::CONTENT_TYPE))?, body)
}

fn decode_media(core: &Core, media: Media, body: &Bytes) -> Result<(Value, Problems), Status> {
    let decoded = codec::decode(core.schema, media, body)?;
    Ok((decoded.value, Problems { found: decoded.duplicate_fields, source: body.clone() }))
}

fn decode_patch(core: &Core, request: &Incoming, body: &Bytes) -> Result<(Patch, Problems), Status> {
    const SUPPORTED: [&str; 4] = [
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    ];
    let content_type = request.header(header::CONTENT_TYPE);
    let name = content_type.split(';').next().unwrap_or_default().trim();
    let media = if name == SUPPORTED[3] { Media::Yaml } else { Media::Json };
    if !SUPPORTED.contains(&name) {
        return Err(Status::unsupported_media_type(&SUPPORTED));
    }
    let (value, duplicates) = decode_media(core, media, body)?;
    Ok(match name {
        "application/json-patch+json" => (Patch::Json(value), Problems::default()),
        "application/merge-patch+json" => (Patch::Merge(value), duplicates),
        "application/strategic-merge-patch+json" => (Patch::StrategicMerge(value), duplicates),
        _ => (Patch::Apply(value), duplicates),
    })
}

/// From the body, or, without one, from the query.
fn delete_options(core: &Core, request: &Incoming, body: &Bytes) -> Result<DeleteOptions, Status> {
    if !body.is_empty() {
        let media = Media::of_body(request.header(header::CONTENT_TYPE))?;
        let (value, _) = decode_media(core, media, body)?;
        let mut options: DeleteOptions = serde_json::from_value(value)
            .map_err(|error| Status::bad_request(format!("invalid DeleteOptions: {error}")))?;
        if request.query.dry_run && options.dry_run.is_empty() {
            options.dry_run.push("All".to_owned());
        }
        return Ok(options);
    }
    let query = &request.query;
    let grace = match query.get("gracePeriodSeconds") {
        "" => None,
        text => Some(
            text.parse()
                .map_err(|_| Status::bad_request(format!("gracePeriodSeconds: invalid value {text:?}")))?,
        ),
    };
    let policy = match query.get("propagationPolicy") {
        "" => None,
        text => Some(serde_json::from_value(Value::String(text.to_owned())).map_err(|_| {
            Status::failure(422, "Invalid", format!(
                "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: {text:?}: supported values: \"Foreground\", \"Background\", \"Orphan\""
            ))
        })?),
    };
    Ok(DeleteOptions {
        grace_period_seconds: grace,
        propagation_policy: policy,
        orphan_dependents: query.flag("orphanDependents")?,
        dry_run: if query.dry_run { vec!["All".to_owned()] } else { Vec::new() },
        preconditions: None,
    })
}

/// `299 - "…"`, as RFC 7234 has it.
fn add_warnings(call: &Call, response: &mut Response<Body>) {
    const WARNINGS_MAX: usize = 64;
    for warning in call.take_warnings().into_iter().take(WARNINGS_MAX) {
        let text: String = warning.chars().filter(|c| !c.is_control()).collect();
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}
