//! The monitor's state and its loop.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use env::Env;
use jiff::Timestamp;
use linux::cgroup::{Cgroup, Hierarchies};
use linux::mount::{self, Attributes};
use linux::namespace::{self, Kind};
use linux::poll::{PollFd, PollFlags, poll};
use linux::process::{ForkOptions, Forked};
use linux::{Context, Result};

use super::exec;
use super::log::Log;
use super::output::{Output, Sink};
use crate::ContainerState;
use crate::defaults;
use crate::protocol::{self, Reply};
use crate::record::{self, StateRecord};
use crate::spec::{ContainerSpec, SandboxSpec};

/// After this a process that was killed counts as stuck in the kernel.
pub const KILL_LIMIT: Duration = Duration::from_secs(10);

/// A pod and everything that runs in it.
pub struct Pod {
    pub spec: SandboxSpec,
    pub hierarchies: Arc<Hierarchies>,
    pub world: Env,
    pub listener: UnixListener,
    /// The process namespace of the monitor.
    pub own_pids: OwnedFd,
    /// Holds the process namespace that the containers share.
    pub pause: Option<Pause>,
    pub containers: BTreeMap<String, Running>,
    pub execs: Vec<exec::Running>,
    /// Told when containers end.
    pub subscribers: Vec<UnixStream>,
    /// Clients that still have to read the last output of a container that has ended.
    pub late: Vec<Sink>,
    pub stopping: bool,
}

/// The pause process.
pub struct Pause {
    pub pidfd: OwnedFd,
    pub pids: OwnedFd,
}

/// A container that runs.
pub struct Running {
    pub spec: ContainerSpec,
    pub cgroup: Cgroup,
    pub pid: u32,
    pub pidfd: OwnedFd,
    pub started_at: Timestamp,
    pub log: Option<Log>,
    /// stdout (0) and stderr (1), or the terminal (0), as long as they are open.
    pub outputs: BTreeMap<usize, Output>,
    /// Where attached clients write to.
    pub stdin: Option<OwnedFd>,
    pub terminal: Option<OwnedFd>,
}

/// What a descriptor in the poll set stands for.
enum Source {
    Listener,
    Pause,
    Ended(String),
    Output(String, usize),
    Sink(String, usize, RawFd),
    Late(RawFd),
    Exec(u32),
    ExecClient(u32),
    Subscriber(RawFd),
}

impl Pod {
    /// Makes the namespaces and everything else that the containers share, and the socket.
    pub fn set_up(spec: SandboxSpec) -> Result<Self> {
        linux::process::detach()?;
        linux::process::set_file_mask(0o022);
        let hierarchies = Arc::new(Hierarchies::detect()?);
        let cgroup = Cgroup::new(&hierarchies, &spec.monitor_cgroup);
        cgroup.create()?;
        cgroup.attach(std::process::id())?;
        // Losing the monitor loses the pod, so it goes last where the kernel lets us say so.
        linux::process::set_oom_score(-998)?;
        make_namespaces(&spec)?;
        let own_pids = namespace::own(Kind::Pid)?;
        let pause = spec.shared_processes.then(|| start_pause(&spec, &hierarchies)).transpose()?;
        let listener = listen(&spec.socket)?;
        Ok(Self {
            spec,
            hierarchies,
            world: Env::system(),
            listener,
            own_pids,
            pause,
            containers: BTreeMap::new(),
            execs: Vec::new(),
            subscribers: Vec::new(),
            late: Vec::new(),
            stopping: false,
        })
    }

    /// Does what comes until the pod is stopped.
    pub fn serve(&mut self) -> Result<()> {
        while !self.stopping {
            for (source, flags) in self.wait()? {
                self.handle(source, flags);
            }
        }
        remove_file(&self.spec.socket)
    }

    fn wait(&self) -> Result<Vec<(Source, PollFlags)>> {
        let mut sources = Vec::new();
        let mut polled = Vec::new();
        let mut add = |source, fd, flags| {
            sources.push(source);
            polled.push(PollFd::from_borrowed_fd(fd, flags));
        };
        let input = PollFlags::IN;
        add(Source::Listener, self.listener.as_fd(), input);
        if let Some(pause) = &self.pause {
            add(Source::Pause, pause.pidfd.as_fd(), input);
        }
        for (id, container) in &self.containers {
            add(Source::Ended(id.clone()), container.pidfd.as_fd(), input);
            for (at, output) in &container.outputs {
                // A stream that is held up is left out: its hang-up would be reported over and over.
                if output.is_wanted() {
                    add(Source::Output(id.clone(), *at), output.fd(), input);
                }
                for sink in output.sinks() {
                    add(Source::Sink(id.clone(), *at, sink.fd().as_raw_fd()), sink.fd(), sink_flags(sink));
                }
            }
        }
        for sink in &self.late {
            add(Source::Late(sink.fd().as_raw_fd()), sink.fd(), sink_flags(sink));
        }
        for exec in &self.execs {
            add(Source::Exec(exec.pid), exec.pidfd.as_fd(), input);
            add(Source::ExecClient(exec.pid), exec.client.as_fd(), exec_flags(exec));
        }
        for subscriber in &self.subscribers {
            add(Source::Subscriber(subscriber.as_raw_fd()), subscriber.as_fd(), input);
        }
        poll(&mut polled, None).context("wait for events")?;
        let flags: Vec<PollFlags> = polled.iter().map(PollFd::revents).collect();
        let ready = sources.into_iter().zip(flags).filter(|(_, flags)| !flags.is_empty());
        Ok(ready.collect())
    }

