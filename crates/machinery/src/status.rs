//! `metav1.Status`: the one error type at the API boundary.
//!
//! Built from fields, never parsed from text. Messages and reasons are upstream's
//! (`k8s.io/apimachinery/pkg/api/errors`, `k8s.io/apimachinery/pkg/util/validation/field`).

use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Serialize};

/// An API error (or, for deletes, a success) as clients see it. It is one pointer wide, so that a `Result` with it
/// costs the successful path nothing; its fields are reached through `Deref`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Status(Box<Fields>);

impl Deref for Status {
    type Target = Fields;

    fn deref(&self) -> &Fields {
        &self.0
    }
}

impl DerefMut for Status {
    fn deref_mut(&mut self) -> &mut Fields {
        &mut self.0
    }
}

/// The fields of [`Status`] as they are written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fields {
    #[serde(default = "kind")]
    pub kind: String,
    #[serde(default = "api_version")]
    pub api_version: String,
    #[serde(default)]
    pub metadata: ListMeta,
    /// `Failure` or `Success`.
    #[serde(default)]
    pub status: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<Details>>,
    /// The HTTP status code.
    #[serde(default)]
    pub code: u16,
}

fn kind() -> String {
    "Status".to_owned()
}

fn api_version() -> String {
    "v1".to_owned()
}

/// The part of `metav1.ListMeta` that a status carries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMeta {
    #[serde(default, rename = "continue", skip_serializing_if = "String::is_empty")]
    pub continue_token: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
}

/// `metav1.StatusDetails`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The resource (`pods`) or, for invalid objects, the kind.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// `metav1.StatusCause`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// One field that failed validation. `path` is upstream's notation: `spec.containers[0].name`.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// Upstream's error type: `FieldValueRequired`, `FieldValueInvalid`, …
    pub reason: &'static str,
    pub path: String,
    /// What follows the path, e.g. `Required value: must not be empty`.
    pub message: String,
}

impl FieldError {
    /// `Required value`, with an optional explanation.
    pub fn required(path: impl Into<String>, detail: &str) -> Self {
        Self::new("FieldValueRequired", path, with_detail("Required value", detail))
    }

    /// `Invalid value: VALUE: detail`; strings are quoted as upstream does.
    pub fn invalid(path: impl Into<String>, value: impl Serialize, detail: impl fmt::Display) -> Self {
        Self::new("FieldValueInvalid", path, format!("Invalid value: {}: {detail}", json(&value)))
    }

    /// `Unsupported value: VALUE: supported values: "a", "b"`.
    pub fn not_supported(path: impl Into<String>, value: impl Serialize, supported: &[&str]) -> Self {
        let list: Vec<_> = supported.iter().map(|value| format!("{value:?}")).collect();
        let message = format!("Unsupported value: {}: supported values: {}", json(&value), list.join(", "));
        Self::new("FieldValueNotSupported", path, message)
    }

    /// `Forbidden: detail`.
    pub fn forbidden(path: impl Into<String>, detail: &str) -> Self {
        Self::new("FieldValueForbidden", path, with_detail("Forbidden", detail))
    }

    /// `Duplicate value: VALUE`.
    pub fn duplicate(path: impl Into<String>, value: impl Serialize) -> Self {
        Self::new("FieldValueDuplicate", path, format!("Duplicate value: {}", json(&value)))
    }

    /// `Not found: VALUE`.
    pub fn not_found(path: impl Into<String>, value: impl Serialize) -> Self {
        Self::new("FieldValueNotFound", path, format!("Not found: {}", json(&value)))
    }

    /// `Too long: may not be more than MAX bytes`.
    pub fn too_long(path: impl Into<String>, max: usize) -> Self {
        Self::new("FieldValueTooLong", path, format!("Too long: may not be more than {max} bytes"))
    }

    /// `Too many: COUNT: must have at most MAX items`.
    pub fn too_many(path: impl Into<String>, count: usize, max: usize) -> Self {
        Self::new("FieldValueTooMany", path, format!("Too many: {count}: must have at most {max} items"))
    }

    /// `Invalid value: VALUE: must be of type …`.
    pub fn type_invalid(path: impl Into<String>, value: impl Serialize, detail: impl fmt::Display) -> Self {
        Self::new("FieldValueTypeInvalid", path, format!("Invalid value: {}: {detail}", json(&value)))
    }

    fn new(reason: &'static str, path: impl Into<String>, message: String) -> Self {
        Self { reason, path: path.into(), message }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.path, self.message)
    }
}

