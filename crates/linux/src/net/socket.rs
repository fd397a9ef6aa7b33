//! A netlink socket: requests are answered by the kernel before the call returns, so it is synchronous.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use super::wire::{self, MESSAGE_DONE, MESSAGE_ERROR, Writer};

/// Larger than any single answer of the kernel (it sends at most 32 KiB at once).
const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;
/// Room for the acknowledgements of a large batch.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;
const EXTENDED_ACK: i32 = 11;
const CAP_ACK: i32 = 10;
/// `NLM_F_CAPPED`
const CAPPED: u16 = 0x100;
/// `NLMSGERR_ATTR_MSG`
const ERROR_TEXT: u16 = 1;

/// Which part of the kernel answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses, routes.
    Route,
    /// nftables and connection tracking.
    Netfilter,
}

/// Why a netlink request failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    #[error("netlink socket")]
    Socket(#[source] std::io::Error),
    /// The kernel refused the message with this position in the batch.
    #[error("netlink message {index} was refused{}", detail(.text))]
    Refused {
        index: usize,
        /// The kernel's own words, often empty.
        text: String,
        #[source]
        source: std::io::Error,
    },
}

fn detail(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

impl NetlinkError {
    /// The kernel's error number.
    pub fn errno(&self) -> Option<i32> {
        let (Self::Socket(source) | Self::Refused { source, .. }) = self;
        source.raw_os_error()
    }

    /// `EEXIST`
    pub fn already_exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    /// `ENODEV`, `ENOENT`, `ESRCH` or `EADDRNOTAVAIL`: what was to be changed is not there.
    pub fn is_missing(&self) -> bool {
        matches!(self.errno(), Some(libc::ENODEV | libc::ENOENT | libc::ESRCH | libc::EADDRNOTAVAIL))
    }
}

/// A netlink socket, bound to the network namespace it was opened in for all its life.
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open(protocol: Protocol) -> Result<Self, NetlinkError> {
        let number = match protocol {
            // The number of this one is zero, which stands for the default.
            Protocol::Route => None,
            Protocol::Netfilter => Some(rustix::net::netlink::NETFILTER),
        };
        let socket =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, number);
        let fd = socket.map_err(failed)?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, 0)).map_err(failed)?;
        for option in [EXTENDED_ACK, CAP_ACK] {
            enable(&fd, option);
        }
        Ok(Self { fd, sequence: 1, buffer: vec![0; RECEIVE_BUFFER_BYTES] })
    }

    /// Sends messages that each ask for an acknowledgement; all are tried. Returns the first refusal.
    pub fn request(&mut self, messages: Writer) -> Result<(), NetlinkError> {
        let count = messages.messages();
        let first = self.send(messages, 0)?;
        let (mut answered, mut refused) = (0, None);
        while answered < count {
            self.receive(|message| {
                let index = message.sequence.wrapping_sub(first) as usize;
                if message.kind == MESSAGE_ERROR && index < count {
                    answered += 1;
                    if let Err(error) = acknowledged(message, index) {
                        refused.get_or_insert(error);
                    }
                }
            })?;
        }
        refused.map_or(Ok(()), Err)
    }

    /// Sends a transaction: the kernel does all of it or nothing. Returns the first refusal.
    pub fn transaction(&mut self, messages: Writer) -> Result<(), NetlinkError> {
        let count = messages.messages();
        if count < 3 {
            return Ok(());
        }
        self.widen(messages.len());
        // The last message proper is answered in any case; the end of the batch is not on older kernels.
        let (first, last) = (self.sequence, count - 2);
        self.send(messages, 0)?;
        let (mut finished, mut refused) = (false, None);
        while !finished {
            self.receive(|message| {
                let index = message.sequence.wrapping_sub(first) as usize;
                if message.kind != MESSAGE_ERROR || index >= count {
                    return;
                }
                let answer = acknowledged(message, index);
                // A refusal of the batch as a whole carries the number of its first message.
                finished |= index == last || (index == 0 && answer.is_err());
                if let Err(error) = answer {
                    refused.get_or_insert(error);
                }
            })?;
        }
        refused.map_or(Ok(()), Err)
    }

    /// Sends one message that asks for a dump, and calls `each` with type and body of every answer.
    pub fn dump(&mut self, messages: Writer, mut each: impl FnMut(u16, &[u8])) -> Result<(), NetlinkError> {
        let first = self.send(messages, wire::DUMP)?;
        let (mut finished, mut refused) = (false, None);
        while !finished {
            self.receive(|message| match message.kind {
                _ if message.sequence != first => {}
                MESSAGE_DONE => finished = true,
                MESSAGE_ERROR => {
                    finished = true;
                    refused = acknowledged(message, 0).err();
                }
                kind => each(kind, message.body),
            })?;
        }
        refused.map_or(Ok(()), Err)
    }

    /// Sends one message that is answered by one object (and an acknowledgement).
    pub fn get(&mut self, messages: Writer, mut each: impl FnMut(u16, &[u8])) -> Result<(), NetlinkError> {
        let first = self.send(messages, wire::ACK)?;
        let (mut finished, mut refused) = (false, None);
        while !finished {
            self.receive(|message| match message.kind {
                _ if message.sequence != first => {}
                MESSAGE_ERROR => {
                    finished = true;
                    refused = acknowledged(message, 0).err();
                }
                kind => each(kind, message.body),
            })?;
        }
        refused.map_or(Ok(()), Err)
    }

    fn send(&mut self, messages: Writer, last_flags: u16) -> Result<u32, NetlinkError> {
        let first = self.sequence;
        self.sequence = self.sequence.wrapping_add(messages.messages() as u32);
        let bytes = messages.finish(first, last_flags);
        let kernel = SocketAddrNetlink::new(0, 0);
        let sent =
            rustix::io::retry_on_intr(|| rustix::net::sendto(&self.fd, &bytes, SendFlags::empty(), &kernel));
        sent.map(|_| first).map_err(failed)
    }

    fn receive(&mut self, mut each: impl FnMut(&wire::Received<'_>)) -> Result<(), NetlinkError> {
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.fd, &mut self.buffer[..], RecvFlags::empty())
        });
        let (length, _) = received.map_err(failed)?;
        for message in wire::messages(&self.buffer[..length]) {
            each(&message);
        }
        Ok(())
    }

    /// A batch is one datagram: the socket's buffer must hold it.
    fn widen(&self, bytes: usize) {
        let wanted = (bytes * 2).max(SOCKET_BUFFER_BYTES);
        let results = [
            sockopt::set_socket_send_buffer_size_force(&self.fd, wanted),
            sockopt::set_socket_recv_buffer_size_force(&self.fd, SOCKET_BUFFER_BYTES),
        ];
        for result in results {
            if let Err(error) = result {
                tracing::debug!(%error, "netlink socket buffer stays small");
            }
        }
    }
}

fn failed(error: Errno) -> NetlinkError {
    NetlinkError::Socket(error.into())
}

fn acknowledged(message: &wire::Received<'_>, index: usize) -> Result<(), NetlinkError> {
    let code = wire::read_u32(message.body) as i32;
    if code == 0 {
        return Ok(());
    }
    let skip = match message.flags & CAPPED {
        0 => 4 + (wire::read_u32(message.body.get(4..).unwrap_or_default()) as usize).next_multiple_of(4),
        _ => 4 + wire::HEADER,
    };
    let text = message.body.get(skip..).and_then(|rest| wire::find(rest, ERROR_TEXT)).map(wire::text);
    let source = std::io::Error::from_raw_os_error(-code);
    Err(NetlinkError::Refused { index, text: text.unwrap_or_default(), source })
}

/// Asks for the kernel's explanations; a kernel that has none answers without.
fn enable(fd: &impl AsFd, option: i32) {
    let on: i32 = 1;
    // SAFETY: the pointer and length describe `on`, which lives through the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if result != 0 {
        tracing::debug!(option, "netlink option is not known here");
    }
}
