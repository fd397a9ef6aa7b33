//! Containers on this machine: the runtime interface and the runtime that is built in.
//!
//! The interface ([`Runtime`]) has the shape of CRI (`k8s.io/cri-api`), so that a containerd or CRI-O socket can stand
//! behind it. The built-in one, [`EmbeddedRuntime`], keeps one small *monitor* process per pod: the same executable
//! started again, single-threaded, in the pod's network, IPC and host-name namespaces. The monitor is the parent of the
//! pod's processes, holds their streams, writes their logs and records how they end, so the process that manages
//! them may be killed and replaced at any moment. What is asked of a monitor goes through a Unix socket; streams go
//! as file descriptors, so the data of `exec` passes through nobody.
//!
//! It knows nothing of registries ([`images::ImageService`] has the layers) or of addresses ([`SandboxNetwork`]).

mod defaults;
mod embedded;
mod monitor;
mod protocol;
mod record;
pub mod runtime;
mod seccomp;
mod spec;
mod users;

pub use embedded::{Config, EmbeddedRuntime, sweep};
pub use monitor::{helper_main, is_helper};
pub use runtime::*;
