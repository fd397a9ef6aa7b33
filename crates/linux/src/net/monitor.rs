//! Being told when links, addresses and routes change.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::address::{self, Address};
use super::link::{self, Link};
use super::route::{self, Route};
use super::wire;

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
/// Links, and addresses and routes of both families.
const GROUPS: u32 = 0x1 | 0x10 | 0x100 | 0x40 | 0x400;
const BUFFER_BYTES: usize = 32 * 1024;

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Link(Link),
    LinkGone(Link),
    Address(Address),
    AddressGone(Address),
    Route(Route),
    RouteGone(Route),
    /// More changed than the kernel kept for us: look at everything.
    Missed,
}

/// Hears of changes in the network namespace it was opened in. Must be made and used inside a tokio runtime.
pub struct Monitor {
    fd: AsyncFd<OwnedFd>,
    buffer: Vec<u8>,
}

impl Monitor {
    /// In the calling thread's network namespace.
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, GROUPS))?;
        // SAFETY: the monitor owns the descriptor, which stays open and the same until both are dropped together.
        let fd =
            unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(io::Error::from)?;
        Ok(Self { fd, buffer: vec![0; BUFFER_BYTES] })
    }

    /// Waits for changes; some of what comes may be of no kind that is known here, so the list may be empty.
    pub async fn next(&mut self) -> io::Result<Vec<Change>> {
        loop {
            let mut ready = self.fd.readable().await?;
            match rustix::net::recv(self.fd.get_ref(), &mut self.buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => return Ok(changes(&self.buffer[..length])),
                Err(Errno::NOBUFS) => return Ok(vec![Change::Missed]),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn changes(bytes: &[u8]) -> Vec<Change> {
    wire::messages(bytes).filter_map(|message| change(message.kind, message.body)).collect()
}

fn change(kind: u16, body: &[u8]) -> Option<Change> {
    match kind {
        NEW_LINK => link::parse(NEW_LINK, body).map(Change::Link),
        DELETE_LINK => link::parse(NEW_LINK, body).map(Change::LinkGone),
        NEW_ADDRESS => address::parse(NEW_ADDRESS, body).map(Change::Address),
        DELETE_ADDRESS => address::parse(NEW_ADDRESS, body).map(Change::AddressGone),
        NEW_ROUTE => route::parse(NEW_ROUTE, body).map(Change::Route),
        DELETE_ROUTE => route::parse(NEW_ROUTE, body).map(Change::RouteGone),
        _ => None,
    }
}
