//! Admission: the ordered chain of plugins that may change or refuse a request before it is stored.

pub mod chain;

pub use chain::{Attributes, Chain, Operation, Plugin, Warnings};
