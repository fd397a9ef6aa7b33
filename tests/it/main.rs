//! The built program and real clients: kubectl of two versions, helm, the Python client library, a registry.
//!
//! Each test starts a cluster of its own on this machine. Needs root; `cargo xtask test` builds and installs the rest.

mod bad_input;
mod clients;
mod cluster;
mod image;
mod pods;
mod registry;
mod survival;
mod walk;
mod workloads;
