//! System-call filters: the runtime's own profile, and profile files in the format of the OCI and Docker.

use linux::seccomp::{Action, Comparison, Condition, Profile, Rule};
use serde::Deserialize;

/// `EPERM` and `ENOSYS`.
const NOT_PERMITTED: u16 = 1;
const NOT_IMPLEMENTED: u16 = 38;

/// The flags of `clone` that make namespaces.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;

/// Calls that every container may make, as in Docker's and containerd's default profile.
const ALLOWED: &str = "
accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 clock_adjtime
clock_getres clock_gettime clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3
epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd
eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fallocate fanotify_mark fchdir fchmod
fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat
fstatfs fsync ftruncate futex futex_requeue futex_wait futex_waitv futex_wake futimesat getcpu getcwd getdents
getdents64 getegid geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority
getrandom getresgid getresuid getrlimit get_robust_list getrusage getsid getsockname getsockopt get_thread_area
gettid gettimeofday getuid getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
io_cancel ioctl io_destroy io_getevents io_pgetevents ioprio_get ioprio_set io_setup io_submit kill
landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lgetxattr link linkat listen listmount
listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat madvise map_shadow_stack membarrier
memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mprotect mq_getsetattr
mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock
munlockall munmap name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal
pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64 preadv preadv2 prlimit64
process_mrelease process_vm_readv process_vm_writev pselect6 ptrace pwrite64 pwritev pwritev2 read readahead
readlink readlinkat readv recvfrom recvmmsg recvmsg remap_file_pages removexattr removexattrat rename renameat
renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_getaffinity sched_getattr sched_getparam
sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval sched_setaffinity
sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop
sendfile sendmmsg sendmsg sendto setfsgid setfsuid setgid setgroups setitimer setpgid setpriority setregid
setresgid setresuid setreuid setrlimit set_robust_list setsid setsockopt set_thread_area set_tid_address setuid
setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 socketpair splice stat
statfs statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create
timer_delete timerfd_create timerfd_gettime timerfd_settime timer_getoverrun timer_gettime timer_settime times
tkill truncate umask uname unlink unlinkat uretprobe utime utimensat utimes vfork vmsplice wait4 waitid write
writev arch_prctl modify_ldt";

/// Calls that come with a capability.
const WITH_CAPABILITY: [(&str, &str); 14] = [
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr \
         move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount2 \
         unshare pivot_root",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module init_module finit_module"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("SYS_RAWIO", "iopl ioperm"),
    ("SYS_TIME", "settimeofday clock_settime"),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYSLOG", "syslog"),
    ("BPF", "bpf"),
    ("PERFMON", "perf_event_open"),
];

/// The profile `RuntimeDefault` for a process with these capabilities.
pub fn runtime_default(capabilities: u64) -> Profile {
    let has = |name: &str| linux::capability::bit(name).is_some_and(|bit| capabilities & bit != 0);
    let mut rules = vec![rule(ALLOWED, Action::Allow, vec![])];
    for (_, calls) in WITH_CAPABILITY.iter().filter(|(name, _)| has(name)) {
        rules.push(rule(calls, Action::Allow, vec![]));
    }
    for persona in [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        rules.push(rule("personality", Action::Allow, vec![condition(0, Comparison::Equal, persona)]));
    }
    // AF_VSOCK reaches the hypervisor, past every network rule.
    rules.push(rule("socket", Action::Allow, vec![condition(0, Comparison::NotEqual, 40)]));
    if !has("SYS_ADMIN") {
        let no_namespaces = condition(0, Comparison::MaskedEqual(NAMESPACE_FLAGS), 0);
        rules.push(rule("clone", Action::Allow, vec![no_namespaces]));
        // Its flags lie in memory, out of a filter's sight; told that it is missing, programs use `clone`.
        rules.push(rule("clone3", Action::Errno(NOT_IMPLEMENTED), vec![]));
    }
    Profile { default: Action::Errno(NOT_PERMITTED), rules }
}

fn rule(names: &str, action: Action, conditions: Vec<Condition>) -> Rule {
    Rule { names: names.split_whitespace().map(str::to_owned).collect(), action, conditions }
}

