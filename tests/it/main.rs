//! The built program and real clients: kubectl of two versions, helm, the Python client library, a registry.
//!
//! Each test starts a cluster of its own on this machine. Needs root; `cargo xtask test` builds and installs the rest.

mod bad_input;
mod clients;
mod cluster;
mod conformance_node;
mod conformance_storage;
mod image;
mod lifecycle;
mod pods;
mod registry;
mod space;
mod survival;
mod walk;
mod workloads;
