//! The table of kinds: one row per resource, and for the kinds that differ a strategy.
//!
//! Everything here is pure: values in, values out; time comes in as an argument.

pub mod builtin;
pub mod columns;
pub mod names;
pub mod registry;
pub mod strategy;
pub mod table;
pub mod table_format;
pub mod value;

pub use builtin::builtin_table;
pub use columns::{Column, columns};
pub use strategy::{Context, Strategy};
pub use table::{Resource, Scope, Subresource, Table};
