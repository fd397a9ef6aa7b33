//! What all controllers have in common: a queue without duplicates, a runner with back-off and the
//! read-your-writes barrier, one executor for the closed set of actions, and events.
//!
//! A controller judges (`plan`, a pure function of what is observed); this crate acts.

pub mod events;
pub mod executor;
pub mod plan;
pub mod queue;
pub mod runner;

pub use events::{Recorder, Reference};
pub use executor::Executor;
pub use plan::{Action, Plan};
pub use queue::Queue;
pub use runner::{Controller, Input, Reconcile, run, run_queue};
