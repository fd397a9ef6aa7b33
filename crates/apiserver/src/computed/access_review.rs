//! The four questions of `authorization.k8s.io`: what somebody may do.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use auth::{Attributes, Decision, User};
use client::WriteOptions;
use machinery::{FieldError, Status};
use serde_json::{Value, json};

use super::{Computation, text};
use crate::core::Core;
use crate::pipeline::Call;

const GROUP: &str = "authorization.k8s.io";

pub(super) struct SubjectAccessReview;
pub(super) struct LocalSubjectAccessReview;
pub(super) struct SelfSubjectAccessReview;
pub(super) struct SelfSubjectRulesReview;

#[async_trait]
impl Computation for SubjectAccessReview {
    async fn compute(
        &self,
        core: &Arc<Core>,
        call: &Call,
        body: Value,
        _: &WriteOptions,
    ) -> Result<Value, Status> {
        let user = subject(call, &body)?;
        answered(core, call, body, user)
    }
}

#[async_trait]
impl Computation for LocalSubjectAccessReview {
    async fn compute(
        &self,
        core: &Arc<Core>,
        call: &Call,
        body: Value,
        _: &WriteOptions,
    ) -> Result<Value, Status> {
        let user = subject(call, &body)?;
        let asked = text(&body, "/spec/resourceAttributes/namespace");
        if asked != call.target.namespace {
            let detail = "must match metadata.namespace";
            let error = FieldError::invalid("spec.resourceAttributes.namespace", asked, detail);
            return Err(Status::invalid(GROUP, &call.row.kind, "", &[error]));
        }
        answered(core, call, body, user)
    }
}

#[async_trait]
impl Computation for SelfSubjectAccessReview {
    async fn compute(
        &self,
        core: &Arc<Core>,
        call: &Call,
        body: Value,
        _: &WriteOptions,
    ) -> Result<Value, Status> {
        answered(core, call, body, call.caller.user.clone())
    }
}

#[async_trait]
impl Computation for SelfSubjectRulesReview {
    async fn compute(
        &self,
        core: &Arc<Core>,
        call: &Call,
        mut body: Value,
        _: &WriteOptions,
    ) -> Result<Value, Status> {
        let namespace = text(&body, "/spec/namespace").to_owned();
        if namespace.is_empty() {
            return Err(Status::bad_request("no namespace on request"));
        }
        let rules = core.authorizer.rules_for(&call.caller.user, &namespace);
        body["status"] = json!(rules);
        Ok(body)
    }
}

/// The subject that a review names.
fn subject(call: &Call, body: &Value) -> Result<User, Status> {
    let spec = &body["spec"];
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let extra: BTreeMap<String, Vec<String>> = spec["extra"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, values)| (key.clone(), texts(values)))
        .collect();
    let user = User {
        name: text(spec, "/user").to_owned(),
        uid: text(spec, "/uid").to_owned(),
        groups: texts(&spec["groups"]),
        extra,
    };
    if user.name.is_empty() && user.groups.is_empty() {
        let error = FieldError::invalid("spec.user", "", "at least one of user or group must be specified");
        return Err(Status::invalid(GROUP, &call.row.kind, "", &[error]));
    }
    Ok(user)
}

fn answered(core: &Core, call: &Call, mut body: Value, user: User) -> Result<Value, Status> {
    let attributes = asked(call, &body, user)?;
    body["status"] = match core.authorizer.authorize(&attributes) {
        Decision::Allow(reason) => with_reason(json!({"allowed": true}), &reason),
        Decision::Deny(reason) => with_reason(json!({"allowed": false, "denied": true}), &reason),
        Decision::NoOpinion(reason) => with_reason(json!({"allowed": false}), &reason),
    };
    Ok(body)
}

fn with_reason(mut status: Value, reason: &str) -> Value {
    if !reason.is_empty() {
        status["reason"] = json!(reason);
    }
    status
}

fn asked(call: &Call, body: &Value, user: User) -> Result<Attributes, Status> {
    let given = |pointer: &str| body.pointer(pointer).filter(|value| !value.is_null());
    let invalid = |field: &str, detail: &str| {
        Err(Status::invalid(GROUP, &call.row.kind, "", &[FieldError::invalid(field, Value::Null, detail)]))
    };
    match (given("/spec/resourceAttributes"), given("/spec/nonResourceAttributes")) {
        (Some(_), Some(_)) => invalid(
            "spec.nonResourceAttributes",
            "cannot be specified in combination with resourceAttributes",
        ),
        (None, None) => invalid(
            "spec.resourceAttributes",
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ),
        (None, Some(path)) => Ok(Attributes {
            user,
            verb: text(path, "/verb").to_owned(),
            path: text(path, "/path").to_owned(),
            ..Attributes::default()
        }),
        (Some(resource), None) => Ok(Attributes {
            user,
            verb: text(resource, "/verb").to_owned(),
            group: text(resource, "/group").to_owned(),
            version: text(resource, "/version").to_owned(),
            resource: text(resource, "/resource").to_owned(),
            subresource: text(resource, "/subresource").to_owned(),
            namespace: text(resource, "/namespace").to_owned(),
            name: text(resource, "/name").to_owned(),
            ..Attributes::default()
        }),
    }
}
