//! The last steps of a child of the monitor before it becomes the container's program, the same for the main process
//! and for commands run beside it.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use linux::cgroup::{Cgroup, Version};
use linux::path::check_executable;

use crate::spec::{ContainerSpec, Filter};
use crate::users::{self, User};

/// What is said through the channel between monitor and child.
pub const TERMINAL: u8 = b'T';
pub const FAILED: u8 = b'F';

/// The streams of a process.
pub enum Streams {
    /// stdin, stdout, stderr; missing ones are `/dev/null`.
    Pipes([Option<OwnedFd>; 3]),
    /// A terminal of the container's own, of so many columns and rows, sent back through the channel.
    Terminal { size: Option<(u16, u16)> },
}

/// Runs `set_up`, which ends by executing a program; what it complains about goes to the monitor.
pub fn run(channel: &UnixStream, set_up: impl FnOnce() -> Result<std::convert::Infallible, String>) -> ! {
    let message = match set_up() {
        Ok(never) => match never {},
        Err(message) => message,
    };
    let mut frame = vec![FAILED];
    frame.extend_from_slice(message.as_bytes());
    // The monitor is gone if this fails, and then nobody wants to know.
    if linux::socket::send(channel.as_fd(), &frame, &[]).is_err() {
        linux::process::exit_now(126);
    }
    linux::process::exit_now(127)
}

/// Steps that come before everything else.
pub fn begin(spec: &ContainerSpec, cgroup: &Cgroup) -> linux::Result<()> {
    linux::process::forbid_inspection()?;
    cgroup.enter_v1()?;
    if cgroup.hierarchies().version() == Version::V2 && !spec.privileged {
        linux::namespace::unshare(&[linux::namespace::Kind::Cgroup])?;
    }
    linux::process::set_oom_score(spec.resources.oom_score_adj)
}

/// Looks the user up in the container, whose root is this process's.
pub fn user(spec: &ContainerSpec) -> Result<User, String> {
    // A missing file is an empty one; images from scratch have none.
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    users::resolve(&spec.user, &read("/etc/passwd"), &read("/etc/group"))
}

/// Connects the streams, with a session of the process's own.
pub fn connect(streams: Streams, user: &User, channel: &UnixStream, console: bool) -> Result<(), String> {
    let text = |error: linux::Error| error.text();
    match streams {
        Streams::Terminal { size } => {
            let (control, program) = linux::terminal::open().map_err(text)?;
            if let Some((columns, rows)) = size {
                linux::terminal::resize(control.as_fd(), columns, rows).map_err(|error| error.to_string())?;
            }
            linux::process::give_to(program.as_fd(), user.user_id).map_err(|error| error.to_string())?;
            if console {
                super::rootfs::bind_console(program.as_fd()).map_err(text)?;
            }
            linux::socket::send(channel.as_fd(), &[TERMINAL], &[control.as_fd()])
                .map_err(|error| format!("hand over the terminal: {error}"))?;
            linux::terminal::take(program.as_fd()).map_err(text)?;
            let fd = program.as_fd();
            linux::process::set_standard_streams(fd, fd, fd).map_err(text)
        }
        Streams::Pipes(pipes) => {
            linux::process::detach().map_err(text)?;
            let null = linux::terminal::null().map_err(text)?;
            for pipe in pipes.iter().flatten() {
                // So that the user can open /dev/stdout; a socket or a foreign file stays as it is.
                if let Err(error) = linux::process::give_to(pipe.as_fd(), user.user_id)
                    && error.kind() != std::io::ErrorKind::PermissionDenied
                {
                    return Err(format!("give the streams to the user: {error}"));
                }
            }
            let [stdin, stdout, stderr] =
                [0, 1, 2].map(|at: usize| pipes[at].as_ref().map_or(null.as_fd(), |pipe| pipe.as_fd()));
            linux::process::set_standard_streams(stdin, stdout, stderr).map_err(text)
        }
    }
}

/// Gives up privileges and becomes the program.
pub fn execute(
    spec: &ContainerSpec,
    user: &User,
    arguments: &[String],
    environment: &[String],
) -> Result<std::convert::Infallible, String> {
    let text = |error: linux::Error| error.text();
    let mut environment = environment.to_vec();
    if !environment.iter().any(|entry| entry.starts_with("HOME=")) {
        environment.push(format!("HOME={}", user.home));
    }
    let directory = &spec.working_directory;
    let entered = std::env::set_current_dir(directory);
    linux::process::reset_signals();
    // The monitor does without them; what it starts may have them.
    linux::process::allow_huge_pages().map_err(text)?;
    if spec.no_new_privileges {
        linux::process::forbid_new_privileges().map_err(text)?;
    } else {
        // Without "no new privileges" a filter takes CAP_SYS_ADMIN, which is about to go.
        install(spec)?;
    }
    linux::capability::bound(spec.capabilities).map_err(text)?;
    linux::capability::keep_over_change_of_user().map_err(text)?;
    linux::process::become_user(user.user_id, user.group_id, &user.groups).map_err(text)?;
    linux::capability::set(spec.capabilities).map_err(text)?;
    // A directory on a file system that trusts only its user is entered by that user.
    entered.or_else(|_| std::env::set_current_dir(directory)).map_err(|error| {
        format!("chdir to cwd ({:?}) set in config.json failed: {}", directory, plain(&error))
    })?;
    let program = find(&arguments[0], &environment)?;
    linux::process::close_others_on_exec();
    if spec.no_new_privileges {
        install(spec)?;
    }
    let error = linux::process::execute(&program, arguments, &environment);
    Err(format!("exec {}: {}", program.display(), plain(&error)))
}

fn install(spec: &ContainerSpec) -> Result<(), String> {
    let profile = match &spec.filter {
        Filter::None => return Ok(()),
        Filter::RuntimeDefault => &crate::seccomp::runtime_default(spec.capabilities),
        Filter::Profile(profile) => profile,
    };
    linux::seccomp::install(&linux::seccomp::compile(profile)).map_err(|error| error.text())
}

/// Finds a program as a shell does; the words of the errors are Go's, which users know.
fn find(name: &str, environment: &[String]) -> Result<PathBuf, String> {
    if name.contains('/') {
        return match check_executable(Path::new(name)) {
            Ok(()) => Ok(name.into()),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                Err(format!("exec: {name:?}: permission denied"))
            }
            Err(error) => Err(format!("exec: {name:?}: stat {name}: {}", plain(&error))),
        };
    }
    let path = environment.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
    let mut found =
        path.split(':').map(|directory| Path::new(if directory.is_empty() { "." } else { directory }));
    found
        .find_map(|directory| Some(directory.join(name)).filter(|file| check_executable(file).is_ok()))
        .ok_or_else(|| format!("exec: {name:?}: executable file not found in $PATH"))
}

/// The kernel's words in lower case and without a number, as Go prints them.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.to_lowercase()
}
