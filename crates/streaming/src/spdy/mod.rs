//! SPDY/3.1: many streams on one connection.
//!
//! Kubernetes' own clients neither keep to flow-control windows nor grant any, so windows are kept only with a peer
//! that has shown (by SETTINGS or WINDOW_UPDATE) that it does. Priorities are ignored.

mod frame;
mod headers;
mod reader;
mod windows;
mod writer;

use crate::Io;

pub use headers::Headers;
pub use reader::{Event, Reader};
pub use writer::Writer;

/// RST_STREAM: the stream was refused before anything was done.
pub const REFUSED_STREAM: u32 = 3;
/// RST_STREAM: the stream is no longer wanted.
pub const CANCEL: u32 = 5;

/// Which end of the connection this is: clients open streams with odd numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

/// The halves of a connection.
pub fn over(io: Io, role: Role) -> (Reader, Writer) {
    let (input, output) = tokio::io::split(io);
    let writer = Writer::new(Box::new(output), role);
    (Reader::new(Box::new(input), writer.clone(), role), writer)
}
