//! The built program and real clients: kubectl of two versions, helm, client libraries of three languages, a registry.
//!
//! Each test starts a cluster of its own on this machine. Needs root; `cargo xtask test` builds and installs the rest.

mod bad_input;
mod builtin;
mod clients;
mod cluster;
mod conformance_api;
mod conformance_apps;
mod conformance_cli;
mod conformance_network;
mod conformance_node;
mod conformance_scheduling;
mod conformance_storage;
mod crash;
mod faults;
mod fleet;
mod guestbook;
mod image;
mod images_fail;
mod kube_crate;
mod lifecycle;
mod metrics;
mod node_only;
mod nodes;
mod pods;
mod registry;
mod scale;
mod space;
mod survival;
mod walk;
mod workloads;
