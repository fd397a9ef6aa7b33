//! Processes: forked into a cgroup and a process namespace, watched by descriptor, replaced by a program.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

use crate::{Context, Error, Result};

/// Where a child starts.
#[derive(Default)]
pub struct ForkOptions<'a> {
    /// An open directory of the unified cgroup hierarchy.
    pub cgroup: Option<BorrowedFd<'a>>,
    pub new_pid_namespace: bool,
}

/// Which side of a fork this is.
pub enum Forked {
    Child,
    Parent { pid: u32, pidfd: OwnedFd },
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Exited(i32),
    Signaled(i32),
}

impl Ended {
    /// As a shell says it: the exit code, or 128 + signal.
    pub fn code(self) -> i32 {
        match self {
            Ended::Exited(code) => code,
            Ended::Signaled(signal) => 128 + signal,
        }
    }

    pub fn signal(self) -> i32 {
        match self {
            Ended::Exited(_) => 0,
            Ended::Signaled(signal) => signal,
        }
    }
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Copies this process, which must have a single thread: in a copy of several, locks held by the others would never
/// be released.
pub fn fork(options: &ForkOptions<'_>) -> Result<Forked> {
    let threads = fs::read_dir("/proc/self/task").context("list the threads")?.count();
    if threads != 1 {
        let cause = io::Error::other(format!("the process has {threads} threads"));
        return Err(Error::new("fork", cause));
    }
    let mut pidfd: RawFd = -1;
    let mut arguments = CloneArgs {
        flags: libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if options.new_pid_namespace {
        arguments.flags |= libc::CLONE_NEWPID as u64;
    }
    if let Some(cgroup) = options.cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM and with the same stack this is `fork`; there is one thread, so every lock is free.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<CloneArgs>()) };
    match pid {
        0 => Ok(Forked::Child),
        -1 => Err(Error::new("fork", io::Error::last_os_error())),
        // SAFETY: the kernel made the descriptor for us.
        pid => Ok(Forked::Parent { pid: pid as u32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
    }
}

/// Ends the process at once, without running what the parent has registered.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Gives signals their default meaning and unblocks them, as a program expects when it starts.
pub fn reset_signals() {
    // SAFETY: setting dispositions to the default and emptying the mask cannot break memory safety.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Replaces this process by a program; returns only when that fails.
pub fn execute(program: &Path, arguments: &[String], environment: &[String]) -> io::Error {
    match try_execute(program, arguments, environment) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn try_execute(
    program: &Path,
    arguments: &[String],
    environment: &[String],
) -> io::Result<std::convert::Infallible> {
    let text = |value: &[u8]| CString::new(value).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let strings = |values: &[String]| {
        values.iter().map(|value| text(value.as_bytes())).collect::<io::Result<Vec<CString>>>()
    };
    let (program, arguments, environment) =
        (text(program.as_os_str().as_bytes())?, strings(arguments)?, strings(environment)?);
    let pointers = |values: &[CString]| {
        values.iter().map(|value| value.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
    };
    let (argv, envp) = (pointers(&arguments), pointers(&environment));
    // SAFETY: both arrays end with null and point to strings that outlive the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    Err(io::Error::last_os_error())
}

/// Watches any process; readable when it ends.
pub fn open_pidfd(pid: u32) -> io::Result<OwnedFd> {
    let pid = as_pid(pid)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// The polite request to end.
pub const TERMINATE: i32 = libc::SIGTERM;
/// The one that cannot be refused.
pub const KILL: i32 = libc::SIGKILL;

/// Sends a signal, by number; it is no error when the process has ended.
pub fn signal(pidfd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    // SAFETY: the call takes plain numbers and an optional structure that is not given.
    let answer =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), number, 0usize, 0u32) };
    match io::Error::last_os_error() {
        error if answer != 0 && error.raw_os_error() != Some(libc::ESRCH) => Err(error),
        _ => Ok(()),
    }
}

/// Kills a whole process group; it is no error when it is gone.
pub fn kill_group(leader: u32) -> io::Result<()> {
    match rustix::process::kill_process_group(as_pid(leader)?, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Keeps transparent huge pages from this process and the programs it runs: of the 2 MiB that a first touch would
/// take, most stays unused.
pub fn forbid_huge_pages() -> Result<()> {
    rustix::thread::disable_transparent_huge_pages(true).context("forbid huge pages")
}

/// Lets this process and the programs it runs have transparent huge pages, as far as the machine gives them.
pub fn allow_huge_pages() -> Result<()> {
    rustix::thread::disable_transparent_huge_pages(false).context("allow huge pages")
}

/// Starts a program that is killed when the calling thread ends, however it ends.
pub fn spawn_bound_to_thread(command: &mut std::process::Command) -> io::Result<std::process::Child> {
    use std::os::unix::process::CommandExt;
    let die_with_parent =
        || rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from);
    // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(die_with_parent) }.spawn()
}

/// Files that this process makes lack these permission bits.
pub fn set_file_mask(mask: u32) {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
}

/// Sets the name that `ps` and `top` show, at most 15 bytes.
pub fn set_name(name: &std::ffi::CStr) -> Result<()> {
    rustix::thread::set_name(name).context("set the process's name")
}

/// Sends `SIGKILL` to a process by number; it is no error when it is gone.
pub fn kill(pid: u32) -> io::Result<()> {
    match rustix::process::kill_process(as_pid(pid)?, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Takes the exit status of a child, if it has ended.
pub fn try_wait(pidfd: BorrowedFd<'_>) -> io::Result<Option<Ended>> {
    let status =
        rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)?;
    Ok(status.map(|status| match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ended::Exited(code),
        (None, signal) => Ended::Signaled(signal.unwrap_or(libc::SIGKILL)),
    }))
}

/// Waits until a child ends.
pub fn wait(pidfd: BorrowedFd<'_>) -> io::Result<Ended> {
    loop {
        crate::poll::poll(&mut [crate::poll::PollFd::new(&pidfd, crate::poll::PollFlags::IN)], None)?;
        if let Some(ended) = try_wait(pidfd)? {
            return Ok(ended);
        }
    }
}

/// The life of a pause process: collects the orphans of its process namespace until it is killed.
pub fn reap_forever() -> ! {
    // SAFETY: the set is initialised before it is used; blocking and waiting for signals touch nothing else.
    unsafe {
        let mut children: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut children);
        libc::sigaddset(&raw mut children, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const children, std::ptr::null_mut());
        loop {
            while libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) > 0 {}
            libc::sigwaitinfo(&raw const children, std::ptr::null_mut());
        }
    }
}

/// Protects the process's memory and `/proc/self/exe` from others in its process namespace.
pub fn forbid_inspection() -> Result<()> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .context("forbid inspection")
}

/// Orphans among this process's descendants become its children.
pub fn become_subreaper() -> Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).context("become a subreaper")
}

