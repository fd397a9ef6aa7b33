//! Connection tracking entries: listed and removed.
//!
//! A UDP "connection" to an endpoint that is gone would go on being sent there for as long as the client keeps
//! sending; so its entry has to go too.

use std::net::IpAddr;

use super::address::{ip, octets};
use super::socket::{NetlinkError, Socket};
use super::wire::{self, ACK, Writer};

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const PROTOCOL_SOURCE_PORT: u16 = 2;
const PROTOCOL_DESTINATION_PORT: u16 = 3;

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// `IPPROTO_UDP`, …
    pub protocol: u8,
    pub source: IpAddr,
    pub source_port: u16,
    pub destination: IpAddr,
    pub destination_port: u16,
}

/// A tracked connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// As the client sent it.
    pub original: Tuple,
    /// As answers are expected; its source is where the packets really went.
    pub reply: Tuple,
}

impl Socket {
    /// The tracked connections with that protocol number. Needs a socket of [`super::Protocol::Netfilter`].
    pub fn connections(&mut self, protocol: u8) -> Result<Vec<Connection>, NetlinkError> {
        let mut request = Writer::new();
        request.message(GET, 0, |message| message.raw(&[0; 4]));
        let mut found = Vec::new();
        self.dump(request, |_, body| {
            let parsed = parse(body.get(4..).unwrap_or_default());
            found.extend(parsed.filter(|connection| connection.original.protocol == protocol));
        })?;
        Ok(found)
    }

    /// Forgets a connection; no error when it is gone.
    pub fn forget_connection(&mut self, original: &Tuple) -> Result<(), NetlinkError> {
        let mut request = Writer::new();
        request.message(DELETE, ACK, |message| {
            message.raw(&[super::address::family(original.source), 0, 0, 0]);
            message.nested(TUPLE_ORIGINAL, |tuple| write(tuple, original));
        });
        match self.request(request) {
            Err(error) if !error.is_missing() => Err(error),
            _ => Ok(()),
        }
    }
}

fn write(tuple: &mut Writer, value: &Tuple) {
    let (source, destination) = if value.source.is_ipv4() { (1, 2) } else { (3, 4) };
    tuple.nested(TUPLE_IP, |addresses| {
        addresses.attribute(source, &octets(value.source));
        addresses.attribute(destination, &octets(value.destination));
    });
    tuple.nested(TUPLE_PROTOCOL, |protocol| {
        protocol.u8(PROTOCOL_NUMBER, value.protocol);
        protocol.attribute(PROTOCOL_SOURCE_PORT, &value.source_port.to_be_bytes());
        protocol.attribute(PROTOCOL_DESTINATION_PORT, &value.destination_port.to_be_bytes());
    });
}

fn parse(body: &[u8]) -> Option<Connection> {
    let tuple = |kind| wire::find(body, kind).and_then(parse_tuple);
    Some(Connection { original: tuple(TUPLE_ORIGINAL)?, reply: tuple(TUPLE_REPLY)? })
}

fn parse_tuple(body: &[u8]) -> Option<Tuple> {
    let addresses = wire::find(body, TUPLE_IP)?;
    let protocol = wire::find(body, TUPLE_PROTOCOL)?;
    let address = |v4, v6| wire::find(addresses, v4).or_else(|| wire::find(addresses, v6)).and_then(ip);
    let port = |kind| {
        wire::find(protocol, kind)
            .and_then(|value| value.first_chunk())
            .map_or(0, |value| u16::from_be_bytes(*value))
    };
    Some(Tuple {
        protocol: *wire::find(protocol, PROTOCOL_NUMBER)?.first()?,
        source: address(1, 3)?,
        destination: address(2, 4)?,
        source_port: port(PROTOCOL_SOURCE_PORT),
        destination_port: port(PROTOCOL_DESTINATION_PORT),
    })
}
