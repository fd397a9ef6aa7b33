//! What several controllers judge alike.

pub mod owners;
pub mod pods;
pub mod selectors;
pub mod template;
