//! Failures, in kubectl's words.

use std::fmt;
use std::path::PathBuf;

use client::{HttpError, KubeconfigError};
use machinery::Status;
use machinery::status::Cause;

/// Why a command failed. The text is what kubectl prints.
#[derive(Debug)]
pub enum Error {
    /// The server's answer.
    Server(Box<Status>),
    /// The command cannot be done as asked.
    Usage(String),
    /// A line that stands for itself.
    Plain(String),
    Kubeconfig(KubeconfigError),
    Connection(HttpError),
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    /// Standard output, or a terminal.
    Output(std::io::Error),
    Stream(streaming::StreamError),
    /// Everything that failed, in order.
    Many(Vec<Error>),
    /// A command in a container ended with this code.
    Exit(i32),
}

impl Error {
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    /// What the process should exit with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Exit(code) => u8::try_from(*code).unwrap_or(1).max(1),
            Self::Many(all) if all.len() == 1 => all[0].exit_code(),
            _ => 1,
        }
    }

    /// The server's answer, if that is what failed.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Server(status) => Some(status),
            _ => None,
        }
    }

    pub(crate) fn is_reason(&self, reason: &str) -> bool {
        self.status().is_some_and(|status| status.reason == reason)
    }

    /// Says what was being done with which file, as in `error when creating "x.yaml": …`.
    pub(crate) fn when(self, doing: &str, source: &str) -> Self {
        match self {
            Self::Server(mut status) if !source.is_empty() => {
                status.message = format!("error when {doing} {source:?}: {}", status.message);
                Self::Server(status)
            }
            error => error,
        }
    }
}

/// Nothing, or everything that went wrong.
pub(crate) fn all(mut errors: Vec<Error>) -> Result<(), Error> {
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        _ => Err(Error::Many(errors)),
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Server(Box::new(status))
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<streaming::StreamError> for Error {
    fn from(error: streaming::StreamError) -> Self {
        Self::Stream(error)
    }
}

impl From<KubeconfigError> for Error {
    fn from(error: KubeconfigError) -> Self {
        Self::Kubeconfig(error)
    }
}

impl From<HttpError> for Error {
    fn from(error: HttpError) -> Self {
        Self::Connection(error)
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(status) => out.write_str(&server(status)),
            Self::Usage(text) => write!(out, "error: {text}"),
            Self::Plain(text) => out.write_str(text),
            Self::Kubeconfig(error) => write!(out, "error: {}", chain(error)),
            Self::Connection(error) => write!(out, "error: {}", chain(error)),
            Self::Read { path, source } => match source.kind() {
                std::io::ErrorKind::NotFound => {
                    write!(out, "error: the path {:?} does not exist", path.display().to_string())
                }
                _ => write!(out, "error: reading {}: {source}", path.display()),
            },
            Self::Output(error) => write!(out, "error: {error}"),
            Self::Stream(error) => write!(out, "error: {}", chain(error)),
            Self::Many(all) => {
                let lines: Vec<_> = all.iter().map(ToString::to_string).collect();
                out.write_str(&lines.join("\n"))
            }
            Self::Exit(code) => write!(out, "command terminated with exit code {code}"),
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn server(status: &Status) -> String {
    let details = status.details.as_deref();
    match (status.reason.as_str(), details) {
        ("Unauthorized", _) => "error: You must be logged in to the server (Unauthorized)".to_owned(),
        ("Invalid", Some(details)) if !details.causes.is_empty() => {
            let what = match details.kind.as_str() {
                "" => "The request is invalid: ".to_owned(),
                kind => format!("The {kind} {:?} is invalid: ", details.name),
            };
            format!("{what}{}", causes(&details.causes))
        }
        ("", _) => format!("Error from server: {}", status.message),
        (reason, _) => format!("Error from server ({reason}): {}", status.message),
    }
}

fn causes(causes: &[Cause]) -> String {
    let line = |cause: &Cause| match cause.field.as_str() {
        "" => cause.message.clone(),
        field => format!("{field}: {}", cause.message),
    };
    match causes {
        [one] => line(one),
        many => many.iter().map(|cause| format!("\n* {}", line(cause))).collect(),
    }
}
