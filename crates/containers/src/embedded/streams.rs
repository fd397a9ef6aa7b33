//! Streams of commands and attached clients. The descriptors lead straight to the process; nothing is copied here.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

use super::containers::unexpected;
use super::{Inner, io_error};
use crate::protocol::{Exec, Reply, Request};
use crate::{ContainerId, Duplex, ExecResult, RuntimeError, SandboxId, StreamRequest, Streams};

/// What upstream's probes keep of each stream.
const MAX_CAPTURE_BYTES: usize = 16 * 1024;
/// Sizes that were not applied yet; only the last matters.
const RESIZE_QUEUE: usize = 4;

/// The ends of pipes that stay here, and those that go to the process.
struct Pipes {
    stdin: Option<Stdin>,
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
    theirs: Vec<OwnedFd>,
}

impl Pipes {
    fn open(request: &StreamRequest, with_stdin: bool) -> Result<Self, RuntimeError> {
        let open = || -> io::Result<Self> {
            let mut theirs = Vec::new();
            let mut stdin = None;
            if request.stdin && with_stdin {
                let (reader, writer) = linux::terminal::pipe()?;
                theirs.push(reader);
                stdin = Some(Stdin(Some(pipe::Sender::from_owned_fd(writer)?)));
            }
            let mut output = |wanted: bool| -> io::Result<Option<pipe::Receiver>> {
                if !wanted {
                    return Ok(None);
                }
                let (reader, writer) = linux::terminal::pipe()?;
                theirs.push(writer);
                pipe::Receiver::from_owned_fd(reader).map(Some)
            };
            let (stdout, stderr) = (output(request.stdout)?, output(request.stderr)?);
            Ok(Self { stdin, stdout, stderr, theirs })
        };
        open().map_err(|source| io_error("make pipes", source))
    }
}

impl Inner {
    pub(super) async fn exec(
        &self,
        id: &ContainerId,
        request: &StreamRequest,
    ) -> Result<Streams, RuntimeError> {
        if request.tty {
            self.exec_terminal(id, request).await
        } else {
            self.exec_pipes(id, request, false).await
        }
    }

    async fn exec_pipes(
        &self,
        id: &ContainerId,
        request: &StreamRequest,
        kill_on_close: bool,
    ) -> Result<Streams, RuntimeError> {
        let pipes = Pipes::open(request, true)?;
        let (_, exit) = self.start_exec(id, request, kill_on_close, &pipes.theirs).await?;
        let (resize, _) = mpsc::channel(1);
        Ok(Streams {
            stdin: pipes.stdin.map(|stdin| Box::pin(stdin) as _),
            stdout: pipes.stdout.map(|stream| Box::pin(stream) as _),
            stderr: pipes.stderr.map(|stream| Box::pin(stream) as _),
            resize,
            exit,
        })
    }

    async fn exec_terminal(
        &self,
        id: &ContainerId,
        request: &StreamRequest,
    ) -> Result<Streams, RuntimeError> {
        let (terminal, exit) = self.start_exec(id, request, false, &[]).await?;
        let terminal = terminal.ok_or_else(|| RuntimeError::Start("the command got no terminal".into()))?;
        let terminal = Terminal::new(terminal).map_err(|source| io_error("use the terminal", source))?;
        Ok(Streams {
            stdin: request.stdin.then(|| Box::pin(terminal.clone()) as _),
            stdout: request.stdout.then(|| Box::pin(terminal.clone()) as _),
            stderr: None,
            resize: terminal.resizer(),
            exit,
        })
    }