fn condition(argument: u8, comparison: Comparison, value: u64) -> Condition {
    Condition { argument, comparison, value }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    default_action: String,
    default_errno_ret: Option<u16>,
    #[serde(default)]
    syscalls: Vec<FileRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileRule {
    #[serde(default)]
    names: Vec<String>,
    /// The older form, one name.
    name: Option<String>,
    action: String,
    errno_ret: Option<u16>,
    #[serde(default)]
    args: Option<Vec<FileCondition>>,
    #[serde(default)]
    includes: Option<FileFilter>,
    #[serde(default)]
    excludes: Option<FileFilter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileCondition {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// Docker's addition: a rule counts only with (or without) these.
#[derive(Default, Deserialize)]
#[serde(default)]
struct FileFilter {
    caps: Vec<String>,
    arches: Vec<String>,
}

impl FileFilter {
    /// Whether what the filter names is there.
    fn holds(&self, capabilities: u64) -> bool {
        let has = |name: &String| linux::capability::bit(name).is_some_and(|bit| capabilities & bit != 0);
        let here = [linux::facts::architecture(std::env::consts::ARCH), std::env::consts::ARCH];
        self.caps.iter().all(has)
            && (self.arches.is_empty() || self.arches.iter().any(|name| here.contains(&name.as_str())))
    }
}

/// Reads a profile file for a process with these capabilities.
pub fn parse(text: &str, capabilities: u64) -> Result<Profile, String> {
    let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut rules = Vec::new();
    for entry in &file.syscalls {
        let included = entry.includes.as_ref().is_none_or(|filter| filter.holds(capabilities));
        let empty = |filter: &FileFilter| filter.caps.is_empty() && filter.arches.is_empty();
        let excluded =
            entry.excludes.as_ref().is_some_and(|filter| !empty(filter) && filter.holds(capabilities));
        if included && !excluded {
            rules.push(Rule {
                names: entry.names.iter().chain(&entry.name).cloned().collect(),
                action: action(&entry.action, entry.errno_ret)?,
                conditions: entry.args.iter().flatten().map(file_condition).collect::<Result<_, _>>()?,
            });
        }
    }
    Ok(Profile { default: action(&file.default_action, file.default_errno_ret)?, rules })
}

fn action(name: &str, errno: Option<u16>) -> Result<Action, String> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_ERRNO" => Action::Errno(errno.unwrap_or(NOT_PERMITTED)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_LOG" => Action::Log,
        other => return Err(format!("seccomp action {other} is not supported")),
    })
}

fn file_condition(entry: &FileCondition) -> Result<Condition, String> {
    let (comparison, value) = match entry.op.as_str() {
        "SCMP_CMP_EQ" => (Comparison::Equal, entry.value),
        "SCMP_CMP_NE" => (Comparison::NotEqual, entry.value),
        "SCMP_CMP_LT" => (Comparison::Less, entry.value),
        "SCMP_CMP_LE" => (Comparison::LessOrEqual, entry.value),
        "SCMP_CMP_GT" => (Comparison::Greater, entry.value),
        "SCMP_CMP_GE" => (Comparison::GreaterOrEqual, entry.value),
        // Its first value is the mask.
        "SCMP_CMP_MASKED_EQ" => (Comparison::MaskedEqual(entry.value), entry.value_two),
        other => return Err(format!("seccomp operator {other} is not known")),
    };
    if entry.index > 5 {
        return Err(format!("seccomp argument index {} is not between 0 and 5", entry.index));
    }
    Ok(condition(entry.index, comparison, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_forbids_what_leads_out() {
        let names = |profile: &Profile| {
            let allowed = profile.rules.iter().filter(|rule| rule.action == Action::Allow);
            allowed.flat_map(|rule| rule.names.clone()).collect::<std::collections::BTreeSet<_>>()
        };
        let plain = names(&runtime_default(0));
        for call in
            ["mount", "unshare", "setns", "reboot", "bpf", "keyctl", "kexec_load", "init_module", "chroot"]
        {
            assert!(!plain.contains(call), "{call}");
        }
        let admin = names(&runtime_default(linux::capability::bit("SYS_ADMIN").unwrap()));
        assert!(admin.contains("mount") && !admin.contains("reboot"));
    }

    #[test]
    fn files_are_read_and_refused() {
        let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"names":["mkdir"],"action":"SCMP_ACT_ERRNO","errnoRet":13,
             "args":[{"index":1,"value":7,"valueTwo":1,"op":"SCMP_CMP_MASKED_EQ"}]},
            {"names":["chroot"],"action":"SCMP_ACT_ERRNO","includes":{"caps":["CAP_SYS_CHROOT"]}}]}"#;
        let profile = parse(text, 0).unwrap();
        assert_eq!((profile.default, profile.rules.len()), (Action::Allow, 1));
        assert_eq!(profile.rules[0].action, Action::Errno(13));
        assert_eq!(profile.rules[0].conditions, [condition(1, Comparison::MaskedEqual(7), 1)]);
        assert_eq!(parse(text, linux::capability::ALL).unwrap().rules.len(), 2);
        assert!(parse(r#"{"defaultAction":"SCMP_ACT_WONDER"}"#, 0).unwrap_err().contains("WONDER"));
    }
}
