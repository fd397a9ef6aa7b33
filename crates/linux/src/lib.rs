//! What this system asks of the kernel: mounts, namespaces, cgroups, processes, terminals, packets.
//!
//! It is the only crate with `unsafe` and the only one that makes system calls the standard library does not have.
//! It decides nothing: callers say what they want, and every function does one thing and reports how it went.
#![allow(unsafe_code)]

pub mod capability;
pub mod cgroup;
pub mod clock;
pub mod device;
pub mod error;
pub mod facts;
pub mod inotify;
pub mod mount;
pub mod namespace;
pub mod net;
pub mod nft;
pub mod path;
pub mod poll;
pub mod probe;
pub mod process;
pub mod seccomp;
pub mod socket;
pub mod terminal;
pub mod tree;

pub use error::{Context, Error, Result};
