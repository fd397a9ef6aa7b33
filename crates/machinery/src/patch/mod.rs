//! The patch formats: RFC 6902, RFC 7386, strategic merge, and the three-way merges that `kubectl apply` makes.

pub mod strategic;
pub mod three_way;

use serde_json::Value;

use crate::Status;
use crate::status::{Cause, Details};

pub use strategic::strategic;
pub use three_way::{three_way_merge, three_way_strategic};

/// The most operations a JSON patch may have, as upstream.
const OPERATIONS_MAX: usize = 10_000;

/// Applies an RFC 6902 patch. The errors are upstream's: a malformed patch is a bad request, one that cannot be
/// applied to this object is invalid.
pub fn json_patch(original: &Value, patch: &Value) -> Result<Value, Status> {
    let operations = patch.as_array().map_or(0, Vec::len);
    if operations > OPERATIONS_MAX {
        let text =
            format!("The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {operations}");
        return Err(Status::too_large(text));
    }
    let parsed: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
    let mut patched = original.clone();
    // Upstream says no more than this; what exactly failed is told as a cause.
    json_patch::patch(&mut patched, &parsed).map_err(|error| {
        let text = "the server rejected our request due to an error in our request";
        let mut status = Status::failure(422, "Invalid", text);
        let cause = Cause { message: error.to_string(), ..Cause::default() };
        status.details = Some(Box::new(Details { causes: vec![cause], ..Details::default() }));
        status
    })?;
    Ok(patched)
}

/// Applies an RFC 7386 patch.
pub fn merge_patch(original: &Value, patch: &Value) -> Value {
    let mut patched = original.clone();
    json_patch::merge(&mut patched, patch);
    patched
}

#[cfg(test)]
mod tests;