    async fn start_exec(
        &self,
        id: &ContainerId,
        request: &StreamRequest,
        kill_on_close: bool,
        fds: &[OwnedFd],
    ) -> Result<(Option<OwnedFd>, oneshot::Receiver<i32>), RuntimeError> {
        let container = self.running(id)?;
        let exec = Request::Exec(Exec {
            container: id.0.clone(),
            arguments: request.command.clone(),
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            tty: request.tty,
            size: request.size,
            kill_on_close,
        });
        let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        let (reply, mut received, mut connection) = self.ask(&container.sandbox(), &exec, &fds).await?;
        match reply {
            Reply::Started { .. } => {}
            Reply::NotRunning => return Err(RuntimeError::NotRunning(id.0.clone())),
            Reply::Failed { message } => return Err(RuntimeError::Start(message)),
            reply => return Err(unexpected("run a command", &reply)),
        }
        let (mut ended, exit) = oneshot::channel();
        tokio::spawn(async move {
            tokio::select! {
                answer = connection.receive::<Reply>() => {
                    // Without an answer the monitor is gone, and the command with it.
                    let code = match answer { Ok((Reply::ExecExited { code }, _)) => code, _ => 137 };
                    // Whoever asked may have left.
                    ended.send(code).ok();
                }
                // Ending the connection ends a command that was started to be killed with it.
                () = ended.closed(), if kill_on_close => {}
            }
        });
        Ok((received.pop(), exit))
    }

    pub(super) async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        limit: Duration,
    ) -> Result<ExecResult, RuntimeError> {
        let request = StreamRequest {
            command: command.to_vec(),
            stdout: true,
            stderr: true,
            ..StreamRequest::default()
        };
        let streams = self.exec_pipes(id, &request, true).await?;
        let collected = async {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let (mut stdout, mut stderr) = (streams.stdout, streams.stderr);
            let mut exit = streams.exit;
            let code = {
                let reading =
                    async { tokio::join!(capture(&mut stdout, &mut out), capture(&mut stderr, &mut err)) };
                tokio::pin!(reading);
                tokio::select! {
                    // What it left running may hold the streams open for ever, so the end of the command decides.
                    code = &mut exit => { drain(reading.as_mut()).await; code }
                    _ = &mut reading => exit.await,
                }
            };
            ExecResult { exit_code: code.unwrap_or(137), stdout: out, stderr: err }
        };
        tokio::time::timeout(limit, collected).await.map_err(|_| RuntimeError::Timeout(limit))
    }

    pub(super) async fn attach(
        &self,
        id: &ContainerId,
        request: &StreamRequest,
    ) -> Result<Streams, RuntimeError> {
        let container = self.running(id)?;
        let tty = container.record.lock().config.tty;
        let request = StreamRequest { stderr: request.stderr && !tty, ..request.clone() };
        let mut pipes = Pipes::open(&request, false)?;
        let attach = Request::Attach {
            container: id.0.clone(),
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
        };
        let fds: Vec<_> = pipes.theirs.iter().map(|fd| fd.as_fd()).collect();
        let (reply, mut received, _) = self.ask(&container.sandbox(), &attach, &fds).await?;
        drop(fds);
        pipes.theirs.clear();
        match reply {
            Reply::Ok => {}
            Reply::NotRunning => return Err(RuntimeError::NotRunning(id.0.clone())),
            reply => return Err(unexpected("attach", &reply)),
        }
        let (stdin, resize) = attached_input(received.pop(), tty, request.stdin)?;
        let (ended, exit) = oneshot::channel();
        let mut state = container.state.subscribe();
        tokio::spawn(async move {
            // The sender lives as long as the container is known; after that it has ended too.
            drop(state.wait_for(|state| !state.is_running()).await);
            ended.send(0).ok();
        });
        Ok(Streams {
            stdin,
            stdout: pipes.stdout.map(|stream| Box::pin(stream) as _),
            stderr: pipes.stderr.map(|stream| Box::pin(stream) as _),
            resize,
            exit,
        })
    }

    pub(super) async fn port_forward(
        &self,
        id: &SandboxId,
        port: u16,
    ) -> Result<Box<dyn Duplex>, RuntimeError> {
        let mut last = None;
        for address in
            [std::net::IpAddr::from([127, 0, 0, 1]), std::net::IpAddr::from(std::net::Ipv6Addr::LOCALHOST)]
        {
            let request = Request::Socket { version_6: address.is_ipv6() };
            let (reply, mut fds, _) = self.ask(id, &request, &[]).await?;
            let Some(fd) = fds.pop() else { return Err(unexpected("make a socket", &reply)) };
            let socket = tokio::net::TcpSocket::from_std_stream(std::net::TcpStream::from(fd));
            match socket.connect((address, port).into()).await {
                Ok(stream) => return Ok(Box::new(stream)),
                Err(error) => last = last.or(Some(error)),
            }
        }
        let cause = last.map_or_else(String::new, |error| error.to_string());
        Err(RuntimeError::Other {
            what: format!("failed to connect to localhost:{port} inside the sandbox"),
            cause,
        })
    }
}

