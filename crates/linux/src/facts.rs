//! Facts about this machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::{Context, Error, Result};

/// Bytes of main memory, all and what new programs could have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub total_bytes: u64,
    pub available_bytes: u64,
    pub swap_total_bytes: u64,
}

/// Bytes and inodes of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    pub total_bytes: u64,
    /// What users other than root can have.
    pub available_bytes: u64,
    pub used_bytes: u64,
    pub total_inodes: u64,
    pub free_inodes: u64,
}

/// `USER_HZ`, the unit of times in `/proc`, is a hundred on every architecture that this is built for.
const TICK_NANOSECONDS: u64 = 10_000_000;

/// What a node reports about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    pub hostname: String,
    pub kernel_version: String,
    /// `amd64`, `arm64`, … as Go and OCI call it.
    pub architecture: String,
    /// `PRETTY_NAME` of `/etc/os-release`.
    pub os_image: String,
    pub machine_id: String,
    pub boot_id: String,
    pub system_uuid: String,
    pub cpus: usize,
    pub memory: Memory,
}

impl Machine {
    /// Reads them all. What the machine does not say is empty.
    pub fn read() -> Result<Self> {
        let uname = rustix::system::uname();
        let text = |value: &std::ffi::CStr| value.to_string_lossy().into_owned();
        Ok(Self {
            hostname: text(uname.nodename()),
            kernel_version: text(uname.release()),
            architecture: architecture(&text(uname.machine())).to_owned(),
            os_image: os_release().get("PRETTY_NAME").cloned().unwrap_or_else(|| "Linux".into()),
            machine_id: first_line(&["/etc/machine-id", "/var/lib/dbus/machine-id"]),
            boot_id: boot_id()?,
            system_uuid: first_line(&["/sys/class/dmi/id/product_uuid"]),
            cpus: cpus(),
            memory: memory()?,
        })
    }
}

/// Changes with every start of the machine.
pub fn boot_id() -> Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("read the boot id")?;
    Ok(text.trim().to_owned())
}

/// Processors that this process may use.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

pub fn memory() -> Result<Memory> {
    let text = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    Ok(parse_memory(&text))
}

fn parse_memory(text: &str) -> Memory {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    Memory {
        total_bytes: field("MemTotal"),
        available_bytes: field("MemAvailable"),
        swap_total_bytes: field("SwapTotal"),
    }
}

/// Processor time that the machine has used since it started, over all processors, in steps of 10 ms.
pub fn cpu_nanoseconds() -> Result<u64> {
    let text = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    Ok(parse_cpu(&text))
}

/// What this process has used of the processors, in steps of 10 ms, and holds in memory.
pub fn own_usage() -> Result<(u64, u64)> {
    let read = |file: &str| fs::read_to_string(file).with_context(|| format!("read {file}"));
    let cpu = parse_own_cpu(&read("/proc/self/stat")?);
    let resident = read("/proc/self/statm")?.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    Ok((cpu, resident.unwrap_or(0u64) * rustix::param::page_size() as u64))
}

/// The second field is a name in parentheses, which may hold anything; user and system time are 14 and 15.
fn parse_own_cpu(stat: &str) -> u64 {
    let rest = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
    let times = rest.split(' ').skip(11).take(2);
    times.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * TICK_NANOSECONDS
}

/// The first line counts hundredths of a second: user, nice, system, idle, iowait, irq, softirq, steal; guests are
/// contained in user.
fn parse_cpu(text: &str) -> u64 {
    let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<u64> = fields.map(|field| field.parse().unwrap_or(0)).collect();
    let used = [0, 1, 2, 5, 6].iter().filter_map(|index| ticks.get(*index)).sum::<u64>();
    used * TICK_NANOSECONDS
}

/// The file system that `path` is on.
pub fn disk(path: &Path) -> Result<Disk> {
    let facts =
        rustix::fs::statvfs(path).with_context(|| format!("ask for the space at {}", path.display()))?;
    Ok(Disk {
        total_bytes: facts.f_blocks * facts.f_frsize,
        available_bytes: facts.f_bavail * facts.f_frsize,
        used_bytes: (facts.f_blocks - facts.f_bfree) * facts.f_frsize,
        total_inodes: facts.f_files,
        free_inodes: facts.f_ffree,
    })
}

/// `/etc/os-release`, or the copy in `/usr/lib`.
pub fn os_release() -> BTreeMap<String, String> {
    let text = fs::read_to_string("/etc/os-release").or_else(|_| fs::read_to_string("/usr/lib/os-release"));
    text.unwrap_or_default()
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.trim_matches(['"', '\'']).to_owned()))
        .collect()
}

/// Go's name for a machine name of the kernel.
pub fn architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv7l" | "armv6l" => "arm",
        "i686" | "i386" => "386",
        other => other,
    }
}

/// Whether this process is root in the first place.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Major and minor of the running kernel.
pub fn kernel() -> Result<(u32, u32)> {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => Err(Error::new("read the kernel's version", std::io::Error::other(release))),
    }
}

fn first_line(files: &[&str]) -> String {
    let text = files.iter().find_map(|file| fs::read_to_string(file).ok()).unwrap_or_default();
    text.trim().to_owned()
}

/// The bytes that a directory's files take on disk. What cannot be read, or goes meanwhile, counts nothing.
pub fn occupied_bytes(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| {
        let own = entry.metadata().map_or(0, |metadata| metadata.blocks() * 512);
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        own + if is_directory { occupied_bytes(&entry.path()) } else { 0 }
    };
    entries.map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_a_process() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 50 60 0 0 20 0 6 0 1 2 3";
        assert_eq!(parse_own_cpu(stat), 110 * TICK_NANOSECONDS);
        assert!(own_usage().unwrap().1 > 1 << 20);
    }

    #[test]
    fn idle_time_is_not_used_time() {
        let text = "cpu  100 20 30 9999 8888 4 5 6 7 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(parse_cpu(text), 159 * 10_000_000);
        assert!(cpu_nanoseconds().unwrap() > 0);
    }

    #[test]
    fn this_machine_can_be_read() {
        let machine = Machine::read().unwrap();
        assert!(machine.cpus > 0 && machine.memory.total_bytes > machine.memory.available_bytes);
        assert_eq!(machine.boot_id.len(), 36);
        assert!(kernel().unwrap() > (4, 0));
        assert!(disk(Path::new("/")).unwrap().total_bytes > 0);
    }

    #[test]
    fn meminfo_is_in_kibibytes() {
        let memory = parse_memory("MemTotal:  2 kB\nMemAvailable: 1 kB\n");
        assert_eq!(memory, Memory { total_bytes: 2048, available_bytes: 1024, swap_total_bytes: 0 });
    }
}
