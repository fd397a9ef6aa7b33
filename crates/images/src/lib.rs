//! Container images on this machine: pulled from registries or imported, stored by content, unpacked into layers.

pub mod service;

pub use service::*;
