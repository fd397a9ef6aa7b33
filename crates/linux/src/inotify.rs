//! Being told when files and directories change.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::{Context, Result};

/// Wakes when something that it watches changes. Must be made and used inside a tokio runtime.
pub struct Watcher {
    fd: AsyncFd<OwnedFd>,
}

impl Watcher {
    pub fn new() -> Result<Self> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let fd = inotify::init(flags).context("make an inotify instance")?;
        // SAFETY: the watcher owns the descriptor, which stays open and the same until both are dropped together.
        let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        let fd = watched.map_err(io::Error::from).context("watch an inotify instance")?;
        Ok(Self { fd })
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
        inotify::add_watch(self.fd.get_ref(), path, events)
            .with_context(|| format!("watch {}", path.display()))?;
        Ok(())
    }

    /// Waits for changes and takes all that there are. Nothing is lost when the wait is given up.
    pub async fn changed(&self) -> io::Result<()> {
        loop {
            let mut ready = self.fd.readable().await?;
            let any = self.drain()?;
            ready.clear_ready();
            if any {
                return Ok(());
            }
        }
    }

    fn drain(&self) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(self.fd.get_ref(), &mut buffer);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn wakes_on_writes() {
        let path = std::env::temp_dir().join(format!("inotify-{}", std::process::id()));
        std::fs::write(&path, "a").unwrap();
        let watcher = Watcher::new().unwrap();
        watcher.watch(&path).unwrap();
        assert!(!watcher.drain().unwrap());
        std::fs::write(&path, "b").unwrap();
        watcher.changed().await.unwrap();
        assert!(!watcher.drain().unwrap());
        std::fs::remove_file(&path).unwrap();
    }
}
