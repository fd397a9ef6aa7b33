//! What a request asks for, read from its path and query. Pure: no body, no identity.

pub mod info;
pub mod query;

pub use info::{RequestInfo, Route};
pub use query::Query;
