//! Services on this node: from the API's objects to one table of the packet filter.
//!
//! ClusterIPs, node ports, external addresses and host ports of pods are elements of a few named maps; a change is
//! one transaction with the elements that differ. Nothing here carries packets: the kernel does, also while this
//! process is away.

pub mod compile;
mod health;
mod parts;
mod proxy;
mod state;
mod tables;

pub use proxy::{Config, Proxy, ProxyError, teardown};
