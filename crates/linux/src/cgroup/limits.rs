//! Limits, translated to each version's files.

use std::fs;
use std::io;
use std::path::Path;

use super::Cgroup;
use crate::{Context, Error, Result};

/// The controllers that groups below are given.
const PASSED_DOWN: [&str; 5] = ["cpu", "memory", "pids", "io", "cpuset"];

/// Limits of a group. Zero means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Relative weight in version 1's scale, 2 to 262144; 0 leaves it alone.
    pub cpu_shares: u64,
    /// Microseconds of CPU time per period.
    pub cpu_quota_us: i64,
    /// Microseconds; 100,000 when 0.
    pub cpu_period_us: u64,
    pub memory_bytes: i64,
    pub pids: i64,
    /// Kill the group as a whole when its memory is exhausted. Version 2 only.
    pub oom_group: bool,
}

/// Lets groups below `directory` have the controllers that are available in it.
pub(super) fn pass_controllers_down(directory: &Path) -> Result<()> {
    let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap_or_default();
    let (available, passed) = (read("cgroup.controllers"), read("cgroup.subtree_control"));
    let has = |list: &str, name: &str| list.split_whitespace().any(|known| known == name);
    for name in PASSED_DOWN.into_iter().filter(|name| has(&available, name) && !has(&passed, name)) {
        let file = directory.join("cgroup.subtree_control");
        fs::write(&file, format!("+{name}"))
            .with_context(|| format!("write +{name} to {}", file.display()))?;
    }
    Ok(())
}

pub(super) fn set(group: &Cgroup, limits: &Limits, fresh: bool) -> Result<()> {
    set_cpu(group, limits, fresh)?;
    set_memory(group, limits, fresh)?;
    if limits.pids > 0 || !fresh {
        let value = if limits.pids > 0 { limits.pids.to_string() } else { "max".into() };
        if let Some(directory) = directory(group, "pids") {
            write(&directory, "pids.max", &value)?;
        }
    }
    Ok(())
}

fn set_cpu(group: &Cgroup, limits: &Limits, fresh: bool) -> Result<()> {
    let period = if limits.cpu_period_us == 0 { 100_000 } else { limits.cpu_period_us };
    let quota_wanted = limits.cpu_quota_us > 0 || !fresh;
    if let Some(directory) = group.v1("cpu") {
        if limits.cpu_shares > 0 {
            write(&directory, "cpu.shares", &limits.cpu_shares.to_string())?;
        }
        if quota_wanted {
            let quota = if limits.cpu_quota_us > 0 { limits.cpu_quota_us } else { -1 };
            // A new period with the old quota may be refused; without a quota any period is fine.
            write(&directory, "cpu.cfs_quota_us", "-1")?;
            write(&directory, "cpu.cfs_period_us", &period.to_string())?;
            write(&directory, "cpu.cfs_quota_us", &quota.to_string())?;
        }
    } else if let Some(directory) = directory(group, "cpu") {
        if limits.cpu_shares > 0 {
            write(&directory, "cpu.weight", &weight(limits.cpu_shares).to_string())?;
        }
        if quota_wanted {
            let quota = if limits.cpu_quota_us > 0 { limits.cpu_quota_us.to_string() } else { "max".into() };
            write(&directory, "cpu.max", &format!("{quota} {period}"))?;
        }
    }
    Ok(())
}

/// Version 1's shares (2 to 262144) on version 2's scale (1 to 10000), as upstream converts them.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn set_memory(group: &Cgroup, limits: &Limits, fresh: bool) -> Result<()> {
    if let Some(directory) = group.v1("memory") {
        return if limits.memory_bytes > 0 || !fresh {
            set_memory_v1(&directory, limits.memory_bytes)
        } else {
            Ok(())
        };
    }
    let Some(directory) = directory(group, "memory") else { return Ok(()) };
    if limits.memory_bytes > 0 || !fresh {
        let value = if limits.memory_bytes > 0 { limits.memory_bytes.to_string() } else { "max".into() };
        write(&directory, "memory.max", &value)?;
        // Kubernetes gives pods no swap unless the node says so; a kernel without swap has no such file.
        if limits.memory_bytes > 0 && directory.join("memory.swap.max").exists() {
            write(&directory, "memory.swap.max", "0")?;
        }
    }
    if limits.oom_group {
        write(&directory, "memory.oom.group", "1")?;
    }
    Ok(())
}

/// The limit with swap must never be below the one without, so the order depends on the direction.
fn set_memory_v1(directory: &Path, bytes: i64) -> Result<()> {
    let value = if bytes > 0 { bytes } else { -1 }.to_string();
    let with_swap = directory.join("memory.memsw.limit_in_bytes").exists();
    let first = write(directory, "memory.limit_in_bytes", &value);
    if !with_swap {
        return first;
    }
    write(directory, "memory.memsw.limit_in_bytes", &value)?;
    first.or_else(|_| write(directory, "memory.limit_in_bytes", &value))
}

/// The directory in which a controller's files are, in either version.
pub(super) fn directory(group: &Cgroup, controller: &str) -> Option<std::path::PathBuf> {
    group.v1(controller).or_else(|| {
        let available = group.hierarchies().unified_controllers.iter().any(|name| name == controller);
        group.unified().filter(|_| available)
    })
}

pub(super) fn write(directory: &Path, file: &str, value: &str) -> Result<()> {
    let path = directory.join(file);
    fs::write(&path, value).map_err(|error| {
        let cause = match error.raw_os_error() {
            Some(libc::EBUSY) if file.starts_with("memory") => {
                io::Error::other("more memory than that is in use")
            }
            _ => error,
        };
        Error::new(format!("write {value} to {}", path.display()), cause)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights() {
        assert_eq!([0, 2, 1024, 262_144, 1 << 40].map(weight), [1, 1, 39, 10_000, 10_000]);
    }
}
