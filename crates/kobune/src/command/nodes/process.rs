//! The process of one node.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tokio::net::UnixDatagram;
use tokio::sync::oneshot;

use super::machine::Machine;
use crate::cli::Failure;
use crate::node::this_executable;

/// How long a node may take to stop its pods before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(60);
const SIGINT: i32 = 2;

/// A running node.
pub struct NodeProcess {
    pub name: String,
    pid: u32,
    notified: UnixDatagram,
    exit: oneshot::Receiver<std::io::Result<ExitStatus>>,
    has_ended: bool,
    ended_by_itself: bool,
}

fn failure(error: impl std::error::Error + 'static) -> Failure {
    Failure::chain(&error)
}

impl NodeProcess {
    /// Starts `kobune ARGUMENTS` as that machine. What it prints is printed with its name before it.
    pub fn start(machine: &Machine, arguments: &[OsString]) -> Result<Self, Failure> {
        let socket = machine.data_dir.join("notify");
        match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failure(error)),
            _ => {}
        }
        let notified = UnixDatagram::bind(&socket).map_err(failure)?;
        let mut command = command(machine, arguments)?;
        command.env("NOTIFY_SOCKET", &socket);
        let (name, log) = (machine.name.clone(), machine.name.clone());
        let (started, start) = std::sync::mpsc::channel();
        let (exited, exit) = oneshot::channel();
        // The process dies with the thread that started it, so the thread stays.
        let thread = machine.within(move || {
            let child = linux::process::spawn_bound_to_thread(&mut command)?;
            // Whoever started this waits for the number.
            let _unheard = started.send(child.id());
            let _nobody_waits = exited.send(attend(child, &log));
            Ok(())
        });
        let thread = thread.map_err(failure)?;
        let Ok(pid) = start.recv() else {
            let error = thread.join().map_or_else(|_| "it panicked".to_owned(), said);
            return Err(Failure::new(format!("{name} cannot be started: {error}")));
        };
        Ok(Self { name, pid, notified, exit, has_ended: false, ended_by_itself: false })
    }

    /// Waits until the node is ready; fails when it ends before.
    pub async fn ready(&mut self) -> Result<(), Failure> {
        let mut message = [0; 64];
        tokio::select! {
            length = self.notified.recv(&mut message) => match length {
                Ok(length) if message[..length].starts_with(b"READY=1") => Ok(()),
                Ok(_) => Err(Failure::new(format!("{} says something strange", self.name))),
                Err(error) => Err(failure(error)),
            },
            exit = &mut self.exit => {
                (self.has_ended, self.ended_by_itself) = (true, true);
                Err(self.unexpected(exit))
            }
        }
    }

    /// Waits until the node ends by itself, which it should not.
    pub async fn ended(&mut self) -> Failure {
        let exit = (&mut self.exit).await;
        (self.has_ended, self.ended_by_itself) = (true, true);
        self.unexpected(exit)
    }

    /// Whether it ended without being asked to.
    pub fn ended_by_itself(&self) -> bool {
        self.ended_by_itself
    }

    fn unexpected(&self, exit: Result<std::io::Result<ExitStatus>, oneshot::error::RecvError>) -> Failure {
        let how = match exit {
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "nobody waited for it".to_owned(),
        };
        Failure::new(format!("{} ended: {how}", self.name))
    }

    /// Interrupts the node and waits for its end.
    pub async fn stop(&mut self) -> Result<(), Failure> {
        if self.has_ended {
            return Ok(());
        }
        let process = linux::process::open_pidfd(self.pid).map_err(failure)?;
        linux::process::signal(process.as_fd(), SIGINT).map_err(failure)?;
        self.has_ended = true;
        match tokio::time::timeout(STOP_PATIENCE, &mut self.exit).await {
            Ok(Ok(Ok(status))) if status.success() => Ok(()),
            Ok(exit) => Err(self.unexpected(exit)),
            Err(_) => {
                linux::process::kill(self.pid).map_err(failure)?;
                Err(Failure::new(format!(
                    "{} did not stop within {STOP_PATIENCE:?} and was killed",
                    self.name
                )))
            }
        }
    }
}

/// Why a thread did not start a process.
fn said(outcome: std::io::Result<std::io::Result<()>>) -> String {
    outcome.and_then(|outcome| outcome).err().map_or_else(String::new, |error| error.to_string())
}

/// Runs `kobune ARGUMENTS` as that machine to its end.
pub async fn finish(machine: &Machine, arguments: &[OsString]) -> Result<(), Failure> {
    let mut command = Command::new(this_executable()?);
    command.args(arguments).stdin(Stdio::null());
    let mut run = move || command.status();
    let status = match machine.is_there() {
        true => {
            let thread = machine.within(run).map_err(failure)?;
            thread.join().map_err(|_| Failure::new("a thread panicked"))?.and_then(|status| status)
        }
        false => run(),
    };
    match status.map_err(failure)? {
        status if status.success() => Ok(()),
        status => Err(Failure::new(format!("{} was not removed: {status}", machine.name))),
    }
}

fn command(machine: &Machine, arguments: &[OsString]) -> Result<Command, Failure> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(this_executable()?);
    command.args(arguments);
    command.arg("--data-dir").arg(&machine.data_dir).args(["--node-name", &machine.name]);
    command.args(["--node-ip", &machine.address.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    // Ctrl-C is for the parent, which stops the nodes in order.
    command.process_group(0);
    Ok(command)
}

/// Passes on what the node prints until it ends.
fn attend(mut child: Child, name: &str) -> std::io::Result<ExitStatus> {
    let Some(output) = child.stderr.take() else { return child.wait() };
    let name = name.to_owned();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            eprintln!("{name} {line}");
        }
    });
    let status = child.wait();
    // Monitors hold the other end as well, so it is not waited for.
    drop(reader);
    status
}
