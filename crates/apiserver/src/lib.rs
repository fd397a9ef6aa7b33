//! The API server: one request pipeline for every kind, the watch cache, HTTPS, discovery.
//!
//! It is the only crate that talks to the store. It names no kind outside of `computed`,
//! `connect`, `fairness` and `bootstrap`.

pub mod bootstrap;
mod cache;
mod codec;
pub mod computed;
pub mod config;
pub mod connect;
mod core;
mod discovery;
mod fairness;
mod http;
mod leases;
mod metrics;
mod pipeline;
mod request;
mod selection;
mod server;
mod transport;

pub use config::{ClusterFacts, Config, Facts, NoTokens, Tokens};
pub use connect::{Connection, Dialer, TcpDialer};
pub use core::Core;
pub use discovery::health::Check;
pub use server::Server;
