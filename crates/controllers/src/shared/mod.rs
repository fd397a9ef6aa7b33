//! What several controllers judge alike.

pub mod claim;
pub mod conditions;
pub mod intstr;
pub mod names;
pub mod owners;
pub mod pods;
pub mod revisions;
pub mod status;
pub mod taints;
pub mod template;
#[cfg(test)]
pub mod testing;
