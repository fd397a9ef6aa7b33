//! `exec` and `attach`, and the terminal they take over.

use std::io::IsTerminal;

use machinery::Status;
use rustix::termios::{OptionalActions, Termios};
use streaming::client::{REMOTE_COMMAND_PROTOCOL, Terminal, exit_code, remote_command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::api::with_query;
use crate::selection::Item;
use crate::session::Session;
use crate::{Error, pods};

/// Runs a command in a container.
#[derive(clap::Args)]
pub struct Exec {
    /// POD or TYPE/NAME.
    pod: String,
    #[command(flatten)]
    target: Target,
    /// The command and its arguments.
    #[arg(last = true)]
    command: Vec<String>,
}

/// Attaches to a container's process.
#[derive(clap::Args)]
pub struct Attach {
    /// POD or TYPE/NAME.
    pod: String,
    #[command(flatten)]
    target: Target,
}

#[derive(clap::Args)]
struct Target {
    #[arg(short, long)]
    container: Option<String>,
    /// Pass standard input on.
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Standard input is a terminal.
    #[arg(short = 't', long)]
    tty: bool,
    #[arg(short, long)]
    quiet: bool,
}

/// What is connected besides output.
#[derive(Clone, Copy)]
pub struct Streams {
    pub stdin: bool,
    pub tty: bool,
}

impl Exec {
    pub async fn run(self, session: &Session) -> Result<(), Error> {
        if self.command.is_empty() {
            return Err(Error::usage("you must specify at least one command for the container"));
        }
        let (pod, container) = self.target.find(session, &self.pod).await?;
        let streams = self.target.streams(session)?;
        let mut parameters = vec![("container", container.as_str())];
        parameters.extend(self.command.iter().map(|word| ("command", word.as_str())));
        // An empty argument is an argument too.
        let path = parameters.iter().fold(pod.path("exec"), |path, (name, value)| match value.is_empty() {
            true => format!("{path}&{name}="),
            false => with_query(&path, &[(*name, *value)]),
        });
        stream(session, &path, streams).await
    }
}

impl Attach {
    pub async fn run(self, session: &Session) -> Result<(), Error> {
        let (pod, container) = self.target.find(session, &self.pod).await?;
        let streams = self.target.streams(session)?;
        if streams.tty && !self.target.quiet {
            session.err.line("If you don't see a command prompt, try pressing enter.")?;
        }
        attach(session, &pod, &container, streams).await
    }
}

impl Target {
    async fn find(&self, session: &Session, pod: &str) -> Result<(Item, String), Error> {
        let pod = pods::one(session, pod).await?;
        if let Some(phase @ ("Succeeded" | "Failed")) = pod.object["status"]["phase"].as_str() {
            return Err(Error::usage(format!(
                "cannot exec into a container in a completed pod; current phase is {phase}"
            )));
        }
        let container = pods::default_container(session, &pod.object, self.container.as_deref())?;
        Ok((pod, container))
    }

    fn streams(&self, session: &Session) -> Result<Streams, Error> {
        let mut tty = self.tty;
        if tty && !(self.stdin && std::io::stdin().is_terminal()) {
            session.err.line("Unable to use a TTY - input is not a terminal or the right kind of file")?;
            tty = false;
        }
        Ok(Streams { stdin: self.stdin, tty })
    }
}

/// Attaches to a container of a pod.
pub async fn attach(session: &Session, pod: &Item, container: &str, streams: Streams) -> Result<(), Error> {
    stream(session, &with_query(&pod.path("attach"), &[("container", container)]), streams).await
}

async fn stream(session: &Session, path: &str, streams: Streams) -> Result<(), Error> {
    let flag = |set: bool| if set { "true" } else { "" };
    let path = with_query(
        path,
        &[
            ("stdin", flag(streams.stdin)),
            ("stdout", "true"),
            ("stderr", flag(!streams.tty)),
            ("tty", flag(streams.tty)),
        ],
    );
    let io = session.api.upgrade(&path, REMOTE_COMMAND_PROTOCOL).await?;
    let raw = if streams.tty { Some(Raw::take()?) } else { None };
    let terminal = Terminal {
        stdin: if streams.stdin { Some(Box::pin(tokio::io::stdin())) } else { None },
        stdout: Some(Box::pin(tokio::io::stdout())),
        stderr: if streams.tty { None } else { Some(Box::pin(tokio::io::stderr())) },
        resize: if streams.tty { Some(sizes()?) } else { None },
    };
    let status = remote_command(io, terminal).await;
    drop(raw);
    outcome(&status?)
}

fn outcome(status: &Status) -> Result<(), Error> {
    match exit_code(status) {
        Some(0) => Ok(()),
        Some(code) => Err(Error::Exit(code)),
        None => Err(Error::usage(status.message.clone())),
    }
}

/// The terminal passes everything on while this lives.
struct Raw(Termios);

impl Raw {
    fn take() -> Result<Self, Error> {
        let before = rustix::termios::tcgetattr(std::io::stdin()).map_err(std::io::Error::from)?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &raw)
            .map_err(std::io::Error::from)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let restored = rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
        if let Err(error) = restored {
            eprintln!("the terminal could not be put back as it was ({error}); `reset` does that");
        }
    }
}

/// The terminal's size, now and whenever it changes.
fn sizes() -> Result<mpsc::Receiver<(u16, u16)>, Error> {
    let (sender, receiver) = mpsc::channel(4);
    let mut changes = signal(SignalKind::window_change())?;
    tokio::spawn(async move {
        loop {
            if let Ok(size) = rustix::termios::tcgetwinsize(std::io::stdin())
                && sender.send((size.ws_col, size.ws_row)).await.is_err()
            {
                return;
            }
            if changes.recv().await.is_none() {
                return;
            }
        }
    });
    Ok(receiver)
}
