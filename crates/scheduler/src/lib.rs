//! The scheduler: which node a pod runs on.
//!
//! `schedule(snapshot, pod) → Decision` is a pure function over plugins, one file each; [`Scheduler`] is the thin
//! driver that keeps the snapshot live, binds, preempts and says why a pod has to wait.

pub mod amounts;
pub mod decision;
pub mod driver;
#[cfg(test)]
mod fixture;
pub mod hint;
pub mod node;
pub mod plugin;
pub mod plugins;
pub mod pod;
pub mod preemption;
pub mod queue;
pub mod snapshot;
pub mod tally;
pub mod topology;
pub mod volumes;

pub use amounts::Amounts;
pub use decision::{Decision, Round, schedule};
pub use driver::Scheduler;
pub use node::NodeInfo;
pub use plugin::Defaults;
pub use pod::{NAME, PodInfo, Seen};
pub use snapshot::Snapshot;
