//! A container's output streams: read, logged, and passed on to attached clients.
//!
//! A client that reads slowly slows the container down: its stream is not read again before the client has
//! taken what it was given.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use env::Env;

use super::log::{Lines, Log};

const CHUNK_BYTES: usize = 16 * 1024;

/// One stream of a container.
pub struct Output {
    file: File,
    lines: Lines,
    sinks: Vec<Sink>,
}

/// Where a copy goes.
pub struct Sink {
    file: File,
    pending: Vec<u8>,
}

impl Sink {
    /// Takes the writing end of a pipe.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        linux::terminal::set_nonblocking(fd.as_fd(), true)?;
        Ok(Self { file: File::from(fd), pending: Vec::new() })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    pub fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Writes what it can; `false` when the client is gone.
    pub fn flush(&mut self) -> bool {
        while !self.pending.is_empty() {
            match self.file.write(&self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
        true
    }

    fn push(&mut self, bytes: &[u8]) -> bool {
        self.pending.extend_from_slice(bytes);
        self.flush()
    }
}

impl Output {
    /// Takes the reading end of a pipe, or a terminal.
    pub fn new(fd: OwnedFd, stream: &'static str) -> io::Result<Self> {
        linux::terminal::set_nonblocking(fd.as_fd(), true)?;
        Ok(Self { file: File::from(fd), lines: Lines::new(stream), sinks: Vec::new() })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    pub fn attach(&mut self, sink: Sink) {
        self.sinks.push(sink);
    }

    pub fn sinks(&self) -> &[Sink] {
        &self.sinks
    }

    /// Whether nobody holds it up.
    pub fn is_wanted(&self) -> bool {
        !self.sinks.iter().any(Sink::is_waiting)
    }

    pub fn flush_sinks(&mut self) {
        self.sinks.retain_mut(Sink::flush);
    }

    /// Forgets the client at `at`, which has closed its end.
    pub fn drop_sink(&mut self, fd: i32) {
        use std::os::fd::AsRawFd;
        self.sinks.retain(|sink| sink.fd().as_raw_fd() != fd);
    }

    /// Reads once; `false` at the end of the stream.
    pub fn read(&mut self, log: Option<&mut Log>, world: &Env) -> bool {
        let mut chunk = [0; CHUNK_BYTES];
        match self.file.read(&mut chunk) {
            Ok(0) => false,
            Ok(count) => {
                self.take(&chunk[..count], log, world);
                true
            }
            Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        }
    }

    /// Reads what is there when the container has ended, and hands back the clients that still have to be served.
    pub fn finish(mut self, mut log: Option<&mut Log>, world: &Env) -> Vec<Sink> {
        let mut chunk = [0; CHUNK_BYTES];
        // What is left is at most what a pipe holds.
        while let Ok(count @ 1..) = self.file.read(&mut chunk) {
            self.take(&chunk[..count], log.as_deref_mut(), world);
        }
        if let Some(log) = log {
            self.lines.finish(log, world.now());
        }
        self.sinks.retain(Sink::is_waiting);
        self.sinks
    }

    fn take(&mut self, bytes: &[u8], log: Option<&mut Log>, world: &Env) {
        if let Some(log) = log {
            self.lines.write(log, bytes, world.now());
        }
        self.sinks.retain_mut(|sink| sink.push(bytes));
    }
}
