//! Which hierarchies this machine has mounted, and where.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::mount::MountInfo;
use crate::{Context, Error, Result};

/// The version 1 hierarchies that are used; the rest are left alone. `cpuset` is not among them: its groups refuse
/// members until they have been given processors and memory nodes.
const USED: [&str; 7] = ["cpu", "cpuacct", "memory", "devices", "freezer", "pids", "name=systemd"];

/// How the machine is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    /// Controllers in version 1, and a unified hierarchy without any.
    Hybrid,
    V2,
}

/// The mounted hierarchies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchies {
    /// Where version 2 is mounted.
    pub unified: Option<PathBuf>,
    /// The controllers available there.
    pub unified_controllers: Vec<String>,
    /// Controller (or `name=…`) → where its version 1 hierarchy is mounted.
    pub v1: BTreeMap<String, PathBuf>,
}

impl Hierarchies {
    /// Looks at the mounts of this process.
    pub fn detect() -> Result<Self> {
        let mut found = from_mounts(&crate::mount::list()?);
        if let Some(mount) = &found.unified {
            let text =
                fs::read_to_string(mount.join("cgroup.controllers")).context("read cgroup.controllers")?;
            found.unified_controllers = text.split_whitespace().map(str::to_owned).collect();
        }
        if found.unified.is_none() && found.v1.is_empty() {
            let cause = std::io::Error::other("neither cgroup2 nor cgroup is mounted below /sys/fs/cgroup");
            return Err(Error::new("look for control groups", cause));
        }
        Ok(found)
    }

    pub fn version(&self) -> Version {
        match (&self.unified, self.v1.is_empty()) {
            (Some(_), true) => Version::V2,
            (Some(_), false) if self.v1.keys().all(|name| name.starts_with("name=")) => Version::V2,
            (Some(_), false) => Version::Hybrid,
            (None, _) => Version::V1,
        }
    }

    pub(super) fn unified_has_controllers(&self) -> bool {
        !self.unified_controllers.is_empty()
    }

    /// Whether a limit of this controller can be set at all.
    pub fn has(&self, controller: &str) -> bool {
        self.v1.contains_key(controller) || self.unified_controllers.iter().any(|name| name == controller)
    }

    /// Each version 1 mount point once, though several controllers may share it.
    pub(super) fn v1_mounts(&self) -> Vec<&Path> {
        let mut mounts: Vec<&Path> = self.v1.values().map(PathBuf::as_path).collect();
        mounts.sort();
        mounts.dedup();
        mounts
    }

    pub(super) fn mounts(&self) -> Vec<&Path> {
        self.unified.iter().map(PathBuf::as_path).chain(self.v1_mounts()).collect()
    }
}

fn from_mounts(mounts: &[MountInfo]) -> Hierarchies {
    let mut found = Hierarchies::default();
    for mount in mounts.iter().filter(|mount| mount.mount_point.starts_with("/sys/fs/cgroup")) {
        match mount.file_system.as_str() {
            "cgroup2" if found.unified.is_none() => found.unified = Some(mount.mount_point.clone()),
            "cgroup" => {
                for option in mount.super_options.split(',').filter(|option| USED.contains(option)) {
                    found.v1.entry(option.to_owned()).or_insert_with(|| mount.mount_point.clone());
                }
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, at: &str, options: &str) -> MountInfo {
        MountInfo {
            root: "/".into(),
            mount_point: at.into(),
            options: "rw".into(),
            file_system: kind.into(),
            source: kind.into(),
            super_options: options.into(),
            tags: String::new(),
        }
    }

    #[test]
    fn versions_are_told_apart() {
        let unified = [mount("cgroup2", "/sys/fs/cgroup", "rw")];
        assert_eq!(from_mounts(&unified).version(), Version::V2);
        let hybrid = [
            mount("cgroup", "/sys/fs/cgroup/cpu,cpuacct", "rw,cpu,cpuacct"),
            mount("cgroup", "/sys/fs/cgroup/cpuset", "rw,cpuset"),
            mount("cgroup2", "/sys/fs/cgroup/unified", "rw"),
        ];
        let found = from_mounts(&hybrid);
        assert_eq!(found.version(), Version::Hybrid);
        assert_eq!(found.v1_mounts(), [Path::new("/sys/fs/cgroup/cpu,cpuacct")]);
        let systemd_only = [
            mount("cgroup2", "/sys/fs/cgroup", "rw"),
            mount("cgroup", "/sys/fs/cgroup/systemd", "rw,name=systemd"),
        ];
        assert_eq!(from_mounts(&systemd_only).version(), Version::V2);
        assert_eq!(from_mounts(&hybrid[..1]).version(), Version::V1);
    }
}
