//! What every Kubernetes API object and request has in common, as pure functions over values.
//!
//! No clock, randomness, `async` or I/O lives here: the caller passes what is needed.

pub mod apply;
pub mod decode;
pub mod duration;
pub mod object;
pub mod openapi;
pub mod patch;
pub mod protobuf;
pub mod quantity;
pub mod schema;
pub mod selector;
pub mod status;
mod views;
pub mod yaml;

pub use object::{Key, Object, ObjectMeta, OwnerReference};
pub use status::{FieldError, Status};
