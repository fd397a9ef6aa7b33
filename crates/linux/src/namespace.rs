//! Namespaces: made, bound to files, entered.
//!
//! A namespace belongs to a thread. Functions that switch for a moment do it on a thread of their own, so that no
//! thread of the caller ever runs in the wrong place.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc;

use rustix::io::Errno;
use rustix::thread::{CpuSet, LinkNameSpaceType, UnshareFlags};

use crate::mount::{self, Attributes, Propagation};
use crate::{Context, Error, Result};

/// The kinds that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Network,
    Mount,
    Ipc,
    Uts,
    Pid,
    Cgroup,
}

impl Kind {
    /// The name in `/proc/PID/ns`.
    pub fn file_name(self) -> &'static str {
        match self {
            Kind::Network => "net",
            Kind::Mount => "mnt",
            Kind::Ipc => "ipc",
            Kind::Uts => "uts",
            Kind::Pid => "pid",
            Kind::Cgroup => "cgroup",
        }
    }

    fn flag(self) -> UnshareFlags {
        match self {
            Kind::Network => UnshareFlags::NEWNET,
            Kind::Mount => UnshareFlags::NEWNS,
            Kind::Ipc => UnshareFlags::NEWIPC,
            Kind::Uts => UnshareFlags::NEWUTS,
            Kind::Pid => UnshareFlags::NEWPID,
            Kind::Cgroup => UnshareFlags::NEWCGROUP,
        }
    }

    fn link(self) -> LinkNameSpaceType {
        match self {
            Kind::Network => LinkNameSpaceType::Network,
            Kind::Mount => LinkNameSpaceType::Mount,
            Kind::Ipc => LinkNameSpaceType::InterProcessCommunication,
            Kind::Uts => LinkNameSpaceType::HostNameAndNISDomainName,
            Kind::Pid => LinkNameSpaceType::ProcessID,
            Kind::Cgroup => LinkNameSpaceType::ControlGroup,
        }
    }
}

/// Gives the calling thread new namespaces. (A new process namespace starts with its next child.)
pub fn unshare(kinds: &[Kind]) -> Result<()> {
    let flags = kinds.iter().fold(UnshareFlags::empty(), |flags, kind| flags | kind.flag());
    // SAFETY: the file descriptor table, the one thing that is unsafe to unshare, is not among the kinds.
    unsafe { rustix::thread::unshare_unsafe(flags) }.with_context(|| format!("make new namespaces {kinds:?}"))
}

/// Moves the calling thread into a namespace. (Of a process namespace only later children become members. In a mount
/// namespace the thread has a root and a current directory of its own, both at the namespace's root.)
pub fn enter(namespace: BorrowedFd<'_>, kind: Kind) -> Result<()> {
    if kind == Kind::Mount {
        // SAFETY: the file descriptor table, the one thing that is unsafe to unshare, stays as it is.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }
            .context("part from the other threads' root")?;
    }
    rustix::thread::move_into_link_name_space(namespace, Some(kind.link()))
        .with_context(|| format!("enter a {kind:?} namespace"))
}

/// Opens the namespace of a process.
pub fn of_process(pid: u32, kind: Kind) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/{}", kind.file_name());
    File::open(&path).map(OwnedFd::from).with_context(|| format!("open {path}"))
}

/// Opens the calling thread's namespace.
pub fn own(kind: Kind) -> Result<OwnedFd> {
    let path = format!("/proc/thread-self/ns/{}", kind.file_name());
    File::open(&path).map(OwnedFd::from).with_context(|| format!("open {path}"))
}

/// Binds the calling thread's namespace to a file, which keeps it alive.
pub fn bind_own(kind: Kind, file: &Path) -> Result<()> {
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    }
    File::create(file).with_context(|| format!("make {}", file.display()))?;
    let source = format!("/proc/thread-self/ns/{}", kind.file_name());
    let private = Attributes { propagation: Some(Propagation::Private), ..Attributes::default() };
    mount::bind(Path::new(&source), file, false, private)
}

/// Makes a new network namespace, with its loopback up, that lives as long as the mount at `file`.
pub fn create_network(file: &Path) -> Result<()> {
    on_a_thread(|| {
        unshare(&[Kind::Network])?;
        loopback_up()?;
        bind_own(Kind::Network, file)
    })
}

