//! Server-side apply: who owns which field, and what an apply does to an object.
//!
//! Source: KEP-555, `sigs.k8s.io/structured-merge-diff`, `k8s.io/apimachinery/pkg/util/managedfields`.

mod compare;
mod last_applied;
mod managed;
mod merge;
mod set;
mod settled;
mod update;

use jiff::Timestamp;

use crate::schema::{Node, Schema};

pub use managed::{Entry, Managed, OPERATION_APPLY, OPERATION_UPDATE};
pub use set::{FieldSet, PathElement};
pub use update::{Conflict, apply, conflict_status, track_update};

/// Who writes, and when.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    pub manager: &'a str,
    /// The version of the request's object, `apps/v1`.
    pub api_version: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    pub now: Timestamp,
}

/// The type of an object.
#[derive(Clone, Copy, Debug)]
pub struct Type<'a> {
    pub schema: &'a Schema,
    pub node: &'a Node,
}

/// The longest name of a manager, in bytes.
const MANAGER_MAX: usize = 128;

/// The manager of a request that names none: the `User-Agent` up to its first `/`.
pub fn default_manager(user_agent: &str) -> String {
    let name = user_agent.split('/').next().unwrap_or_default();
    let end = (0..=name.len().min(MANAGER_MAX)).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    match &name[..end] {
        "" => "unknown".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests;
