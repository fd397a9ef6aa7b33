//! Access to the API: verbs, watches and shared caches.
//!
//! A [`Client`] speaks through a [`Transport`]. Within the server's process that is the request pipeline itself,
//! handing over shared objects; on another machine it is HTTPS. A component cannot tell which it has.

pub mod cache;
pub mod caches;
pub mod client;
pub mod http;
pub mod kubeconfig;
mod ordered;
pub mod transport;

pub use cache::{Cache, CacheEvent};
pub use caches::{Caches, NODE_INDEX, ORPHANS, OWNER_INDEX};
pub use client::{Client, Resources, target_of, typed};
pub use http::{Http, HttpError, Server};
pub use kubeconfig::{Kubeconfig, KubeconfigError};
pub use transport::{
    DeleteOptions, Deleted, ListOptions, ObjectList, Patch, Preconditions, Propagation, Target, Transport,
    WatchEvent, WatchOptions, WatchStream, WriteOptions,
};