type Input = Option<Pin<Box<dyn AsyncWrite + Send>>>;

fn attached_input(
    fd: Option<OwnedFd>,
    tty: bool,
    stdin: bool,
) -> Result<(Input, mpsc::Sender<(u16, u16)>), RuntimeError> {
    let failed = |source| io_error("use the container's input", source);
    match fd {
        Some(fd) if tty => {
            let terminal = Terminal::new(fd).map_err(failed)?;
            let resize = terminal.resizer();
            Ok((stdin.then(|| Box::pin(terminal) as _), resize))
        }
        Some(fd) => {
            let sender = pipe::Sender::from_owned_fd(fd).map_err(failed)?;
            Ok((Some(Box::pin(Stdin(Some(sender)))), mpsc::channel(1).0))
        }
        None => Ok((None, mpsc::channel(1).0)),
    }
}

/// Keeps the first bytes and reads on to the end, so that the writer is not held up.
async fn capture(stream: &mut Option<Pin<Box<dyn AsyncRead + Send>>>, kept: &mut Vec<u8>) {
    let Some(stream) = stream else { return };
    let mut chunk = vec![0; 4096];
    // A pipe that cannot be read is a pipe at its end.
    while let Ok(count @ 1..) = stream.read(&mut chunk).await {
        let space = MAX_CAPTURE_BYTES.saturating_sub(kept.len());
        kept.extend_from_slice(&chunk[..count.min(space)]);
    }
}

/// Takes what is there already, without waiting for more.
async fn drain<F: Future>(mut reading: Pin<&mut F>) {
    // A poll takes all that the pipes hold; tokio's cooperative budget makes that a few turns.
    for _ in 0..16 {
        let once = std::future::poll_fn(|context| Poll::Ready(reading.as_mut().poll(context).is_ready()));
        if tokio::task::unconstrained(once).await {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// A pipe that is closed when it is shut down, so that the process sees the end of its input.
struct Stdin(Option<pipe::Sender>);

impl AsyncWrite for Stdin {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Some(sender) => Pin::new(sender).poll_write(context, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0 = None;
        Poll::Ready(Ok(()))
    }
}

/// The controlling side of a terminal.
#[derive(Clone)]
struct Terminal(Arc<AsyncFd<std::fs::File>>);

impl Terminal {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self(Arc::new(linux::terminal::watch(fd)?)))
    }

    /// Applies the sizes that are sent, as long as somebody sends them.
    fn resizer(&self) -> mpsc::Sender<(u16, u16)> {
        let (sender, mut sizes) = mpsc::channel(RESIZE_QUEUE);
        let terminal = self.clone();
        tokio::spawn(async move {
            while let Some((columns, rows)) = sizes.recv().await {
                if linux::terminal::resize(terminal.0.get_ref().as_fd(), columns, rows).is_err() {
                    return;
                }
            }
        });
        sender
    }
}

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(context))?;
            let read = guard.try_io(|fd| io::Read::read(&mut fd.get_ref(), buffer.initialize_unfilled()));
            match read {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if linux::terminal::is_end(&error) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(context))?;
            if let Ok(written) = guard.try_io(|fd| io::Write::write(&mut fd.get_ref(), bytes)) {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
