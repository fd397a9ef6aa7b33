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

/// Seconds of CPU time that a process has used, threads that have ended included.
pub fn cpu_seconds(pid: u32) -> Result<f64, Failure> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    ticks(&text).map(|ticks| ticks as f64 / TICKS_PER_SECOND).ok_or_else(|| "/proc/PID/stat is short".into())
}

/// `USER_HZ`, the unit of times in `/proc`, is a hundred on every architecture that the program is built for.
const TICKS_PER_SECOND: f64 = 100.0;

fn ticks(stat: &str) -> Option<u64> {
    // The second field is a name in parentheses, which may hold anything; user and system time are 14 and 15.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut times = rest.split(' ').skip(11);
    Some(times.next()?.parse::<u64>().ok()? + times.next()?.parse::<u64>().ok()?)
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

/// The processes that a process started, those that these started, and so on.
pub fn below(ancestor: u32) -> Result<Vec<u32>, Failure> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // A process may end while its directory is read.
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        parents.extend(parent(&stat).map(|parent| (pid, parent)));
    }
    let mut found = vec![ancestor];
    let mut next = 0;
    while let Some(of) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, parent)| *parent == of).map(|(pid, _)| *pid));
        next += 1;
    }
    found.remove(0);
    Ok(found)
}

fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// In another mount namespace the path looks different, but the file's name stays: it is unique to this run.
fn same(exe: &Path, program: &Path) -> bool {
    exe.file_name().is_some() && exe.file_name() == program.file_name()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_in_stat() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 50 60 0 0 20 0 6 0 1 2 3";
        assert_eq!(ticks(stat), Some(110));
        assert_eq!(ticks("7 (a) S 1"), None);
        assert_eq!((parent(stat), parent("7")), (Some(1), None));
    }
}
