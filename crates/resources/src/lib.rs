//! The table of kinds: one row per resource, and for the kinds that differ a strategy.
//!
//! Everything here is pure: values in, values out; time comes in as an argument.

pub mod apps;
pub mod autoscaling;
pub mod batch;
pub mod builtin;
pub mod check;
pub mod columns;
pub mod core;
pub mod metadata;
pub mod misc;
pub mod names;
pub mod networking;
pub mod policy;
pub mod quota;
pub mod rbac;
pub mod registration;
pub mod registry;
pub mod row;
pub mod storage;
pub mod strategy;
pub mod table;
pub mod table_format;
pub mod value;

pub use builtin::builtin_table;
pub use columns::{Column, columns};
pub use strategy::{Context, Strategy};
pub use table::{Resource, Scope, Subresource, Table};
