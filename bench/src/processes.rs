//! What processes use, read from `/proc`.

use std::path::Path;

use crate::Failure;

/// What one process holds in memory, in bytes.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Resident, shared pages counted in full.
    pub rss: u64,
    /// Resident, shared pages divided among those who share them.
    pub pss: u64,
}

/// Reads `smaps_rollup`; `None` when the process is gone.
pub fn memory(pid: u32) -> Option<Memory> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    };
    Some(Memory { rss: field("Rss:")? * 1024, pss: field("Pss:")? * 1024 })
}

/// Seconds of CPU time that a process has used.
pub fn cpu_seconds(pid: u32) -> Result<f64, Failure> {
    // Of all threads, and in nanoseconds, where `stat` counts ticks of ten milliseconds.
    let mut nanoseconds = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        nanoseconds += text.split(' ').next().and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(nanoseconds as f64 / 1e9)
}

/// Bytes that a process has caused to be written to storage.
pub fn bytes_written(pid: u32) -> Result<u64, Failure> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.ok_or("/proc/PID/io has no write_bytes")?.trim().parse()?)
}

/// The processes that run `program`, besides `main` itself.
pub fn others_of(program: &Path, main: u32) -> Result<Vec<u32>, Failure> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let runs = std::fs::read_link(entry.path().join("exe")).is_ok_and(|exe| same(&exe, program));
        if runs && pid != main {
            found.push(pid);
        }
    }
    Ok(found)
}

/// In another mount namespace the path looks different, but the file's name stays: it is unique to this run.
fn same(exe: &Path, program: &Path) -> bool {
    exe.file_name().is_some() && exe.file_name() == program.file_name()
}
