//! What is said between the managing process and a monitor: frames of JSON with a length before them, and
//! descriptors with the length.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::record::StateRecord;

/// Larger frames are a mistake.
pub const MAX_FRAME_BYTES: usize = 4 << 20;

/// What a monitor is asked. One connection carries one request; `Exec` and `Subscribe` keep it open.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// `Ok`, and then an `Exited` for every container that ends.
    Subscribe,
    /// Starts the container whose directory this is: `Started` or `Failed`.
    Start { directory: PathBuf },
    /// To the main process: `Ok`, also when it is gone.
    Signal { container: String, signal: i32 },
    /// To all processes of a container: `Ok`.
    Kill { container: String },
    /// Carries the writing ends for stdout and stderr, as far as they are asked for. `Ok` carries the descriptor
    /// to write stdin to, if asked for, or that of the terminal.
    Attach { container: String, stdin: bool, stdout: bool, stderr: bool },
    /// Without a terminal it carries stdin, stdout and stderr, as far as they are asked for; with one, `Started`
    /// carries the terminal. Then `Exited` follows.
    Exec(Exec),
    /// `Ok` or `Failed`.
    ReopenLog { container: String },
    /// `Ok` carries a TCP socket of the pod's network namespace, not yet connected.
    Socket { version_6: bool },
    /// Kills everything; `Ok` when all is gone. The monitor ends.
    Stop,
}

/// A command to run in a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Exec {
    pub container: String,
    pub arguments: Vec<String>,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
    /// Columns and rows that the terminal has from the start.
    #[serde(default)]
    pub size: Option<(u16, u16)>,
    /// Kill the command when the connection ends.
    pub kill_on_close: bool,
}

/// What a monitor answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    Ok,
    Started {
        pid: u32,
        started_at: Timestamp,
    },
    Failed {
        message: String,
    },
    NotRunning,
    /// A command ended.
    ExecExited {
        code: i32,
    },
    /// A container ended.
    Exited {
        container: String,
        record: StateRecord,
    },
}

/// A frame's bytes.
pub fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = bytes.len() - 4;
    if length > MAX_FRAME_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the request is too large"));
    }
    bytes[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(bytes)
}

/// The length that a frame's first four bytes announce.
pub fn frame_length(header: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_le_bytes(header) as usize;
    if length > MAX_FRAME_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the frame is too large"));
    }
    Ok(length)
}

/// Sends a frame, waiting as long as the socket's time limit says.
pub fn send<T: Serialize>(socket: &UnixStream, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = encode(message)?;
    let sent = linux::socket::send(socket.as_fd(), &bytes, fds)?;
    (&mut &*socket).write_all(&bytes[sent..])
}

/// Receives a frame; `None` when the other side is gone.
pub fn receive<T: DeserializeOwned>(socket: &UnixStream) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let (mut header, mut fds) = ([0; 4], Vec::new());
    if !fill(socket, &mut header, &mut fds)? {
        return Ok(None);
    }
    let mut body = vec![0; frame_length(header)?];
    if !fill(socket, &mut body, &mut fds)? {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&body)?, fds)))
}

fn fill(socket: &UnixStream, mut bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<bool> {
    while !bytes.is_empty() {
        match linux::socket::receive(socket.as_fd(), bytes, fds) {
            Ok(0) => return Ok(false),
            Ok(count) => bytes = &mut bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
