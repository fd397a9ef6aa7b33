//! Talking to monitors: one connection per request, one that stays for the events.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::Stdio;
use std::sync::{Arc, Weak};

use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use super::{Inner, Sandbox, io_error, short};
use crate::protocol::{self, Reply, Request};
use crate::record::{self, StateRecord};
use crate::spec::SandboxSpec;
use crate::{ContainerId, ContainerState, RuntimeError, RuntimeEvent, SandboxId};

/// The most that a monitor says when it cannot start.
const MAX_COMPLAINT_BYTES: u64 = 64 * 1024;

/// A connection to a monitor.
pub(super) struct Connection {
    stream: UnixStream,
}

impl Connection {
    /// Sends a request and its descriptors.
    pub async fn send(&mut self, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = protocol::encode(request)?;
        let sent = loop {
            self.stream.writable().await?;
            let attempt = || linux::socket::send(self.stream.as_fd(), &bytes, fds);
            match self.stream.try_io(Interest::WRITABLE, attempt) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                answer => break answer?,
            }
        };
        self.stream.write_all(&bytes[sent..]).await
    }

    /// The next frame; an error when the monitor is gone.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> io::Result<(T, Vec<OwnedFd>)> {
        let (mut header, mut fds) = ([0; 4], Vec::new());
        self.fill(&mut header, &mut fds).await?;
        let mut body = vec![0; protocol::frame_length(header)?];
        self.fill(&mut body, &mut fds).await?;
        Ok((serde_json::from_slice(&body)?, fds))
    }

    async fn fill(&self, mut bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.readable().await?;
            let attempt = self
                .stream
                .try_io(Interest::READABLE, || linux::socket::receive(self.stream.as_fd(), bytes, fds));
            match attempt {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => bytes = &mut bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Inner {
    /// Starts the monitor of a sandbox and waits until it serves.
    pub(super) async fn spawn_monitor(&self, id: &SandboxId, spec: &SandboxSpec) -> Result<(), RuntimeError> {
        let directory = self.sandbox_directory(id);
        record::write(&directory, record::MONITOR, spec)
            .map_err(|source| io_error("write the monitor's configuration", source))?;
        let complaints = std::fs::File::create(directory.join("monitor.log"))
            .map_err(|source| io_error("make the monitor's log", source))?;
        let mut child = tokio::process::Command::new(&self.config.helper)
            .arg0(crate::monitor::NAME)
            .arg(&directory)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(complaints)
            .spawn()
            .map_err(|source| io_error(format!("start {}", self.config.helper.display()), source))?;
        let mut said = Vec::new();
        if let Some(out) = child.stdout.take() {
            out.take(MAX_COMPLAINT_BYTES)
                .read_to_end(&mut said)
                .await
                .map_err(|source| io_error("listen to the monitor", source))?;
        }
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        // Whoever started it has to collect it in the end; when this process ends first, init does.
        tokio::spawn(async move { child.wait().await });
        if said == crate::monitor::READY {
            Ok(())
        } else {
            Err(RuntimeError::Start(format!("set up the sandbox: {said}")))
        }
    }

    /// Opens a connection to the monitor of a sandbox.
    pub(super) async fn connect(&self, id: &SandboxId) -> io::Result<Connection> {
        // The address of a socket has 108 bytes; this one is always short.
        let path = format!("/proc/self/fd/{}/{}.sock", self.run.as_raw_fd(), short(&id.0));
        Ok(Connection { stream: UnixStream::connect(path).await? })
    }

    /// Asks the monitor of a sandbox and waits for its answer.
    pub(super) async fn ask(
        &self,
        id: &SandboxId,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Reply, Vec<OwnedFd>, Connection), RuntimeError> {
        let what = || format!("ask the monitor of sandbox {}", id.0);
        let mut connection = self.connect(id).await.map_err(|source| io_error(what(), source))?;
        connection.send(request, fds).await.map_err(|source| io_error(what(), source))?;
        let (reply, fds) = connection.receive().await.map_err(|source| io_error(what(), source))?;
        Ok((reply, fds, connection))
    }

    /// Listens to the monitor's events from now on; to be called once per sandbox.
    pub(super) async fn subscribe(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> io::Result<()> {
        let connection = self.open_subscription(&sandbox.id).await?;
        tokio::spawn(follow(Arc::downgrade(self), sandbox.clone(), connection));
        Ok(())
    }

    async fn open_subscription(&self, id: &SandboxId) -> io::Result<Connection> {
        let mut connection = self.connect(id).await?;
        connection.send(&Request::Subscribe, &[]).await?;
        connection.receive::<Reply>().await?;
        Ok(connection)
    }

    /// Takes over what the monitor wrote down before it answered the subscription: ends, and starts that an earlier
    /// process asked for without waiting for the answer.
    pub(super) fn read_states(&self, sandbox: &Sandbox) -> Result<(), RuntimeError> {
        for container in self.containers_of(&sandbox.id) {
            let state = record::read::<StateRecord>(&self.container_directory(&container.id), record::STATE)
                .map_err(|source| io_error("read the container's state", source))?;
            let Some(state) = state else { continue };
            if state.is_exited() && !container.current().is_exited() {
                self.container_exited(sandbox, &container.id, state);
            } else if state.is_running() {
                container.state.send_if_modified(|current| {
                    let first = current.state == ContainerState::Created;
                    if first {
                        *current = state;
                    }
                    first
                });
            }
        }
        Ok(())
    }

    fn container_exited(&self, sandbox: &Sandbox, id: &ContainerId, record: StateRecord) {
        let Ok(container) = self.container(id) else { return };
        container.state.send_replace(record);
        self.send(RuntimeEvent::Exited {
            sandbox: sandbox.id.clone(),
            container: id.clone(),
            pod: sandbox.pod(),
        });
    }

    /// The monitor ended, by itself after it was told to, or because somebody killed it. What it managed cannot be
    /// managed any more and is ended too.
    async fn monitor_gone(&self, sandbox: &Arc<Sandbox>) {
        if !sandbox.alive.send_replace(false) {
            return;
        }
        if let Err(error) = self.bury(sandbox).await {
            tracing::warn!(sandbox = sandbox.id.0, %error, "clean up after a monitor that is gone");
        }
        self.send(RuntimeEvent::SandboxStopped { sandbox: sandbox.id.clone(), pod: sandbox.pod() });
    }
}

/// Passes on what a monitor tells, until it is gone. A monitor that only dropped the connection, because nobody took
/// what it said for too long, is asked again.
async fn follow(runtime: Weak<Inner>, sandbox: Arc<Sandbox>, mut connection: Connection) {
    loop {
        while let Ok((reply, _)) = connection.receive::<Reply>().await {
            let Some(runtime) = runtime.upgrade() else { return };
            if let Reply::Exited { container, record } = reply {
                runtime.container_exited(&sandbox, &ContainerId(container), record);
            }
        }
        let Some(runtime) = runtime.upgrade() else { return };
        match runtime.open_subscription(&sandbox.id).await {
            Ok(again) => connection = again,
            Err(_) => return runtime.monitor_gone(&sandbox).await,
        }
        if let Err(error) = runtime.read_states(&sandbox) {
            tracing::warn!(sandbox = sandbox.id.0, %error, "learn what ended meanwhile");
        }
    }
}
