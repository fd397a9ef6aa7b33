//! Requests to the monitor, one per connection.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::child::Streams;
use super::exec;
use super::log::Log;
use super::output::Output;
use super::pod::{Pod, Running};
use super::start::{self, PidNamespace};
use crate::ContainerState;
use crate::protocol::{self, Exec, Reply, Request};
use crate::record::{self, StateRecord};
use crate::spec::{ContainerSpec, Processes};

/// A client that does not send its request at once, or does not take its answer, is given up.
const CLIENT_LIMIT: Duration = Duration::from_secs(5);

impl Pod {
    /// Takes one connection, its request, and answers.
    pub fn accept(&mut self) {
        let Ok((client, _)) = self.listener.accept() else { return };
        let limit = Some(CLIENT_LIMIT);
        if client.set_read_timeout(limit).and_then(|()| client.set_write_timeout(limit)).is_err() {
            return;
        }
        if let Ok(Some((request, fds))) = protocol::receive::<Request>(&client) {
            self.answer(client, request, fds);
        }
    }

    fn answer(&mut self, client: UnixStream, request: Request, fds: Vec<OwnedFd>) {
        let reply = match request {
            Request::Subscribe => {
                if protocol::send(&client, &Reply::Ok, &[]).is_ok() {
                    self.subscribers.push(client);
                }
                return;
            }
            Request::Exec(request) => return self.exec(client, request, fds),
            Request::Attach { container, stdin, stdout, stderr } => {
                return self.attach(&client, &container, [stdin, stdout, stderr], fds);
            }
            Request::Socket { version_6 } => return open_socket(&client, version_6),
            Request::Start { directory } => self.start(&directory),
            Request::Signal { container, signal } => self.signal(&container, signal),
            Request::Kill { container } => self.kill(&container),
            Request::ReopenLog { container } => self.reopen_log(&container),
            Request::Stop => {
                self.stop();
                Reply::Ok
            }
        };
        answer(&client, &reply, &[]);
    }

    fn start(&mut self, directory: &Path) -> Reply {
        let spec: ContainerSpec = match record::read(directory, record::SPEC) {
            Ok(Some(spec)) => spec,
            Ok(None) => return failed("the container's specification is missing"),
            Err(error) => return failed(format!("read the container's specification: {error}")),
        };
        if let Some(running) = self.containers.get(&spec.id) {
            return Reply::Started { pid: running.pid, started_at: running.started_at };
        }
        match self.try_start(&spec) {
            Ok(running) => {
                let (pid, started_at) = (running.pid, running.started_at);
                self.containers.insert(spec.id.clone(), running);
                Reply::Started { pid, started_at }
            }
            Err(message) => {
                self.record_failed_start(&spec, &message);
                failed(message)
            }
        }
    }

    fn try_start(&mut self, spec: &ContainerSpec) -> Result<Running, String> {
        start::prepare_directory(spec).map_err(|error| format!("prepare the root file system: {error}"))?;
        let log = spec.log_path.as_deref().map(Log::open).transpose();
        let log = log.map_err(|error| format!("open the log: {error}"))?;
        let cgroup = start::make_cgroup(spec, &self.hierarchies)?;
        let target;
        let pids = match &spec.processes {
            Processes::Own => PidNamespace::New,
            Processes::Host => PidNamespace::Host,
            Processes::Pod => {
                let pause = self.pause.as_ref().ok_or("the pod's process namespace is gone")?;
                PidNamespace::Existing { theirs: &pause.pids, own: &self.own_pids }
            }
            Processes::Of(id) => {
                let of =
                    self.containers.get(id).ok_or_else(|| format!("target container {id} is not running"))?;
                target = start::pid_namespace_of(of.pid)?;
                PidNamespace::Existing { theirs: &target, own: &self.own_pids }
            }
        };
        let (streams, stdin, readers) = make_streams(spec)?;
        let started_at = self.world.now();
        let process = start::start(spec, &cgroup, streams, pids)?;
        let (outputs, stdin) = connect_outputs(readers, stdin, process.terminal.as_ref(), spec)?;
        let running = Running {
            spec: spec.clone(),
            cgroup,
            pid: process.pid,
            pidfd: process.pidfd,
            started_at,
            log,
            outputs,
            stdin,
            terminal: process.terminal,
        };
        let state = StateRecord { state: ContainerState::Running { started_at }, pid: Some(process.pid) };
        record::write(&spec.directory, record::STATE, &state)
            .map_err(|error| format!("write the state: {error}"))?;
        Ok(running)
    }

    fn record_failed_start(&mut self, spec: &ContainerSpec, message: &str) {
        let state = ContainerState::Exited {
            started_at: jiff::Timestamp::UNIX_EPOCH,
            finished_at: self.world.now(),
            exit_code: 128,
            signal: 0,
            reason: "StartError".into(),
            message: message.into(),
        };
        self.record_end(spec, StateRecord { state, pid: None });
        let cgroup = linux::cgroup::Cgroup::new(&self.hierarchies, &spec.cgroup);
        if let Err(error) = cgroup.destroy(super::pod::KILL_LIMIT) {
            eprintln!("{}", error.text());
        }
    }

