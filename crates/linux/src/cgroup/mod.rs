//! Control groups of both versions behind one type.
//!
//! A [`Cgroup`] is one path in every hierarchy that matters: the unified one (version 2) wherever it is mounted, with
//! or without controllers, and each version 1 hierarchy whose controller is used here. Membership, killing, freezing
//! and emptiness go through the unified hierarchy when there is one; limits and usage through whoever has the
//! controller.

mod detect;
pub mod devices;
mod limits;
mod members;
mod usage;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use detect::{Hierarchies, Version};
pub use devices::DeviceRule;
pub use limits::Limits;
pub use usage::Usage;

use crate::{Context, Error, Result};

/// One group, existing or not.
#[derive(Clone, Debug)]
pub struct Cgroup {
    hierarchies: Arc<Hierarchies>,
    /// Without a leading slash.
    path: PathBuf,
}

impl Cgroup {
    /// The group at `path`, seen from the hierarchies' mount points.
    pub fn new(hierarchies: &Arc<Hierarchies>, path: &str) -> Self {
        Self { hierarchies: hierarchies.clone(), path: path.trim_matches('/').into() }
    }

    /// A group inside this one.
    pub fn child(&self, name: &str) -> Self {
        Self { hierarchies: self.hierarchies.clone(), path: self.path.join(name.trim_matches('/')) }
    }

    /// The path without a leading slash.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn hierarchies(&self) -> &Arc<Hierarchies> {
        &self.hierarchies
    }

    /// The directory in the unified hierarchy.
    pub fn unified(&self) -> Option<PathBuf> {
        Some(self.hierarchies.unified.as_ref()?.join(&self.path))
    }

    /// The directory in the version 1 hierarchy of a controller.
    pub fn v1(&self, controller: &str) -> Option<PathBuf> {
        Some(self.hierarchies.v1.get(controller)?.join(&self.path))
    }

    /// Every directory of this group, the unified one first.
    pub fn directories(&self) -> Vec<PathBuf> {
        self.hierarchies.mounts().into_iter().map(|mount| mount.join(&self.path)).collect()
    }

    pub fn exists(&self) -> bool {
        self.directories().iter().any(|directory| directory.exists())
    }

    /// Makes the group and those above it, with the controllers passed down. Calling it again does nothing.
    pub fn create(&self) -> Result<()> {
        if let Some(mount) = self.hierarchies.unified.clone() {
            self.create_unified(&mount)?;
        }
        for mount in self.hierarchies.v1_mounts() {
            let directory = mount.join(&self.path);
            fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        }
        Ok(())
    }

    fn create_unified(&self, mount: &Path) -> Result<()> {
        let mut directory = mount.to_owned();
        for part in &self.path {
            if self.hierarchies.unified_has_controllers() {
                limits::pass_controllers_down(&directory)?;
            }
            directory.push(part);
            match fs::create_dir(&directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Error::new(format!("make {}", directory.display()), error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The descriptor by which a process can be started inside the group.
    pub fn open_unified(&self) -> Result<Option<OwnedFd>> {
        self.unified().map(|directory| crate::path::open_root(&directory)).transpose()
    }

    /// Sets the limits. In a fresh group, zeros are not written.
    pub fn set_limits(&self, limits: &Limits, fresh: bool) -> Result<()> {
        limits::set(self, limits, fresh)
    }

    /// Says which devices the members may use.
    pub fn set_devices(&self, rules: &[DeviceRule]) -> Result<()> {
        devices::set(self, rules)
    }

    /// Moves the calling, single-threaded process into the version 1 groups, without the global lock that moving
    /// another process takes.
    pub fn enter_v1(&self) -> Result<()> {
        for mount in self.hierarchies.v1_mounts() {
            let file = mount.join(&self.path).join("tasks");
            fs::write(&file, "0").with_context(|| format!("enter {}", file.display()))?;
        }
        Ok(())
    }

    /// Moves a process into the group in every hierarchy.
    pub fn attach(&self, pid: u32) -> Result<()> {
        for directory in self.directories() {
            let file = directory.join("cgroup.procs");
            fs::write(&file, pid.to_string())
                .with_context(|| format!("move {pid} into {}", file.display()))?;
        }
        Ok(())
    }

    /// The members, of the groups below too when `recursive`.
    pub fn members(&self, recursive: bool) -> Vec<u32> {
        members::list(self, recursive)
    }

    /// Kills every process in the group and below. Does not wait for them to be gone.
    pub fn kill(&self) -> Result<()> {
        members::kill(self)
    }

    /// Blocks until no process is left in the group and below; `false` when that takes longer than `limit`.
    pub fn wait_empty(&self, limit: Duration) -> Result<bool> {
        members::wait_empty(self, limit)
    }

    /// Stops or continues every process in the group and below.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        members::freeze(self, frozen)
    }

    /// What the members use now.
    pub fn usage(&self) -> Result<Usage> {
        usage::read(self)
    }

    /// How often the kernel killed a member because the memory limit was reached.
    pub fn oom_kills(&self) -> u64 {
        usage::oom_kills(self)
    }

    /// Removes the group and those below it, which must be empty of processes. It is no error when it is gone.
    pub fn remove(&self) -> Result<()> {
        let failures: Vec<Error> =
            self.directories().iter().filter_map(|directory| remove_tree(directory).err()).collect();
        failures.into_iter().next().map_or(Ok(()), Err)
    }

    /// Removes the group if nothing is in it, neither processes nor groups; says whether it is gone.
    pub fn remove_if_unused(&self) -> bool {
        let mut gone = true;
        for directory in self.directories() {
            gone &= remove_one(&directory).is_ok();
        }
        gone
    }

    /// Kills what is inside and removes the group.
    pub fn destroy(&self, limit: Duration) -> Result<()> {
        if !self.exists() {
            return Ok(());
        }
        self.kill()?;
        self.wait_empty(limit)?;
        self.remove()
    }
}

fn remove_tree(directory: &Path) -> Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::new(format!("read {}", directory.display()), error)),
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    remove_one(directory)
}

