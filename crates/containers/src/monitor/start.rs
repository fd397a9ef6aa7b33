//! Starting a container: its cgroup, its streams, a child that becomes its program.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use linux::cgroup::{Cgroup, Hierarchies};
use linux::namespace::{self, Kind};
use linux::process::{ForkOptions, Forked};

use super::child::{self, Streams};
use super::rootfs;
use crate::spec::{ContainerSpec, limits};

/// A child that takes longer to set itself up is stuck, e.g. on a dead network file system.
const SET_UP_LIMIT: Duration = Duration::from_secs(120);

/// A process that runs.
pub struct Process {
    pub pid: u32,
    pub pidfd: OwnedFd,
    /// The controlling side of its terminal.
    pub terminal: Option<OwnedFd>,
}

/// The process namespace that a child shall be in.
pub enum PidNamespace<'a> {
    New,
    /// The one of the monitor.
    Host,
    Existing {
        theirs: &'a OwnedFd,
        own: &'a OwnedFd,
    },
}

/// Makes the container's cgroup with its limits.
pub fn make_cgroup(spec: &ContainerSpec, hierarchies: &Arc<Hierarchies>) -> Result<Cgroup, String> {
    let cgroup = Cgroup::new(hierarchies, &spec.cgroup);
    let made = cgroup
        .create()
        .and_then(|()| cgroup.set_limits(&limits(&spec.resources), true))
        .and_then(|()| cgroup.set_devices(&rootfs::device_rules(spec)?));
    made.map_err(|error| error.text())?;
    Ok(cgroup)
}

/// Starts the main process.
pub fn start(
    spec: &ContainerSpec,
    cgroup: &Cgroup,
    streams: Streams,
    pids: PidNamespace<'_>,
) -> Result<Process, String> {
    let version = cgroup.hierarchies().version();
    spawn(cgroup, pids, |channel| {
        let text = |error: linux::Error| error.text();
        child::begin(spec, cgroup).map_err(text)?;
        let sources = rootfs::open_sources(spec, cgroup).map_err(text)?;
        rootfs::enter(spec, sources, version).map_err(text)?;
        let user = child::user(spec)?;
        child::connect(streams, &user, channel, spec.tty)?;
        rootfs::close(spec).map_err(text)?;
        child::execute(spec, &user, &spec.arguments, &spec.environment)
    })
}

/// Forks a child that runs `set_up` and waits until it has become its program.
pub fn spawn(
    cgroup: &Cgroup,
    pids: PidNamespace<'_>,
    set_up: impl FnOnce(&UnixStream) -> Result<std::convert::Infallible, String>,
) -> Result<Process, String> {
    let (ours, theirs) = UnixStream::pair().map_err(|error| format!("make a socket: {error}"))?;
    match fork(cgroup, &pids)? {
        Forked::Child => {
            drop(ours);
            child::run(&theirs, || set_up(&theirs))
        }
        Forked::Parent { pid, pidfd } => {
            drop(theirs);
            // What the closure captured, e.g. the child's ends of pipes, is not needed here any more.
            drop(set_up);
            match await_program(&ours) {
                Ok(terminal) => Ok(Process { pid, pidfd, terminal }),
                Err(message) => {
                    linux::process::kill(pid).map_err(|error| error.to_string())?;
                    linux::process::wait(pidfd.as_fd()).map_err(|error| error.to_string())?;
                    Err(message)
                }
            }
        }
    }
}

fn fork(cgroup: &Cgroup, pids: &PidNamespace<'_>) -> Result<Forked, String> {
    let text = |error: linux::Error| error.text();
    let directory = cgroup.open_unified().map_err(text)?;
    if let PidNamespace::Existing { theirs, .. } = pids {
        namespace::enter(theirs.as_fd(), Kind::Pid).map_err(text)?;
    }
    let options = ForkOptions {
        cgroup: directory.as_ref().map(|fd| fd.as_fd()),
        new_pid_namespace: matches!(pids, PidNamespace::New),
    };
    let forked = linux::process::fork(&options);
    if let (PidNamespace::Existing { own, .. }, Ok(Forked::Parent { .. }) | Err(_)) = (pids, &forked) {
        namespace::enter(own.as_fd(), Kind::Pid).map_err(text)?;
    }
    forked.map_err(text)
}

/// The channel closes when the program is executed; before that a terminal or a complaint may come through it.
fn await_program(channel: &UnixStream) -> Result<Option<OwnedFd>, String> {
    channel.set_read_timeout(Some(SET_UP_LIMIT)).map_err(|error| error.to_string())?;
    let mut fds = Vec::new();
    let mut said = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match linux::socket::receive(channel.as_fd(), &mut chunk, &mut fds) {
            Ok(0) => break,
            Ok(count) => said.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("the process did not get ready: {error}")),
        }
    }
    let terminal = fds.pop();
    let rest = said.strip_prefix(&[child::TERMINAL]).unwrap_or(&said);
    match rest.strip_prefix(&[child::FAILED]) {
        Some(message) => Err(String::from_utf8_lossy(message).into_owned()),
        None => Ok(terminal),
    }
}

/// Opens the process namespace of a running process.
pub fn pid_namespace_of(pid: u32) -> Result<OwnedFd, String> {
    namespace::of_process(pid, Kind::Pid).map_err(|error| error.text())
}

/// The directories that the root file system is made of; made before the container is started for the first time.
pub fn prepare_directory(spec: &ContainerSpec) -> io::Result<()> {
    let directory: &Path = &spec.directory;
    for name in ["u", "w", "r", "l"] {
        std::fs::create_dir_all(directory.join(name))?;
    }
    for (at, layer) in spec.layers.iter().enumerate() {
        let link = directory.join("l").join(at.to_string());
        match std::os::unix::fs::symlink(layer, &link) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
