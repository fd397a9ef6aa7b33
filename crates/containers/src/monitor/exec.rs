//! Commands run inside a running container.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use linux::cgroup::{Cgroup, Version};
use linux::namespace::{self, Kind};

use super::child::{self, Streams};
use super::start::{self, PidNamespace, Process};
use crate::protocol::Exec;
use crate::spec::{ContainerSpec, Processes};

/// A command that runs, and the client that waits for its end.
pub struct Running {
    pub pid: u32,
    pub pidfd: OwnedFd,
    pub client: UnixStream,
    pub kill_on_close: bool,
}

/// Starts a command beside the main process `pid` of a container.
pub fn start(
    request: &Exec,
    streams: Streams,
    spec: &ContainerSpec,
    pid: u32,
    cgroup: &Cgroup,
    own_pids: &OwnedFd,
) -> Result<Process, String> {
    let text = |error: linux::Error| error.text();
    let mounts = namespace::of_process(pid, Kind::Mount).map_err(text)?;
    let groups = match cgroup.hierarchies().version() {
        Version::V2 => Some(namespace::of_process(pid, Kind::Cgroup).map_err(text)?),
        _ => None,
    };
    let theirs = start::pid_namespace_of(pid)?;
    let pids = match spec.processes {
        Processes::Host => PidNamespace::Host,
        _ => PidNamespace::Existing { theirs: &theirs, own: own_pids },
    };
    start::spawn(cgroup, pids, |channel| {
        run(request, streams, spec, cgroup, channel, (&mounts, groups.as_ref()))
    })
}

fn run(
    request: &Exec,
    streams: Streams,
    spec: &ContainerSpec,
    cgroup: &Cgroup,
    channel: &UnixStream,
    (mounts, groups): (&OwnedFd, Option<&OwnedFd>),
) -> Result<Infallible, String> {
    let text = |error: linux::Error| error.text();
    linux::process::forbid_inspection().map_err(text)?;
    cgroup.enter_v1().map_err(text)?;
    linux::process::set_oom_score(spec.resources.oom_score_adj).map_err(text)?;
    if let Some(groups) = groups {
        namespace::enter(groups.as_fd(), Kind::Cgroup).map_err(text)?;
    }
    namespace::enter(mounts.as_fd(), Kind::Mount).map_err(text)?;
    let user = child::user(spec)?;
    child::connect(streams, &user, channel, false)?;
    let mut environment = spec.environment.clone();
    if request.tty && !environment.iter().any(|entry| entry.starts_with("TERM=")) {
        environment.push("TERM=xterm".into());
    }
    if request.arguments.is_empty() {
        return Err("no command specified".into());
    }
    child::execute(spec, &user, &request.arguments, &environment)
}
