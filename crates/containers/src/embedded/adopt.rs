//! Taking over what an earlier process left.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::sandboxes::{remove_all, remove_mounts};
use super::{Container, Inner, Sandbox, io_error, other};
use crate::RuntimeError;
use crate::record::{self, ContainerRecord, SandboxRecord, StateRecord};

impl Inner {
    /// Reads the records, connects to the monitors that are there, and settles the rest.
    pub(super) async fn adopt(self: &Arc<Self>) -> Result<(), RuntimeError> {
        self.load_containers()?;
        for directory in directories(&self.config.data_dir.join("containers/sandboxes"))? {
            match read::<SandboxRecord>(&directory, record::SANDBOX)? {
                Some(record) => self.adopt_sandbox(record).await?,
                None => remove_all(&directory)?,
            }
        }
        self.remove_strangers()?;
        let Some(network) = &self.config.network else { return Ok(()) };
        let sandboxes: Vec<Arc<Sandbox>> = self.tables.lock().sandboxes.values().cloned().collect();
        let alive: Vec<_> = sandboxes
            .iter()
            .filter(|sandbox| *sandbox.alive.borrow())
            .filter_map(|sandbox| {
                let record = sandbox.record.lock();
                // One that was not finished has no address that anybody was told; it is replaced, not connected.
                record.complete.then_some(())?;
                Some((sandbox.id.clone(), record.network_namespace.clone()?, record.addresses.clone()))
            })
            .collect();
        network.adopt(&alive).await
    }

    fn load_containers(&self) -> Result<(), RuntimeError> {
        for directory in directories(&self.config.data_dir.join("containers/all"))? {
            let Some(record) = read::<ContainerRecord>(&directory, record::CONTAINER)? else {
                remove_all(&directory)?;
                continue;
            };
            let state = read::<StateRecord>(&directory, record::STATE)?.unwrap_or_else(StateRecord::created);
            let container = Container::new(record, state);
            self.tables.lock().containers.insert(container.id.clone(), container);
        }
        Ok(())
    }

    async fn adopt_sandbox(self: &Arc<Self>, record: SandboxRecord) -> Result<(), RuntimeError> {
        let same_boot = record.boot_id == self.boot_id;
        let stopped = record.stopped;
        let sandbox = Sandbox::new(record, false);
        self.tables.lock().sandboxes.insert(sandbox.id.clone(), sandbox.clone());
        if stopped {
            return Ok(());
        }
        if same_boot && self.subscribe(&sandbox).await.is_ok() {
            sandbox.alive.send_replace(true);
            // What happened before the subscription is in the files; what comes later comes as events.
            self.read_states(&sandbox)?;
            return Ok(());
        }
        // Nothing of it runs any more, or nobody can manage it: what is left goes, and the network is released by
        // not being among the living, or when the sandbox is stopped.
        self.bury(&sandbox).await?;
        let directory = self.runtime_directory(&sandbox.id);
        linux::mount::unmount(&directory.join("shm")).map_err(|error| other("unmount shared memory", error))
    }

    /// Removes what belongs to no sandbox that is known: containers, mounts and sockets.
    fn remove_strangers(&self) -> Result<(), RuntimeError> {
        let lost: Vec<Arc<Container>> = {
            let mut tables = self.tables.lock();
            let known: Vec<String> = tables.sandboxes.keys().map(|id| id.0.clone()).collect();
            let is_lost = |container: &Container| !known.contains(&container.record.lock().sandbox);
            let lost = tables.containers.values().filter(|container| is_lost(container)).cloned().collect();
            tables.containers.retain(|_, container| !is_lost(container));
            lost
        };
        for container in lost {
            remove_all(&self.container_directory(&container.id))?;
        }
        let known: Vec<String> =
            self.tables.lock().sandboxes.keys().map(|id| super::short(&id.0).to_owned()).collect();
        for directory in directories(&self.config.data_dir.join("run"))? {
            let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // Others may keep their things in `run` too; ours are sixteen hexadecimal digits.
            let is_ours = name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
            if is_ours && !known.contains(&name) {
                remove_mounts(&directory).map_err(|error| other("remove stale mounts", error))?;
                remove_all(&directory)?;
            }
        }
        Ok(())
    }
}

fn directories(parent: &Path) -> Result<Vec<PathBuf>, RuntimeError> {
    let failed = |source| io_error(format!("read {}", parent.display()), source);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(parent).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// A damaged record is an error: guessing would lose track of something that runs.
fn read<T: serde::de::DeserializeOwned>(directory: &Path, name: &str) -> Result<Option<T>, RuntimeError> {
    record::read(directory, name)
        .map_err(|source| io_error(format!("read {}/{name}", directory.display()), source))
}
