//! Being told when files and directories change.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::fs::inotify;

use crate::{Context, Result};

/// Wakes when something that it watches changes. The descriptor does not block: wait until it is readable, then
/// [`Watcher::drain`].
pub struct Watcher {
    fd: OwnedFd,
}

impl Watcher {
    pub fn new() -> Result<Self> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        Ok(Self { fd: inotify::init(flags).context("make an inotify instance")? })
    }

    /// Wakes when the file at `path` is written to, or when entries of the directory at `path` come and go.
    pub fn watch(&self, path: &Path) -> Result<()> {
        let events = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::MOVE_SELF
            | inotify::WatchFlags::DELETE_SELF
            | inotify::WatchFlags::ATTRIB;
        inotify::add_watch(&self.fd, path, events).with_context(|| format!("watch {}", path.display()))?;
        Ok(())
    }

    /// Takes all events that wait. Returns whether there were any.
    pub fn drain(&self) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.fd, &mut buffer);
        let mut any = false;
        loop {
            match reader.next() {
                Ok(_event) => any = true,
                Err(rustix::io::Errno::AGAIN) => return Ok(any),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Watcher {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wakes_on_writes() {
        let path = std::env::temp_dir().join(format!("inotify-{}", std::process::id()));
        std::fs::write(&path, "a").unwrap();
        let watcher = Watcher::new().unwrap();
        watcher.watch(&path).unwrap();
        assert!(!watcher.drain().unwrap());
        std::fs::write(&path, "b").unwrap();
        assert!(watcher.drain().unwrap());
        assert!(!watcher.drain().unwrap());
        std::fs::remove_file(&path).unwrap();
    }
}
