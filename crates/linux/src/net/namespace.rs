//! Network namespaces: made, kept alive by a file, entered by a thread of their own.
//!
//! A namespace belongs to a thread. Nothing here changes the calling thread's.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::mount::UnmountFlags;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// Runs `work` in the namespace and returns what it returns. Sockets that it opens stay in that namespace.
pub fn within<T: Send>(namespace: impl AsFd, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let fd = namespace.as_fd();
    on_thread(move || {
        rustix::thread::move_into_link_name_space(fd, Some(LinkNameSpaceType::Network))?;
        Ok(work())
    })
}

/// Runs `work` in a new namespace that ends with it, unless something keeps it alive.
pub fn within_new<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    on_thread(move || {
        unshare_network()?;
        Ok(work())
    })
}

/// Makes a namespace and keeps it alive by a mount on the file `path`, which is made with its directories.
pub fn create(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    File::create(path)?;
    let made = on_thread(|| {
        unshare_network()?;
        rustix::mount::mount_bind("/proc/thread-self/ns/net", path)?;
        Ok(())
    });
    if made.is_err() {
        std::fs::remove_file(path)?;
    }
    made
}

/// Ends what [`create`] made; the namespace lives on while processes or sockets are in it. No error when it is gone.
pub fn remove(path: &Path) -> io::Result<()> {
    match rustix::mount::unmount(path, UnmountFlags::DETACH) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether the file at `path` holds a network namespace.
pub fn exists(path: &Path) -> bool {
    const NSFS_MAGIC: u64 = 0x6e73_6673;
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type as u64 == NSFS_MAGIC)
}

fn unshare_network() -> io::Result<()> {
    // SAFETY: only the calling thread's network namespace changes; file descriptors stay shared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
    Ok(())
}

fn on_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
