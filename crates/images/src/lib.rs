//! Container images on this machine: pulled from registries or imported, stored by content, unpacked into layers.
//!
//! Layers are directories that overlayfs stacks: what an upper one deletes is a device 0:0 in it. Nothing here runs
//! or mounts an image.

mod builtin;
mod images;
mod import;
mod manifest;
mod pull;
mod reference;
mod registry;
pub mod service;
mod store;
mod unpack;

pub use builtin::BuiltinFile;
pub use images::{Images, LayerState, Progress};
pub use reference::Reference;
pub use service::*;