    fn signal(&self, id: &str, signal: i32) -> Reply {
        if let Some(container) = self.containers.get(id)
            && let Err(error) = linux::process::signal(container.pidfd.as_fd(), signal)
        {
            return failed(format!("send signal {signal}: {error}"));
        }
        Reply::Ok
    }

    fn kill(&self, id: &str) -> Reply {
        if let Some(container) = self.containers.get(id) {
            kill_container(container);
        }
        Reply::Ok
    }

    fn reopen_log(&mut self, id: &str) -> Reply {
        let Some(container) = self.containers.get_mut(id) else { return Reply::NotRunning };
        match container.log.as_mut().map_or(Ok(()), Log::reopen) {
            Ok(()) => Reply::Ok,
            Err(error) => failed(format!("open the log again: {error}")),
        }
    }

    fn exec(&mut self, client: UnixStream, request: Exec, fds: Vec<OwnedFd>) {
        let Some(container) = self.containers.get(&request.container) else {
            return answer(&client, &Reply::NotRunning, &[]);
        };
        let streams = match request.tty {
            true => Streams::Terminal { size: request.size },
            false => pipes(&request, fds),
        };
        let Running { spec, pid, cgroup, .. } = container;
        match exec::start(&request, streams, spec, *pid, cgroup, &self.own_pids) {
            Ok(process) => {
                let started = Reply::Started { pid: process.pid, started_at: self.world.now() };
                let terminal: Vec<_> = process.terminal.iter().map(|fd| fd.as_fd()).collect();
                answer(&client, &started, &terminal);
                let kill_on_close = request.kill_on_close;
                self.execs.push(exec::Running {
                    pid: process.pid,
                    pidfd: process.pidfd,
                    client,
                    kill_on_close,
                });
            }
            Err(message) => answer(&client, &failed(message), &[]),
        }
    }
}

/// The descriptors in the order of the streams that were asked for.
fn pipes(request: &Exec, fds: Vec<OwnedFd>) -> Streams {
    let mut fds = fds.into_iter();
    let mut next = |wanted: bool| if wanted { fds.next() } else { None };
    Streams::Pipes([next(request.stdin), next(request.stdout), next(request.stderr)])
}

type Readers = [Option<OwnedFd>; 2];

/// The child's ends, the end that stdin is written to, and the ends that output is read from.
fn make_streams(spec: &ContainerSpec) -> Result<(Streams, Option<OwnedFd>, Readers), String> {
    if spec.tty {
        return Ok((Streams::Terminal { size: None }, None, [None, None]));
    }
    let pipe = || linux::terminal::pipe().map_err(|error| format!("make a pipe: {error}"));
    let (out_reader, out_writer) = pipe()?;
    let (err_reader, err_writer) = pipe()?;
    let stdin = spec.stdin.then(pipe).transpose()?;
    let (in_reader, in_writer) = stdin.map_or((None, None), |(reader, writer)| (Some(reader), Some(writer)));
    let streams = Streams::Pipes([in_reader, Some(out_writer), Some(err_writer)]);
    Ok((streams, in_writer, [Some(out_reader), Some(err_reader)]))
}

fn connect_outputs(
    readers: Readers,
    stdin: Option<OwnedFd>,
    terminal: Option<&OwnedFd>,
    spec: &ContainerSpec,
) -> Result<(BTreeMap<usize, Output>, Option<OwnedFd>), String> {
    let text = |error: std::io::Error| format!("connect the streams: {error}");
    if let Some(terminal) = terminal {
        let reader = terminal.try_clone().map_err(text)?;
        let stdin = if spec.stdin { Some(terminal.try_clone().map_err(text)?) } else { None };
        let output = Output::new(reader, "stdout").map_err(text)?;
        return Ok((BTreeMap::from([(0, output)]), stdin));
    }
    let mut outputs = BTreeMap::new();
    for (at, (reader, stream)) in readers.into_iter().zip(["stdout", "stderr"]).enumerate() {
        if let Some(reader) = reader {
            outputs.insert(at, Output::new(reader, stream).map_err(text)?);
        }
    }
    Ok((outputs, stdin))
}

/// Kills every process of a container: those in its cgroup, and its main process wherever it is.
pub fn kill_container(container: &Running) {
    if let Err(error) = linux::process::signal(container.pidfd.as_fd(), linux::process::KILL) {
        eprintln!("kill {}: {error}", container.pid);
    }
    if let Err(error) = container.cgroup.kill() {
        eprintln!("{}", error.text());
    }
}

/// Kills a command with the processes of its session that did not leave its process group.
pub fn kill_session(pid: u32) {
    if let Err(error) = linux::process::kill_group(pid) {
        eprintln!("kill the process group {pid}: {error}");
    }
}

fn open_socket(client: &UnixStream, version_6: bool) {
    match linux::socket::tcp(version_6) {
        Ok(socket) => answer(client, &Reply::Ok, &[socket.as_fd()]),
        Err(error) => answer(client, &failed(format!("make a socket: {error}")), &[]),
    }
}

pub fn failed(message: impl Into<String>) -> Reply {
    Reply::Failed { message: message.into() }
}

/// Answers; a client that is gone or does not listen has no use for it.
pub fn answer(client: &UnixStream, reply: &Reply, fds: &[std::os::fd::BorrowedFd<'_>]) {
    if let Err(error) = protocol::send(client, reply, fds) {
        eprintln!("answer a client: {error}");
    }
}
