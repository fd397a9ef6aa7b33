//! exec and attach, the server's side.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::channels::{self, Channel, Incoming, Input, Outgoing};
use crate::exit::{self, Sizes};
use crate::{Connection, Reader, StreamError, Writer};

/// How much output is read at once, in bytes.
const OUTPUT: usize = 16 << 10;

/// How long a command with a terminal waits for the client to say how large that is. Those who say it at all do so at
/// once.
const SIZE_WITHIN: Duration = Duration::from_millis(250);

/// Which channels the client asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// With a terminal there is no stderr, and the client may resize it.
    pub tty: bool,
}

impl Wanted {
    /// The channels that a client opens.
    pub(crate) fn channels(&self, can_resize: bool) -> Vec<Channel> {
        let mut channels = vec![Channel::Error];
        channels.extend(self.stdin.then_some(Channel::Stdin));
        channels.extend(self.stdout.then_some(Channel::Stdout));
        channels.extend((self.stderr && !self.tty).then_some(Channel::Stderr));
        channels.extend((self.tty && can_resize).then_some(Channel::Resize));
        channels
    }

    pub(crate) fn first_output(&self) -> Channel {
        match self {
            Self { stdout: true, .. } => Channel::Stdout,
            Self { stderr: true, tty: false, .. } => Channel::Stderr,
            _ => Channel::Error,
        }
    }
}

/// The ends of a running command's streams.
pub struct Process {
    /// Dropped when the client closes its input.
    pub stdin: Option<Writer>,
    pub stdout: Option<Reader>,
    pub stderr: Option<Reader>,
    /// Columns and rows of the client's terminal.
    pub resize: Option<mpsc::Sender<(u16, u16)>>,
    /// The exit code, or why it is not known.
    pub exit: Pin<Box<dyn Future<Output = Result<i32, String>> + Send>>,
}

impl Connection {
    /// Starts a command once the client's channels are open and carries its streams until it has ended and all its
    /// output is sent. When the client goes away first, the process's streams are dropped and the answer is
    /// [`StreamError::Disconnected`]. Why a command cannot be started is the client's to hear, as an internal error
    /// with the text that `start` gives. `start` is told the columns and rows of the client's terminal if the client
    /// says them before anything else, so that a program finds its terminal as large as it is.
    pub async fn remote_command<F>(
        self,
        wanted: Wanted,
        start: impl FnOnce(Option<(u16, u16)>) -> F,
    ) -> Result<(), StreamError>
    where
        F: Future<Output = Result<Process, String>> + Send,
    {
        let (mut incoming, outgoing) = channels::open(self, &wanted).await?;
        let mut early = Early::default();
        let size = if wanted.tty { early.size(&mut incoming).await? } else { None };
        match start(size).await {
            Ok(process) => carry(&mut incoming, early, &outgoing, process).await?,
            Err(text) => {
                // Clients wait for the end of all output before they look at the status.
                outgoing.end(Channel::Stdout).await?;
                outgoing.end(Channel::Stderr).await?;
                outgoing.status(&exit::failed(&text)).await?;
            }
        }
        outgoing.finish(incoming).await
    }
}

/// What the client said before its command was started.
#[derive(Default)]
struct Early {
    sizes: Sizes,
    input: Option<Input>,
}

impl Early {
    async fn size(&mut self, incoming: &mut Incoming) -> Result<Option<(u16, u16)>, StreamError> {
        let deadline = tokio::time::Instant::now() + SIZE_WITHIN;
        loop {
            let Ok(input) = tokio::time::timeout_at(deadline, incoming.next()).await else { return Ok(None) };
            match input?.ok_or(StreamError::Disconnected)? {
                Input::Data(Channel::Resize, bytes) => {
                    if let Some(size) = self.sizes.push(&bytes) {
                        return Ok(Some(size));
                    }
                }
                input => {
                    self.input = Some(input);
                    return Ok(None);
                }
            }
        }
    }
}

async fn carry(
    incoming: &mut Incoming,
    early: Early,
    outgoing: &Outgoing,
    process: Process,
) -> Result<(), StreamError> {
    let Process { stdin, stdout, stderr, resize, exit } = process;
    let ended = async {
        tokio::try_join!(pump(stdout, outgoing, Channel::Stdout), pump(stderr, outgoing, Channel::Stderr))?;
        let status = match exit.await {
            Ok(code) => exit::exited(code),
            Err(text) => exit::failed(&text),
        };
        outgoing.status(&status).await
    };
    tokio::select! {
        // Output that is there is sent even to a client that has said all it had to say.
        biased;
        result = ended => result,
        result = feed(incoming, early, stdin, resize) => result.and(Err(StreamError::Disconnected)),
    }
}

/// Sends a stream of output until its end.
async fn pump(from: Option<Reader>, outgoing: &Outgoing, channel: Channel) -> Result<(), StreamError> {
    if let Some(mut from) = from {
        let mut buffer = vec![0; OUTPUT];
        loop {
            match from.read(&mut buffer).await {
                Ok(0) => break,
                Ok(length) => outgoing.send(channel, &buffer[..length]).await?,
                // A terminal whose last process is gone reads as EIO: that is its end.
                Err(error) => {
                    tracing::debug!(%error, ?channel, "output ended");
                    break;
                }
            }
        }
    }
    outgoing.end(channel).await
}

/// Passes on what the client sends until it is gone.
async fn feed(
    incoming: &mut Incoming,
    early: Early,
    mut stdin: Option<Writer>,
    resize: Option<mpsc::Sender<(u16, u16)>>,
) -> Result<(), StreamError> {
    let Early { mut sizes, input: mut first } = early;
    loop {
        let input = match first.take() {
            Some(input) => input,
            None => match incoming.next().await? {
                Some(input) => input,
                None => return Ok(()),
            },
        };
        match input {
            Input::Data(Channel::Stdin, bytes) => {
                let Some(writer) = &mut stdin else { continue };
                let written = async {
                    writer.write_all(&bytes).await?;
                    writer.flush().await
                };
                if written.await.is_err() {
                    // The process reads no more; what the client still sends goes nowhere.
                    stdin = None;
                }
            }
            Input::End(Channel::Stdin) => {
                if let Some(mut writer) = stdin.take()
                    && let Err(error) = writer.shutdown().await
                {
                    tracing::debug!(%error, "closing the command's input");
                }
            }
            Input::Data(Channel::Resize, bytes) => {
                if let (Some(resize), Some(size)) = (&resize, sizes.push(&bytes))
                    && resize.try_send(size).is_err()
                {
                    tracing::debug!("a resize of the terminal was dropped: the command does not take them");
                }
            }
            Input::Data(..) | Input::End(_) => {}
        }
    }
}
