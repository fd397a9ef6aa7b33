//! Limits and settings with which a node starts, and then disappoints.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

use super::{Probe, probe};
use crate::facts;
use crate::net::{Protocol, Socket};
use crate::nft::{self, Family, Hook};

const MIB: u64 = 1 << 20;
/// Less memory than this is used up by a cluster's own pods.
const MEMORY_MIN: u64 = 512 * MIB;
/// Images are large; the kubelet also begins to remove them when a disk is nearly full.
const DISK_MIN: u64 = 2048 * MIB;
const INODES_MIN: u64 = 50_000;
/// Every container's log reader and most runtimes in containers take one.
const INOTIFY_INSTANCES_MIN: u64 = 512;
const INOTIFY_WATCHES_MIN: u64 = 65_536;
const OPEN_FILES_MIN: u64 = 65_536;
const PIDS_MIN: u64 = 32_768;
/// 2026-01-01: no clock that is right shows less.
const CLOCK_MIN: i64 = 1_767_225_600;
/// `STA_UNSYNC`: nobody keeps the clock right.
const UNSYNCHRONIZED: i32 = 0x40;

/// All of them; none is required.
pub fn all(data_directory: &Path) -> Vec<Probe> {
    vec![
        memory(),
        disk(data_directory),
        number(
            "inotify instances",
            "/proc/sys/fs/inotify/max_user_instances",
            INOTIFY_INSTANCES_MIN,
            "sysctl -w fs.inotify.max_user_instances=8192 (and in /etc/sysctl.d, to last)",
        ),
        number(
            "inotify watches",
            "/proc/sys/fs/inotify/max_user_watches",
            INOTIFY_WATCHES_MIN,
            "sysctl -w fs.inotify.max_user_watches=524288 (and in /etc/sysctl.d, to last)",
        ),
        number(
            "process IDs",
            "/proc/sys/kernel/pid_max",
            PIDS_MIN,
            "sysctl -w kernel.pid_max=4194304 (and in /etc/sysctl.d, to last)",
        ),
        open_files(),
        clock(),
        forwarding(),
    ]
}

fn enough(found: u64, least: u64, unit: &str) -> Result<String, String> {
    let text =
        |number: u64| if unit.is_empty() { number.to_string() } else { format!("{} {unit}", number / MIB) };
    if found >= least { Ok(text(found)) } else { Err(format!("{}, fewer than {}", text(found), text(least))) }
}

fn memory() -> Probe {
    let found = facts::memory().map_err(|error| error.text());
    let outcome = found.and_then(|memory| enough(memory.total_bytes, MEMORY_MIN, "MiB"));
    probe("memory", false, outcome, "give the machine more memory")
}

fn disk(path: &Path) -> Probe {
    let outcome = facts::disk(path).map_err(|error| error.text()).and_then(|disk| {
        let space = enough(disk.available_bytes, DISK_MIN, "MiB")?;
        // Some file systems have no fixed number of inodes and say 0.
        let inodes = if disk.total_inodes == 0 { INODES_MIN } else { disk.free_inodes };
        enough(inodes, INODES_MIN, "").map_err(|cause| format!("free inodes: {cause}"))?;
        Ok(format!("{space} free"))
    });
    probe("disk", false, outcome, "free some space, or choose another place with --data-dir")
}

fn number(name: &'static str, file: &str, least: u64, remedy: &'static str) -> Probe {
    let text = fs::read_to_string(file).map_err(|error| format!("read {file}: {error}"));
    let found = text.and_then(|text| text.trim().parse().map_err(|_| format!("{file} is no number")));
    probe(name, false, found.and_then(|found| enough(found, least, "")), remedy)
}

fn open_files() -> Probe {
    let outcome = match getrlimit(Resource::Nofile).maximum {
        None => Ok("unlimited".to_owned()),
        Some(found) => enough(found, OPEN_FILES_MIN, ""),
    };
    probe("open files", false, outcome, "raise the hard limit: LimitNOFILE= of the service, or limits.conf")
}

fn clock() -> Probe {
    let outcome = match crate::clock::state() {
        Err(error) => Err(error.text()),
        Ok((seconds, _)) if seconds < CLOCK_MIN => Err("it shows a time before 2026".to_owned()),
        Ok((_, status)) if status & UNSYNCHRONIZED != 0 => Err("nobody keeps it synchronized".to_owned()),
        Ok(_) => Ok("synchronized".to_owned()),
    };
    let remedy =
        "set it and run a time service (systemd-timesyncd, chrony): certificates and tokens depend on it";
    probe("clock", false, outcome, remedy)
}

/// Pods' packets are forwarded; a firewall that drops what it does not know stops them. Chains that accept cannot
/// help: a packet passes only if every table lets it.
fn forwarding() -> Probe {
    let outcome =
        dropping_chains().map_err(|error| error.to_string()).and_then(|chains| match chains.as_slice() {
            [] => Ok("no firewall drops forwarded packets".to_owned()),
            chains => Err(format!("dropped by default in {}", chains.join(", "))),
        });
    let remedy = "let the pods' packets pass there, e.g. `iptables -I FORWARD -i kobune0 -j ACCEPT; iptables -I \
                  FORWARD -o kobune0 -j ACCEPT`, or the same in your firewall's configuration";
    probe("packet forwarding", false, outcome, remedy)
}

fn dropping_chains() -> Result<Vec<String>, crate::net::NetlinkError> {
    let mut socket = Socket::open(Protocol::Netfilter)?;
    let mut found = Vec::new();
    for (family, name) in [(Family::Inet, "inet"), (Family::Ipv4, "ip"), (Family::Ipv6, "ip6")] {
        let chains = nft::dropping_chains(&mut socket, family, Hook::Forward)?;
        found.extend(chains.into_iter().map(|(table, chain)| format!("{name} {table} {chain}")));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_is_told_with_what_is_needed() {
        assert_eq!(enough(4, 3, ""), Ok("4".to_owned()));
        assert_eq!(enough(2, 3, ""), Err("2, fewer than 3".to_owned()));
        assert_eq!(enough(MIB, 2 * MIB, "MiB"), Err("1 MiB, fewer than 2 MiB".to_owned()));
    }
}
