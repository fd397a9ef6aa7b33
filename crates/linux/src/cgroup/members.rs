//! The processes of a group: listed, killed, frozen, waited for.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::Cgroup;
use crate::{Context, Error, Result};

/// New members may appear while old ones are being killed; after so many rounds somebody forks faster than that.
const MAX_ROUNDS: usize = 64;

pub(super) fn list(group: &Cgroup, recursive: bool) -> Vec<u32> {
    let mut found = Vec::new();
    for directory in group.directories() {
        collect(&directory, recursive, &mut found);
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn collect(directory: &Path, recursive: bool, found: &mut Vec<u32>) {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0));
    if !recursive {
        return;
    }
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), true, found);
        }
    }
}

pub(super) fn kill(group: &Cgroup) -> Result<()> {
    if let Some(directory) = group.unified() {
        let file = directory.join("cgroup.kill");
        match fs::write(&file, "1") {
            Ok(()) => {}
            // No such file before Linux 5.14, or no such group.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::new(format!("write 1 to {}", file.display()), error)),
        }
    }
    kill_each(group)
}

/// Kills whoever is only in a version 1 group, or everybody where there is no `cgroup.kill`.
fn kill_each(group: &Cgroup) -> Result<()> {
    for _ in 0..MAX_ROUNDS {
        let members: Vec<u32> = list(group, true).into_iter().filter(|pid| !is_dying(*pid)).collect();
        if members.is_empty() {
            return Ok(());
        }
        let watched: Vec<_> =
            members.iter().filter_map(|pid| crate::process::open_pidfd(*pid).ok()).collect();
        for pid in &members {
            crate::process::kill(*pid).with_context(|| format!("kill {pid}"))?;
        }
        wait_for(&watched, Instant::now() + Duration::from_secs(1))?;
    }
    Err(Error::new(
        format!("kill the members of {}", group.path().display()),
        io::Error::other("processes are started faster than they can be killed"),
    ))
}

/// Zombies, and processes with a fatal signal pending, need no other.
fn is_dying(pid: u32) -> bool {
    crate::process::info(pid).is_none_or(|info| matches!(info.state, 'Z' | 'X'))
}

fn wait_for(watched: &[std::os::fd::OwnedFd], deadline: Instant) -> Result<()> {
    for pidfd in watched {
        let left = deadline.saturating_duration_since(Instant::now());
        poll_one(pidfd.as_fd(), PollFlags::IN, left)?;
    }
    Ok(())
}

pub(super) fn wait_empty(group: &Cgroup, limit: Duration) -> Result<bool> {
    let deadline = Instant::now() + limit;
    let events = group.unified().and_then(|directory| fs::File::open(directory.join("cgroup.events")).ok());
    let Some(mut events) = events else { return wait_empty_by_members(group, deadline) };
    loop {
        let mut text = String::new();
        // A group that was removed meanwhile is empty.
        if io::Read::read_to_string(&mut events, &mut text).is_err() || text.contains("populated 0") {
            return wait_empty_by_members(group, deadline);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        poll_one(events.as_fd(), PollFlags::PRI, left)?;
        if io::Seek::rewind(&mut events).is_err() {
            // The group was removed meanwhile.
            return wait_empty_by_members(group, deadline);
        }
    }
}

fn wait_empty_by_members(group: &Cgroup, deadline: Instant) -> Result<bool> {
    loop {
        let members = list(group, true);
        let watched: Vec<_> =
            members.iter().filter_map(|pid| crate::process::open_pidfd(*pid).ok()).collect();
        if watched.is_empty() {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        wait_for(&watched, deadline)?;
        // A process that has ended but was not collected by its parent no longer counts.
        if members.iter().all(|pid| is_dying(*pid)) {
            return Ok(true);
        }
    }
}

fn poll_one(fd: std::os::fd::BorrowedFd<'_>, flags: PollFlags, limit: Duration) -> Result<()> {
    let timeout = Timespec::try_from(limit).ok();
    match rustix::event::poll(&mut [PollFd::from_borrowed_fd(fd, flags)], timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error).context("wait for processes"),
    }
}

pub(super) fn freeze(group: &Cgroup, frozen: bool) -> Result<()> {
    let (directory, file, value) = match (group.unified(), group.v1("freezer")) {
        (Some(directory), _) if directory.join("cgroup.freeze").exists() => {
            (directory, "cgroup.freeze", if frozen { "1" } else { "0" })
        }
        (_, Some(directory)) => (directory, "freezer.state", if frozen { "FROZEN" } else { "THAWED" }),
        _ => {
            let cause = io::Error::from(io::ErrorKind::Unsupported);
            return Err(Error::new(format!("freeze {}", group.path().display()), cause));
        }
    };
    super::limits::write(&directory, file, value)
}
