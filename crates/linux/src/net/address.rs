//! Addresses of links.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::socket::{NetlinkError, Socket};
use super::wire::{self, ACK, CREATE, REPLACE, Writer};

const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const NO_DUPLICATE_DETECTION: u32 = 0x2;
const NO_PREFIX_ROUTE: u32 = 0x200;

/// An address of a link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    pub link: u32,
    /// The address itself with its prefix length; the host bits are kept.
    pub address: IpNet,
}

/// How an address is added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressFlags {
    /// The kernel makes no route to the address's network.
    pub no_prefix_route: bool,
    /// The kernel removes the address by itself after this time, in whole seconds, unless it is added again before.
    pub lifetime: Option<Duration>,
}

impl Socket {
    /// All addresses of the socket's namespace.
    pub fn addresses(&mut self) -> Result<Vec<Address>, NetlinkError> {
        let mut request = Writer::new();
        request.message(GET_ADDRESS, 0, |message| message.raw(&[0; 8]));
        let mut addresses = Vec::new();
        self.dump(request, |kind, body| addresses.extend(parse(kind, body)))?;
        Ok(addresses)
    }

    /// Adds an address at once usable (IPv6: without duplicate detection). No error when it is there.
    pub fn add_address(&mut self, address: &Address, flags: AddressFlags) -> Result<(), NetlinkError> {
        let mut request = Writer::new();
        request.message(NEW_ADDRESS, ACK | CREATE | REPLACE, |message| {
            body(message, address);
            let prefix_route = if flags.no_prefix_route { NO_PREFIX_ROUTE } else { 0 };
            let detection = if address.address.addr().is_ipv6() { NO_DUPLICATE_DETECTION } else { 0 };
            message.u32(IFA_FLAGS, prefix_route | detection);
            if let Some(lifetime) = flags.lifetime {
                message.attribute(IFA_CACHEINFO, &cache_info(lifetime));
            }
        });
        self.request(request)
    }

    /// Removes an address; no error when it is gone.
    pub fn delete_address(&mut self, address: &Address) -> Result<(), NetlinkError> {
        let mut request = Writer::new();
        request.message(DELETE_ADDRESS, ACK, |message| body(message, address));
        match self.request(request) {
            Err(error) if !error.is_missing() => Err(error),
            _ => Ok(()),
        }
    }
}

/// The kernel's `ifa_cacheinfo`: preferred and valid lifetime in seconds, and two times that it ignores.
fn cache_info(lifetime: Duration) -> [u8; 16] {
    let seconds = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX).to_ne_bytes();
    let mut info = [0; 16];
    info[..4].copy_from_slice(&seconds);
    info[4..8].copy_from_slice(&seconds);
    info
}

fn body(message: &mut Writer, address: &Address) {
    let ip = address.address.addr();
    let mut header = [family(ip), address.address.prefix_len(), 0, 0, 0, 0, 0, 0];
    header[4..].copy_from_slice(&address.link.to_ne_bytes());
    message.raw(&header);
    message.attribute(IFA_LOCAL, &octets(ip));
    message.attribute(IFA_ADDRESS, &octets(ip));
}

pub(super) fn parse(kind: u16, body: &[u8]) -> Option<Address> {
    if kind != NEW_ADDRESS || body.len() < 8 {
        return None;
    }
    let attributes = &body[8..];
    let value = wire::find(attributes, IFA_LOCAL).or_else(|| wire::find(attributes, IFA_ADDRESS))?;
    let address = IpNet::new(ip(value)?, body[1]).ok()?;
    Some(Address { link: wire::read_u32(&body[4..]), address })
}

/// The kernel's number of the address family.
pub(crate) fn family(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

/// The address in network byte order.
pub fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// An address from 4 or 16 bytes in network byte order.
pub fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(four.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}
