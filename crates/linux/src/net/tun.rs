//! A tunnel device whose packets a program carries.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

const TUN_SET_INTERFACE: libc::c_ulong = 0x4004_54ca;
const IS_TUN: libc::c_short = 0x0001;
const WITHOUT_HEADER: libc::c_short = 0x1000;
const DEVICE: &str = "/dev/net/tun";
const NAME_BYTES: usize = libc::IFNAMSIZ;

/// A tun device: IP packets without anything around them. It vanishes when this is dropped. Must be made and used
/// inside a tokio runtime.
pub struct Tun {
    fd: AsyncFd<OwnedFd>,
}

impl Tun {
    /// Makes a device of that name in the calling thread's network namespace.
    pub fn create(name: &str) -> io::Result<Self> {
        if name.is_empty() || name.len() >= NAME_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("interface name {name:?}")));
        }
        let file = File::options().read(true).write(true).open(DEVICE)?;
        // SAFETY: all zeroes is a valid value of this plain structure.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = IS_TUN | WITHOUT_HEADER;
        // SAFETY: the request lives through the call, and the ioctl reads and writes no more than an `ifreq`.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), TUN_SET_INTERFACE as _, &raw mut request) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = OwnedFd::from(file);
        rustix::io::ioctl_fionbio(&fd, true)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        // SAFETY: this owns the descriptor, which stays open and the same until both are dropped together.
        let fd = unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(io::Error::from)?;
        Ok(Self { fd })
    }

    /// Waits for a packet that the machine sends into the device; its length.
    pub async fn receive(&self, packet: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.fd.readable().await?;
            match rustix::io::read(self.fd.get_ref(), &mut *packet) {
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }

    /// Hands a packet to the machine, as if it came in by the device.
    pub async fn send(&self, packet: &[u8]) -> io::Result<()> {
        loop {
            let mut ready = self.fd.writable().await?;
            match rustix::io::write(self.fd.get_ref(), packet) {
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                other => return Ok(other.map(drop)?),
            }
        }
    }
}
