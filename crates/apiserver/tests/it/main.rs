//! The API through the real pipeline.

mod access;
mod apply;
mod basics;
mod conformance;
mod connect;
mod coverage;
mod deletes;
mod http;
mod kubectl;
mod load;
mod metrics;
mod watches;
