//! The subcommands, one file each.

pub mod agent;
pub mod demo;
pub mod doctor;
pub mod image;
pub mod nodes;
pub mod reset;
pub mod snapshot;
pub mod token;
pub mod up;
pub mod version;
pub mod web;
