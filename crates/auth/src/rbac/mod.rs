//! Role-based access control, from the cached roles and bindings.

mod authorizer;
mod compiled;
mod escalation;
mod rule;

pub use authorizer::Rbac;
pub use rule::Rule;
