//! Containers on this machine: the runtime interface and the runtime that is built in.
//!
//! The interface has the shape of CRI (`k8s.io/cri-api`), so that a containerd or CRI-O socket can stand behind it.

pub mod runtime;

pub use runtime::*;
