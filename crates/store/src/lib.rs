//! The revisioned store: one total order of revisions over keys and values.
//!
//! The current state and a bounded history live in memory; durability is an engine behind it. The store knows
//! nothing of Kubernetes: values are bytes.

pub mod contract;

pub use contract::*;
