//! From bytes to a value that fits a type: duplicate and unknown fields are found, values of the wrong type refused,
//! and everything is put into the form that a Go struct would be written in.
//!
//! Validation of what a field may say is not done here: a decoded object can still be invalid.

mod check;
mod fill;
mod json;
mod order;
mod path;

pub use check::{TypeError, check_types, prune};
pub use fill::complete_fields;
pub(crate) use fill::zero_of;
pub use json::{Decoded, JsonError, Limits, decode_json};
pub use order::in_order;

use crate::schema::{Node, Schema};
use crate::status::Status;

/// Checks a value against a built-in kind and completes it, as every object that enters the server is. The answer is
/// what strict decoding complains about.
pub fn decode_value(
    schema: &Schema,
    type_name: &str,
    value: &mut serde_json::Value,
) -> Result<Vec<String>, TypeError> {
    let node = Node::reference(type_name);
    let complaints = check_types(schema, &node, value)?;
    complete_fields(schema, &node, value);
    Ok(complaints)
}

/// The answer to an object that strict decoding refuses: `strict decoding error: unknown field "spec.foo"`.
pub fn strict_error(kind: &str, version: &str, complaints: &[String]) -> Status {
    cannot_be_handled(kind, version, &format!("strict decoding error: {}", complaints.join(", ")))
}

pub(crate) fn cannot_be_handled(kind: &str, version: &str, detail: &str) -> Status {
    Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {detail}"))
}