/// Makes a new mount namespace that lives as long as the mount at `file`. What is mounted later in a shared mount here
/// (systemd makes all of them so) shows there as well, what is mounted there shows nowhere else. A namespace cannot be
/// kept where it would be copied into itself or others, so `file` must be inside of a [`mount::private_directory`].
pub fn create_mount(file: &Path) -> Result<()> {
    File::create(file).with_context(|| format!("make {}", file.display()))?;
    // The kernel keeps only a namespace with a greater number than that of the one it is kept in, so that none holds
    // itself. Each processor numbers in steps of its own, so a newer namespace may have the lesser number; the one that
    // numbered the present namespace gives a greater one in any case.
    let allowed = rustix::thread::sched_getaffinity(None).context("list the processors")?;
    let mut outcome = Ok(());
    for processor in (0..CpuSet::MAX_CPU).filter(|processor| allowed.is_set(*processor)) {
        outcome = create_mount_on(processor, file);
        let is_lesser =
            |error: &crate::Error| error.source.raw_os_error() == Some(Errno::LOOP.raw_os_error());
        if !outcome.as_ref().is_err_and(is_lesser) {
            break;
        }
    }
    outcome
}

/// Makes a new mount namespace on a processor and keeps it at `file`.
fn create_mount_on(processor: usize, file: &Path) -> Result<()> {
    let (made, name) = mpsc::channel();
    let (bound, may_end) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let mut only = CpuSet::new();
            only.set(processor);
            rustix::thread::sched_setaffinity(None, &only).context("choose a processor")?;
            unshare(&[Kind::Mount])?;
            mount::set_propagation(Path::new("/"), Propagation::Slave, true)?;
            // Volumes may pass on what is mounted in them.
            mount::set_propagation(Path::new("/"), Propagation::Shared, true)?;
            let own = format!("/proc/self/task/{}/ns/mnt", rustix::thread::gettid().as_raw_nonzero());
            if made.send(own).is_ok() {
                // The namespace must not end before it is bound; that this ends is all that is waited for.
                may_end.recv().unwrap_or_default();
            }
            Ok(())
        });
        let private = Attributes { propagation: Some(Propagation::Private), ..Attributes::default() };
        let kept = name.recv().map(|own| mount::bind(Path::new(&own), file, false, private));
        drop(bound);
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        kept.unwrap_or(Ok(()))
    })
}

/// Takes a bound namespace away; it dies with its last process.
pub fn remove_bound(file: &Path) -> Result<()> {
    mount::unmount(file)?;
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", file.display()))
        }
        _ => Ok(()),
    }
}

/// Runs `work` in the network namespace bound at `file` and returns its answer. It blocks.
pub fn in_network<T: Send>(file: &Path, work: impl FnOnce() -> T + Send) -> Result<T> {
    let namespace = File::open(file).with_context(|| format!("open {}", file.display()))?;
    on_a_thread(|| {
        enter(namespace.as_fd(), Kind::Network)?;
        Ok(work())
    })
}

/// Sets the interface `lo` of the calling thread's network namespace up.
pub fn loopback_up() -> Result<()> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)
        .context("make a socket")?;
    // SAFETY: all-zero bytes are a valid `ifreq`; the ioctls read and write within it.
    let answer = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        match libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut request) {
            0 => {
                request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
                libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request)
            }
            failed => failed,
        }
    };
    if answer == 0 { Ok(()) } else { Err(Error::new("set the loopback up", io::Error::last_os_error())) }
}

/// Names the host in the calling thread's host-name namespace.
pub fn set_hostname(name: &str) -> Result<()> {
    rustix::system::sethostname(name.as_bytes()).context("set the host name")
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("namespace".into())
            .stack_size(256 * 1024)
            .spawn_scoped(scope, work)
            .context("start a thread")?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shows(directory: &Path) -> bool {
        mount::list().unwrap().iter().any(|mount| mount.mount_point == directory)
    }

    fn mount_at(directory: &Path) {
        mount::mount("tmpfs", "test", directory, &[], Attributes::default()).unwrap();
    }

    /// Needs root.
    #[test]
    fn mounts_pass_into_a_kept_namespace_and_not_out_of_it() {
        let scratch = tempfile::tempdir().unwrap();
        let [run, here, there] = ["run", "here", "there"].map(|name| scratch.path().join(name));
        on_a_thread(|| {
            // A machine of its own whose mounts are shared, as systemd makes them.
            unshare(&[Kind::Mount])?;
            mount::set_propagation(Path::new("/"), Propagation::Slave, true)?;
            mount::set_propagation(Path::new("/"), Propagation::Shared, true)?;
            fs::create_dir(&here).and_then(|()| fs::create_dir(&there)).unwrap();
            mount::private_directory(&run)?;
            let file = run.join("node");
            create_mount(&file)?;
            mount_at(&here);
            let namespace = File::open(&file).unwrap();
            on_a_thread(|| {
                enter(namespace.as_fd(), Kind::Mount)?;
                assert!(shows(&here), "what is mounted outside shows inside");
                mount_at(&there);
                assert!(shows(&there));
                Ok(())
            })?;
            assert!(!shows(&there), "what is mounted inside shows nowhere else");
            remove_bound(&file)
        })
        .unwrap();
    }
}
