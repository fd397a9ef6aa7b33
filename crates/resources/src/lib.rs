//! The table of kinds: one row per resource, and for the kinds that differ a strategy.

pub mod strategy;
pub mod table;

pub use strategy::{Context, Strategy};
pub use table::{Resource, Scope, Subresource, Table};
pub mod names;
pub mod table_format;
