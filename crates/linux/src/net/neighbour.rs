//! Permanent neighbours, and the forwarding table of VXLAN devices.

use std::net::IpAddr;

use super::address::{family, ip, octets};
use super::link::MacAddress;
use super::socket::{NetlinkError, Socket};
use super::wire::{self, ACK, CREATE, REPLACE, Writer};

const NEW_NEIGHBOUR: u16 = 28;
const DELETE_NEIGHBOUR: u16 = 29;
const GET_NEIGHBOUR: u16 = 30;
const NDA_DESTINATION: u16 = 1;
const NDA_MAC: u16 = 2;
const PERMANENT: u16 = 0x80;
/// The entry is the device's own, not its bridge's.
const SELF: u8 = 0x02;
const AF_BRIDGE: u8 = 7;
/// `struct ndmsg`
const HEADER: usize = 12;

/// Which hardware address an IP address on a link has, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    pub link: u32,
    pub address: IpAddr,
    pub mac: MacAddress,
}

/// To which machine a VXLAN device sends the frames for a hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Forwarding {
    pub link: u32,
    pub mac: MacAddress,
    pub to: IpAddr,
}

impl Socket {
    /// The permanent neighbours of the socket's namespace.
    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>, NetlinkError> {
        let mut request = Writer::new();
        request.message(GET_NEIGHBOUR, 0, |message| message.raw(&[0; HEADER]));
        let mut neighbours = Vec::new();
        self.dump(request, |kind, body| {
            let found = entry(kind, body).filter(|found| found.family != AF_BRIDGE && found.permanent);
            neighbours.extend(found.and_then(|found| {
                Some(Neighbour { link: found.link, address: found.destination?, mac: found.mac? })
            }));
        })?;
        Ok(neighbours)
    }

    /// The forwarding entries of VXLAN devices.
    pub fn forwardings(&mut self) -> Result<Vec<Forwarding>, NetlinkError> {
        let mut request = Writer::new();
        let mut header = [0; HEADER];
        header[0] = AF_BRIDGE;
        request.message(GET_NEIGHBOUR, 0, |message| message.raw(&header));
        let mut forwardings = Vec::new();
        self.dump(request, |kind, body| {
            let found = entry(kind, body).filter(|found| found.family == AF_BRIDGE);
            forwardings.extend(found.and_then(|found| {
                Some(Forwarding { link: found.link, mac: found.mac?, to: found.destination? })
            }));
        })?;
        Ok(forwardings)
    }
}

/// Appends a neighbour to a request; another one with its address is replaced.
pub fn write_neighbour(request: &mut Writer, neighbour: &Neighbour) {
    request.message(NEW_NEIGHBOUR, ACK | CREATE | REPLACE, |message| {
        message.raw(&header(family(neighbour.address), neighbour.link, 0));
        message.attribute(NDA_DESTINATION, &octets(neighbour.address));
        message.attribute(NDA_MAC, &neighbour.mac);
    });
}

/// Appends the removal of a neighbour.
pub fn write_neighbour_removal(request: &mut Writer, neighbour: &Neighbour) {
    request.message(DELETE_NEIGHBOUR, ACK, |message| {
        message.raw(&header(family(neighbour.address), neighbour.link, 0));
        message.attribute(NDA_DESTINATION, &octets(neighbour.address));
    });
}

/// Appends a forwarding entry; another one of its hardware address is replaced.
pub fn write_forwarding(request: &mut Writer, forwarding: &Forwarding) {
    request.message(NEW_NEIGHBOUR, ACK | CREATE | REPLACE, |message| write(message, forwarding));
}

/// Appends the removal of a forwarding entry.
pub fn write_forwarding_removal(request: &mut Writer, forwarding: &Forwarding) {
    request.message(DELETE_NEIGHBOUR, ACK, |message| write(message, forwarding));
}

fn write(message: &mut Writer, forwarding: &Forwarding) {
    message.raw(&header(AF_BRIDGE, forwarding.link, SELF));
    message.attribute(NDA_DESTINATION, &octets(forwarding.to));
    message.attribute(NDA_MAC, &forwarding.mac);
}

fn header(family: u8, link: u32, flags: u8) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[0] = family;
    bytes[4..8].copy_from_slice(&link.to_ne_bytes());
    bytes[8..10].copy_from_slice(&PERMANENT.to_ne_bytes());
    bytes[10] = flags;
    bytes
}

struct Entry {
    family: u8,
    link: u32,
    permanent: bool,
    destination: Option<IpAddr>,
    mac: Option<MacAddress>,
}

fn entry(kind: u16, body: &[u8]) -> Option<Entry> {
    if kind != NEW_NEIGHBOUR || body.len() < HEADER {
        return None;
    }
    let attributes = &body[HEADER..];
    Some(Entry {
        family: body[0],
        link: wire::read_u32(&body[4..]),
        permanent: wire::read_u16(&body[8..]) & PERMANENT != 0,
        destination: wire::find(attributes, NDA_DESTINATION).and_then(ip),
        mac: wire::find(attributes, NDA_MAC).and_then(|mac| mac.try_into().ok()),
    })
}
