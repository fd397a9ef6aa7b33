//! Behaviours of the conformance list that need no node, as clients on the wire see them.

mod accounts;
mod collector;
mod events;
mod operations;
mod quotas;
mod server;
mod validation;
mod watchers;
mod wire;
mod world;