/// Starts a session of its own, away from the terminal and the process group of whoever started this process.
pub fn detach() -> Result<()> {
    rustix::process::setsid().map(drop).context("start a session")
}

/// The children that the process starts from now on get this preference as victims, if the kernel lets us say so.
pub fn set_oom_score(value: i64) -> Result<()> {
    match fs::write("/proc/self/oom_score_adj", value.to_string()) {
        // Lowering it takes CAP_SYS_RESOURCE, which root in a container may not have.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other.context("set the out-of-memory score"),
    }
}

/// Becomes another user. Nothing can be undone afterwards.
pub fn become_user(user: u32, group: u32, groups: &[u32]) -> Result<()> {
    let groups: Vec<_> = groups.iter().map(|id| rustix::fs::Gid::from_raw(*id)).collect();
    rustix::thread::set_thread_groups(&groups).context("set the supplementary groups")?;
    let gid = rustix::fs::Gid::from_raw(group);
    rustix::thread::set_thread_res_gid(gid, gid, gid).with_context(|| format!("become group {group}"))?;
    let uid = rustix::fs::Uid::from_raw(user);
    rustix::thread::set_thread_res_uid(uid, uid, uid).with_context(|| format!("become user {user}"))
}

/// Children and the programs they run never gain privileges from set-user-ID files.
pub fn forbid_new_privileges() -> Result<()> {
    rustix::thread::set_no_new_privs(true).context("forbid new privileges")
}