    fn handle(&mut self, source: Source, flags: PollFlags) {
        match source {
            Source::Listener => self.accept(),
            Source::Pause => self.pause_ended(),
            Source::Ended(id) => self.container_ended(&id),
            Source::Output(id, at) => self.output_ready(&id, at),
            Source::Sink(id, at, fd) => self.sink_ready(&id, at, fd, flags),
            Source::Late(fd) => self.late_ready(fd, flags),
            Source::Exec(pid) => self.exec_ended(pid),
            Source::ExecClient(pid) => self.exec_client_gone(pid),
            Source::Subscriber(fd) => self.subscribers.retain(|subscriber| subscriber.as_raw_fd() != fd),
        }
    }

    fn output_ready(&mut self, id: &str, at: usize) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let Some(output) = container.outputs.get_mut(&at) else { return };
        if !output.read(container.log.as_mut(), &self.world)
            && let Some(output) = container.outputs.remove(&at)
        {
            self.late.extend(output.finish(container.log.as_mut(), &self.world));
        }
    }

    fn sink_ready(&mut self, id: &str, at: usize, fd: RawFd, flags: PollFlags) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let Some(output) = container.outputs.get_mut(&at) else { return };
        if flags.intersects(PollFlags::ERR | PollFlags::HUP) {
            output.drop_sink(fd);
        } else {
            output.flush_sinks();
        }
    }

    fn late_ready(&mut self, fd: RawFd, flags: PollFlags) {
        let gone = flags.intersects(PollFlags::ERR | PollFlags::HUP);
        self.late
            .retain_mut(|sink| sink.fd().as_raw_fd() != fd || (!gone && sink.flush() && sink.is_waiting()));
    }

    fn pause_ended(&mut self) {
        // All processes of the namespace die with the pause process; their ends are recorded as they come.
        if let Some(pause) = self.pause.take()
            && let Err(error) = linux::process::try_wait(pause.pidfd.as_fd())
        {
            eprintln!("collect the pause process: {error}");
        }
        self.stop();
    }

    /// Records the end of a container's main process and tells about it.
    pub fn container_ended(&mut self, id: &str) {
        let Some(container) = self.containers.get(id) else { return };
        let Ok(Some(ended)) = linux::process::try_wait(container.pidfd.as_fd()) else { return };
        let Some(mut container) = self.containers.remove(id) else { return };
        for output in std::mem::take(&mut container.outputs).into_values() {
            self.late.extend(output.finish(container.log.as_mut(), &self.world));
        }
        let oom_killed = container.cgroup.oom_kills() > 0;
        let reason = match ended.code() {
            _ if oom_killed => "OOMKilled",
            0 => "Completed",
            _ => "Error",
        };
        let state = ContainerState::Exited {
            started_at: container.started_at,
            finished_at: self.world.now(),
            exit_code: ended.code(),
            signal: ended.signal(),
            reason: reason.into(),
            message: String::new(),
        };
        self.record_end(&container.spec, StateRecord { state, pid: None });
        // Without a process namespace of its own, what the main process started outlives it.
        if let Err(error) = container.cgroup.destroy(KILL_LIMIT) {
            eprintln!("{}", error.text());
        }
    }

    /// Writes down how a container ended and tells the subscribers.
    pub fn record_end(&mut self, spec: &ContainerSpec, record: StateRecord) {
        if let Err(error) = record::write(&spec.directory, record::STATE, &record) {
            eprintln!("write the state of {}: {error}", spec.id);
        }
        let event = Reply::Exited { container: spec.id.clone(), record };
        self.subscribers.retain(|subscriber| protocol::send(subscriber, &event, &[]).is_ok());
    }

    fn exec_ended(&mut self, pid: u32) {
        let Some(at) = self.execs.iter().position(|exec| exec.pid == pid) else { return };
        let Ok(Some(ended)) = linux::process::try_wait(self.execs[at].pidfd.as_fd()) else { return };
        let exec = self.execs.remove(at);
        // The client may have lost interest.
        if let Err(error) = protocol::send(&exec.client, &Reply::ExecExited { code: ended.code() }, &[]) {
            eprintln!("tell the end of a command: {error}");
        }
    }

    fn exec_client_gone(&mut self, pid: u32) {
        let Some(exec) = self.execs.iter_mut().find(|exec| exec.pid == pid) else { return };
        if exec.kill_on_close {
            exec.kill_on_close = false;
            super::clients::kill_session(exec.pid);
        }
    }

    /// Kills all containers and waits for their ends.
    pub fn stop_containers(&mut self) {
        let ids: Vec<String> = self.containers.keys().cloned().collect();
        for id in &ids {
            if let Some(container) = self.containers.get(id) {
                super::clients::kill_container(container);
            }
        }
        for id in &ids {
            let ended = self.containers.get(id).map(|container| wait_limited(container.pidfd.as_fd()));
            if ended.is_some() {
                self.container_ended(id);
            }
        }
    }

    /// Ends everything; the loop stops after this.
    pub fn stop(&mut self) {
        self.stop_containers();
        if let Some(pause) = self.pause.take() {
            let killed = linux::process::signal(pause.pidfd.as_fd(), linux::process::KILL);
            if killed.and_then(|()| linux::process::wait(pause.pidfd.as_fd())).is_err() {
                eprintln!("the pause process could not be killed");
            }
            let cgroup = Cgroup::new(&self.hierarchies, &self.spec.pause_cgroup);
            if let Err(error) = cgroup.destroy(KILL_LIMIT) {
                eprintln!("{}", error.text());
            }
        }
        self.stopping = true;
    }
}

