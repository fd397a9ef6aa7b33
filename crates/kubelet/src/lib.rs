//! Pods on this node.

pub mod machine;
pub mod quantity;