/// Makes `fds` the descriptors 0, 1 and 2.
pub fn set_standard_streams(
    stdin: BorrowedFd<'_>,
    stdout: BorrowedFd<'_>,
    stderr: BorrowedFd<'_>,
) -> Result<()> {
    // Copies above 2 first, so that no source is overwritten before it is used.
    let above = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 3).context("duplicate a stream");
    let (stdin, stdout, stderr) = (above(stdin)?, above(stdout)?, above(stderr)?);
    rustix::stdio::dup2_stdin(&stdin).context("set stdin")?;
    rustix::stdio::dup2_stdout(&stdout).context("set stdout")?;
    rustix::stdio::dup2_stderr(&stderr).context("set stderr")
}

/// Closes on execution every descriptor above 2 that a careless parent let through.
pub fn close_others_on_exec() {
    // SAFETY: the descriptors stay open in this process; only the flag changes. An old kernel refuses, and then
    // the flags that they were opened with hold.
    unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Closes every descriptor above 2. Only for a process that will not use what it has open any more.
pub fn close_all_but_standard() {
    // SAFETY: the caller has become a process that uses no descriptor but the standard ones.
    unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0) };
}

/// One process as `/proc` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessInfo {
    pub pid: u32,
    pub parent: u32,
    /// At most 15 bytes.
    pub name: String,
    /// `R`, `S`, `Z`, …
    pub state: char,
    /// Clock ticks between the machine's start and the process's; with the pid it identifies a process.
    pub start_time: u64,
}

/// Reads `/proc/PID/stat`; `None` when there is no such process.
pub fn info(pid: u32) -> Option<ProcessInfo> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// All processes that this one sees.
pub fn list() -> Result<Vec<ProcessInfo>> {
    let entries = fs::read_dir("/proc").context("read /proc")?;
    let pids = entries.flatten().filter_map(|entry| number(&entry.file_name()));
    Ok(pids.filter_map(info).collect())
}

fn number(name: &OsStr) -> Option<u32> {
    name.to_str()?.parse().ok()
}

fn parse_stat(text: &str) -> Option<ProcessInfo> {
    let (open, close) = (text.find('(')?, text.rfind(')')?);
    let mut rest = text[close + 1..].split_ascii_whitespace();
    Some(ProcessInfo {
        pid: text[..open].trim().parse().ok()?,
        name: text[open + 1..close].to_owned(),
        state: rest.next()?.chars().next()?,
        parent: rest.next()?.parse().ok()?,
        start_time: rest.nth(17)?.parse().ok()?,
    })
}

fn as_pid(pid: u32) -> io::Result<Pid> {
    i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
}

/// The largest signal number's name table, for `SIGTERM`, `TERM`, `15`, `RTMIN+3`.
pub fn signal_number(name: &str) -> Option<i32> {
    let upper = name.trim().to_ascii_uppercase();
    if let Ok(number) = upper.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = bare.strip_prefix("RTMIN") {
        let offset = if offset.is_empty() { 0 } else { offset.strip_prefix('+')?.parse::<i32>().ok()? };
        return Some(34 + offset).filter(|number| *number <= 64);
    }
    SIGNALS.iter().find(|(known, _)| *known == bare).map(|(_, number)| *number)
}

const SIGNALS: [(&str, i32); 31] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

/// Gives the descriptor's file to a user, so that `/dev/stdout` can be opened by it.
pub fn give_to(fd: BorrowedFd<'_>, user: u32) -> io::Result<()> {
    let uid = rustix::fs::Uid::from_raw(user);
    Ok(rustix::fs::fchown(fd.as_fd(), Some(uid), None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_with_any_name() {
        let text = "42 (a) b (c)) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2";
        let info = parse_stat(text).expect("a valid line");
        assert_eq!(
            (info.pid, info.parent, info.name.as_str(), info.start_time),
            (42, 7, "a) b (c)", 987_654)
        );
    }

    #[test]
    fn signals_by_name_and_number() {
        let cases = ["SIGTERM", "quit", "15", "SIGRTMIN+3", "0", "NOPE", "65"];
        let found = cases.map(signal_number);
        assert_eq!(found, [Some(15), Some(3), Some(15), Some(37), None, None, None]);
    }
}