fn wait_limited(pidfd: BorrowedFd<'_>) {
    // Whatever comes of it, the caller looks whether the process has ended.
    if let Err(error) = poll(&mut [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)], Some(KILL_LIMIT)) {
        eprintln!("wait for a process: {error}");
    }
}

fn sink_flags(sink: &Sink) -> PollFlags {
    if sink.is_waiting() { PollFlags::OUT } else { PollFlags::empty() }
}

/// A client says nothing after its request; its end is of interest only when it matters.
fn exec_flags(exec: &exec::Running) -> PollFlags {
    if exec.kill_on_close { PollFlags::IN } else { PollFlags::empty() }
}

fn make_namespaces(spec: &SandboxSpec) -> Result<()> {
    let mut kinds = Vec::new();
    kinds.extend(spec.network_namespace.is_some().then_some(Kind::Network));
    kinds.extend(spec.own_ipc.then_some(Kind::Ipc));
    kinds.extend(spec.hostname.is_some().then_some(Kind::Uts));
    if !kinds.is_empty() {
        namespace::unshare(&kinds)?;
    }
    if let Some(file) = &spec.network_namespace {
        namespace::loopback_up()?;
        namespace::bind_own(Kind::Network, file)?;
    }
    if let Some(hostname) = &spec.hostname {
        namespace::set_hostname(hostname)?;
    }
    if let Some(shm) = &spec.shm {
        fs::create_dir_all(shm).with_context(|| format!("make {}", shm.display()))?;
        let size = format!("size={}", defaults::SHM_BYTES);
        let safe = Attributes { no_suid: true, no_exec: true, no_dev: true, ..Attributes::default() };
        mount::mount("tmpfs", "shm", shm, &["mode=1777", &size], safe)?;
    }
    for (name, value) in &spec.sysctls {
        set_sysctl(name, value)?;
    }
    Ok(())
}

fn set_sysctl(name: &str, value: &str) -> Result<()> {
    // Dots separate, and slashes stand for dots within a part, as with an interface called `eth0.1`.
    let swapped: String = name
        .chars()
        .map(|c| {
            if c == '.' {
                '/'
            } else if c == '/' {
                '.'
            } else {
                c
            }
        })
        .collect();
    fs::write(Path::new("/proc/sys").join(swapped), value)
        .with_context(|| format!("set the sysctl {name}={value}"))
}

fn start_pause(spec: &SandboxSpec, hierarchies: &Arc<Hierarchies>) -> Result<Pause> {
    let cgroup = Cgroup::new(hierarchies, &spec.pause_cgroup);
    cgroup.create()?;
    let directory = cgroup.open_unified()?;
    let options = ForkOptions { cgroup: directory.as_ref().map(|fd| fd.as_fd()), new_pid_namespace: true };
    match linux::process::fork(&options)? {
        Forked::Child => {
            let prepared = linux::process::forbid_inspection()
                .and_then(|()| cgroup.enter_v1())
                .and_then(|()| linux::process::detach())
                .and_then(|()| linux::process::set_name(c"pause"))
                .and_then(|()| super::forget_standard_streams());
            if prepared.is_err() {
                linux::process::exit_now(1);
            }
            linux::process::close_all_but_standard();
            linux::process::reap_forever()
        }
        Forked::Parent { pid, pidfd } => {
            let pids = namespace::of_process(pid, Kind::Pid)?;
            Ok(Pause { pidfd, pids })
        }
    }
}

/// The address of a socket has 108 bytes, so it is bound by its name in its directory.
fn listen(path: &Path) -> Result<UnixListener> {
    remove_file(path)?;
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput)).context("the socket needs a full path");
    };
    std::env::set_current_dir(directory).with_context(|| format!("enter {}", directory.display()))?;
    let listener = UnixListener::bind(name).with_context(|| format!("listen at {}", path.display()))?;
    fs::set_permissions(name, fs::Permissions::from_mode(0o600)).context("protect the socket")?;
    std::env::set_current_dir("/").context("leave the directory")?;
    Ok(listener)
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
