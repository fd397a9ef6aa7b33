//! Cluster DNS, in process: Services, endpoints and pods from caches of the API, everything else from other servers.
//!
//! With `ndots:5` most questions of pods are about names that do not exist, so saying no must cost no more than
//! saying yes: a question is taken apart and looked up in one hash map.

pub mod answer;
mod dns;
mod metrics;
mod server;
mod upstream;
pub mod zone;

pub use dns::{Config, Dns, DnsError};
pub use metrics::Metrics;
pub use upstream::UpstreamError;