fn remove_one(directory: &Path) -> Result<()> {
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::new(format!("remove {}", directory.display()), error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: PathBuf) -> String {
        fs::read_to_string(&path).unwrap_or_else(|error| format!("{}: {error}", path.display()))
    }

    /// Version 2's files, on a directory that takes what is written.
    #[test]
    fn limits_in_version_2() {
        let mount = tempfile::tempdir().unwrap();
        let at = |name: &str| mount.path().join(name);
        fs::write(at("cgroup.controllers"), "cpu io memory").unwrap();
        fs::write(at("cgroup.subtree_control"), "cpu memory").unwrap();
        let hierarchies = Arc::new(Hierarchies {
            unified: Some(mount.path().into()),
            unified_controllers: ["cpu", "memory", "pids"].map(str::to_owned).into(),
            ..Hierarchies::default()
        });
        assert_eq!(hierarchies.version(), Version::V2);
        let group = Cgroup::new(&hierarchies, "/kobune/pod1/c1");
        group.create().unwrap();
        assert_eq!(read(at("cgroup.subtree_control")), "+io");
        let limits = Limits {
            cpu_shares: 1024,
            cpu_quota_us: 50_000,
            memory_bytes: 1 << 20,
            pids: 7,
            oom_group: true,
            ..Limits::default()
        };
        let file = |name: &str| read(at("kobune/pod1/c1").join(name));
        group.set_limits(&limits, true).unwrap();
        let found = ["cpu.weight", "cpu.max", "memory.max", "memory.oom.group", "pids.max"].map(file);
        assert_eq!(found, ["39", "50000 100000", "1048576", "1", "7"]);
        group.set_limits(&Limits::default(), false).unwrap();
        assert_eq!(["cpu.max", "memory.max", "pids.max"].map(file), ["max 100000", "max", "max"]);
        let write = |name: &str, text: &str| fs::write(at("kobune/pod1/c1").join(name), text).unwrap();
        write("cpu.stat", "usage_usec 5\nuser_usec 3\n");
        write("memory.current", "1000\n");
        write("memory.stat", "anon 300\nfile 700\ninactive_file 600\n");
        write("memory.events", "oom 2\noom_kill 1\n");
        write("pids.current", "3\n");
        let usage = group.usage().unwrap();
        assert_eq!((usage.cpu_nanoseconds, usage.pids), (5000, 3));
        assert_eq!((usage.memory_working_set_bytes, usage.memory_rss_bytes), (400, 300));
        assert_eq!(group.oom_kills(), 1);
    }
}
