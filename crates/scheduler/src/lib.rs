//! The scheduler: which node a pod runs on.
//!
//! `schedule(snapshot, pod) → Decision` is a pure function over plugins, one file each; [`Scheduler`] is the thin
//! driver that keeps the snapshot live, binds and says why a pod has to wait.

pub mod decision;
pub mod driver;
pub mod plugin;
pub mod plugins;
pub mod pod;
pub mod queue;
pub mod snapshot;

pub use decision::{Decision, schedule};
pub use driver::Scheduler;
pub use pod::PodInfo;
pub use snapshot::{NodeInfo, Snapshot};
