//! What a group uses.

use std::fs;
use std::path::Path;

use super::{Cgroup, limits};
use crate::{Context, Result};

/// Usage of a group and those below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub cpu_nanoseconds: u64,
    pub memory_bytes: u64,
    /// Memory less the page cache that could be dropped at once.
    pub memory_working_set_bytes: u64,
    /// Anonymous memory.
    pub memory_rss_bytes: u64,
    pub pids: u64,
}

pub(super) fn read(group: &Cgroup) -> Result<Usage> {
    let mut usage = Usage::default();
    if let Some(directory) = group.v1("cpuacct") {
        usage.cpu_nanoseconds = number(&directory.join("cpuacct.usage"))?;
    } else if let Some(directory) = limits::directory(group, "cpu") {
        usage.cpu_nanoseconds = field(&directory.join("cpu.stat"), "usage_usec")? * 1000;
    }
    if let Some(directory) = group.v1("memory") {
        let fields = ["memory.usage_in_bytes", "total_inactive_file", "total_rss"];
        read_memory(&mut usage, &directory, fields)?;
    } else if let Some(directory) = limits::directory(group, "memory") {
        read_memory(&mut usage, &directory, ["memory.current", "inactive_file", "anon"])?;
    }
    if let Some(directory) = limits::directory(group, "pids") {
        usage.pids = number(&directory.join("pids.current"))?;
    }
    Ok(usage)
}

fn read_memory(usage: &mut Usage, directory: &Path, [total, inactive, anonymous]: [&str; 3]) -> Result<()> {
    usage.memory_bytes = number(&directory.join(total))?;
    let stat = directory.join("memory.stat");
    usage.memory_working_set_bytes = usage.memory_bytes.saturating_sub(field(&stat, inactive)?);
    usage.memory_rss_bytes = field(&stat, anonymous)?;
    Ok(())
}

pub(super) fn oom_kills(group: &Cgroup) -> u64 {
    let counter = match group.v1("memory") {
        Some(directory) => field(&directory.join("memory.oom_control"), "oom_kill"),
        None => match limits::directory(group, "memory") {
            Some(directory) => field(&directory.join("memory.events"), "oom_kill"),
            None => Ok(0),
        },
    };
    // A group that is gone, or a kernel without the counter, has nothing to tell.
    counter.unwrap_or(0)
}

fn number(file: &Path) -> Result<u64> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    // Version 1 counts in signed pages internally and may say -1 for a moment.
    Ok(text.trim().parse().unwrap_or(0))
}

fn field(file: &Path, name: &str) -> Result<u64> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(found.and_then(|value| value.trim().parse().ok()).unwrap_or(0))
}