fn with_detail(what: &str, detail: &str) -> String {
    if detail.is_empty() { what.to_owned() } else { format!("{what}: {detail}") }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

impl Status {
    /// A failure with no details.
    pub fn failure(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self(Box::new(Fields {
            kind: kind(),
            api_version: api_version(),
            metadata: ListMeta::default(),
            status: "Failure".to_owned(),
            message: message.into(),
            reason: reason.to_owned(),
            details: None,
            code,
        }))
    }

    /// The answer to a delete that removed the object at once.
    pub fn success(details: Details) -> Self {
        let mut status = Self::failure(200, "", "");
        status.status = "Success".to_owned();
        status.details = Some(Box::new(details));
        status
    }

    fn about(code: u16, reason: &str, message: String, group: &str, kind: &str, name: &str) -> Self {
        let mut status = Self::failure(code, reason, message);
        status.details = Some(Box::new(Details {
            name: name.to_owned(),
            group: group.to_owned(),
            kind: kind.to_owned(),
            ..Details::default()
        }));
        status
    }

    /// 404: `pods "web" not found`.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {name:?} not found", qualified(group, resource));
        Self::about(404, "NotFound", message, group, resource, name)
    }

    /// 404 for a path that names no resource.
    pub fn no_such_path() -> Self {
        let mut status = Self::failure(404, "NotFound", "the server could not find the requested resource");
        status.details = Some(Box::default());
        status
    }

    /// 409: `pods "web" already exists`.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", qualified(group, resource));
        Self::about(409, "AlreadyExists", message, group, resource, name)
    }

    /// 409: `Operation cannot be fulfilled on pods "web": detail`.
    pub fn conflict(group: &str, resource: &str, name: &str, detail: &str) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} {name:?}: {detail}", qualified(group, resource));
        Self::about(409, "Conflict", message, group, resource, name)
    }

    /// 409 for a stale `resourceVersion`, with upstream's advice.
    pub fn modified(group: &str, resource: &str, name: &str) -> Self {
        Self::conflict(
            group,
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 422: `Pod "web" is invalid: [...]` with a cause per field.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        let list = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let message = format!("{} {name:?} is invalid: {list}", qualified(group, kind));
        let mut status = Self::about(422, "Invalid", message, group, kind, name);
        if let Some(details) = &mut status.details {
            details.causes = errors
                .iter()
                .map(|error| Cause {
                    reason: error.reason.to_owned(),
                    message: error.message.clone(),
                    field: error.path.clone(),
                })
                .collect();
        }
        status
    }

    /// 403: `pods "web" is forbidden: detail`.
    pub fn forbidden(group: &str, resource: &str, name: &str, detail: &str) -> Self {
        let what = qualified(group, resource);
        let message = match name {
            "" => format!("{what} is forbidden: {detail}"),
            name => format!("{what} {name:?} is forbidden: {detail}"),
        };
        Self::about(403, "Forbidden", message, group, resource, name)
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::failure(401, "Unauthorized", "Unauthorized")
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::failure(400, "BadRequest", message)
    }

    /// 405: `delete is not supported on resources of kind "bindings"`.
    pub fn method_not_supported(group: &str, resource: &str, verb: &str) -> Self {
        let what = qualified(group, resource);
        let message = format!("{verb} is not supported on resources of kind {what:?}");
        Self::about(405, "MethodNotAllowed", message, group, resource, "")
    }

    /// 410: the asked-for revision is older than the history that is kept.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::failure(410, "Expired", message)
    }

    /// 413.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::failure(413, "RequestEntityTooLarge", format!("Request entity too large: {}", message.into()))
    }

    /// 406: none of the client's `Accept` types can be produced.
    pub fn not_acceptable(supported: &[&str]) -> Self {
        let list = supported.join(", ");
        let message = format!("only the following media types are accepted: {list}");
        Self::failure(406, "NotAcceptable", message)
    }

    /// 415: the body's media type cannot be read.
    pub fn unsupported_media_type(supported: &[&str]) -> Self {
        let list = supported.join(", ");
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {list}"
        );
        Self::failure(415, "UnsupportedMediaType", message)
    }

    /// 429 with the seconds to wait before another try.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let mut status = Self::failure(429, "TooManyRequests", message);
        status.details = Some(Box::new(Details { retry_after_seconds, ..Details::default() }));
        status
    }

    /// 500.
    pub fn internal(message: impl fmt::Display) -> Self {
        let message = format!("Internal error occurred: {message}");
        let mut status = Self::failure(500, "InternalError", message.clone());
        status.details = Some(Box::new(Details {
            causes: vec![Cause { message, ..Cause::default() }],
            ..Details::default()
        }));
        status
    }

    /// 503.
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::failure(503, "ServiceUnavailable", message)
    }

    /// 504: the server could not finish in time; the client may try again after a while.
    pub fn timeout(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let mut status = Self::failure(504, "Timeout", message);
        status.details = Some(Box::new(Details { retry_after_seconds, ..Details::default() }));
        status
    }

    /// Whether this is the answer for an object that does not exist.
    pub fn is_not_found(&self) -> bool {
        self.reason == "NotFound"
    }

    /// Whether the object exists already.
    pub fn is_already_exists(&self) -> bool {
        self.reason == "AlreadyExists"
    }

    /// Whether another write came first.
    /// The server does not answer, or says that it cannot at the moment.
    pub fn is_service_unavailable(&self) -> bool {
        self.code == 503
    }

    pub fn is_conflict(&self) -> bool {
        self.reason == "Conflict"
    }

    /// Whether a watch or continue token is older than the history that is kept.
    pub fn is_expired(&self) -> bool {
        matches!(self.reason.as_str(), "Expired" | "Gone")
    }
}

impl fmt::Display for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.message.as_str() {
            "" => write!(out, "{} ({})", self.reason, self.code),
            message => out.write_str(message),
        }
    }
}

impl std::error::Error for Status {}

/// `deployments.apps`, or `pods` for the core group.
fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}
