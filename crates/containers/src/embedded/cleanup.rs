//! Ending everything: for Ctrl-C in the foreground, and for `reset`.

use futures::future::join_all;
use linux::cgroup::{Cgroup, Hierarchies};

use super::sandboxes::{KILL_LIMIT, remove_all};
use super::{EmbeddedRuntime, io_error, other};
use crate::{RuntimeError, SandboxId};

impl EmbeddedRuntime {
    /// Stops every sandbox at once, without grace; with `remove`, forgets them and their containers too and removes
    /// the cgroups. Everything is tried; the first error is returned.
    pub async fn stop_all(&self, remove: bool) -> Result<(), RuntimeError> {
        let ids: Vec<SandboxId> = self.inner.tables.lock().sandboxes.keys().cloned().collect();
        let stopped = join_all(ids.iter().map(|id| async move {
            if remove { self.inner.remove_sandbox(id).await } else { self.inner.stop_sandbox(id).await }
        }));
        let mut outcome = stopped.await.into_iter().find(Result::is_err).unwrap_or(Ok(()));
        if remove {
            let root = self.inner.cgroup_root();
            let removed = tokio::task::spawn_blocking(move || root.destroy(KILL_LIMIT)).await;
            let removed = removed.map_err(|error| io_error("remove the cgroups", error.into()))?;
            outcome = outcome.and(removed.map_err(|error| other("remove the cgroups", error)));
        }
        outcome
    }

    /// Stops and removes everything, and then the runtime's own directories. The runtime is of no use afterwards.
    pub async fn purge(&self) -> Result<(), RuntimeError> {
        let stopped = self.stop_all(true).await;
        let data_dir = &self.inner.config.data_dir;
        let swept = sweep(data_dir, &self.inner.config.cgroup_root);
        stopped.and(swept)
    }
}

/// Removes every trace of a runtime that cannot be opened any more, without looking at its records: processes and
/// cgroups below the root, mounts, files. It blocks. The network is not its business.
pub fn sweep(data_dir: &std::path::Path, cgroup_root: &str) -> Result<(), RuntimeError> {
    let hierarchies = Hierarchies::detect().map_err(|error| other("remove the cgroups", error))?;
    let root = Cgroup::new(&std::sync::Arc::new(hierarchies), cgroup_root);
    root.destroy(KILL_LIMIT).map_err(|error| other("remove the cgroups", error))?;
    for name in ["run", "containers"] {
        let directory = data_dir.join(name);
        linux::mount::unmount_below(&directory).map_err(|error| other("unmount", error))?;
        remove_all(&directory)?;
    }
    Ok(())
}
