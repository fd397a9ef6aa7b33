//! Routes of the main table.

use std::net::IpAddr;

use ipnet::IpNet;

use super::address::{family, ip, octets};
use super::socket::{NetlinkError, Socket};
use super::wire::{self, ACK, CREATE, REPLACE, Writer};

const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const TABLE_MAIN: u8 = 254;
/// Routes that a program of no special kind made (`RTPROT_STATIC`).
pub const PROTOCOL_STATIC: u8 = 4;
/// Routes to other nodes' pods: a number that nothing else has, so that they are known again after a restart.
pub const PROTOCOL_OVERLAY: u8 = 75;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
const TYPE_UNICAST: u8 = 1;
const ON_LINK: u32 = 4;

/// A unicast route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub destination: IpNet,
    pub kind: RouteKind,
    pub link: u32,
    /// The source address that connections of this machine get.
    pub source: Option<IpAddr>,
    /// Who made it.
    pub protocol: u8,
}

/// How the destination is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// The destination is on the link itself.
    Link,
    /// Through a neighbour, which is taken to be on the link.
    Gateway(IpAddr),
}

impl Socket {
    /// The unicast routes of the main table.
    pub fn routes(&mut self) -> Result<Vec<Route>, NetlinkError> {
        let mut request = Writer::new();
        request.message(GET_ROUTE, 0, |message| message.raw(&[0; 12]));
        let mut routes = Vec::new();
        self.dump(request, |kind, body| routes.extend(parse(kind, body)))?;
        Ok(routes)
    }

    /// Adds a route or replaces the one to the same destination.
    pub fn replace_route(&mut self, route: &Route) -> Result<(), NetlinkError> {
        let mut request = Writer::new();
        request.message(NEW_ROUTE, ACK | CREATE | REPLACE, |message| body(message, route));
        self.request(request)
    }

    /// Removes a route; no error when it is gone.
    pub fn delete_route(&mut self, route: &Route) -> Result<(), NetlinkError> {
        let mut request = Writer::new();
        request.message(DELETE_ROUTE, ACK, |message| body(message, route));
        match self.request(request) {
            Err(error) if !error.is_missing() => Err(error),
            _ => Ok(()),
        }
    }
}

/// Appends several routes to one request.
pub fn write_routes(request: &mut Writer, routes: &[Route]) {
    for route in routes {
        request.message(NEW_ROUTE, ACK | CREATE | REPLACE, |message| body(message, route));
    }
}

fn body(message: &mut Writer, route: &Route) {
    let destination = route.destination.trunc();
    let (scope, flags) = match route.kind {
        RouteKind::Link if destination.addr().is_ipv4() => (SCOPE_LINK, 0),
        RouteKind::Link => (SCOPE_UNIVERSE, 0),
        RouteKind::Gateway(_) => (SCOPE_UNIVERSE, ON_LINK),
    };
    let length = destination.prefix_len();
    let mut header = [
        family(destination.addr()),
        length,
        0,
        0,
        TABLE_MAIN,
        route.protocol,
        scope,
        TYPE_UNICAST,
        0,
        0,
        0,
        0,
    ];
    header[8..].copy_from_slice(&u32::to_ne_bytes(flags));
    message.raw(&header);
    if length > 0 {
        message.attribute(RTA_DST, &octets(destination.addr()));
    }
    message.u32(RTA_OIF, route.link);
    if let RouteKind::Gateway(gateway) = route.kind {
        message.attribute(RTA_GATEWAY, &octets(gateway));
    }
    if let Some(source) = route.source {
        message.attribute(RTA_PREFSRC, &octets(source));
    }
}

pub(super) fn parse(kind: u16, body: &[u8]) -> Option<Route> {
    if kind != NEW_ROUTE || body.len() < 12 || body[4] != TABLE_MAIN || body[7] != TYPE_UNICAST {
        return None;
    }
    let attributes = &body[12..];
    let unspecified: IpAddr = match i32::from(body[0]) {
        libc::AF_INET => std::net::Ipv4Addr::UNSPECIFIED.into(),
        libc::AF_INET6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let address = |kind| wire::find(attributes, kind).and_then(ip);
    let destination = IpNet::new(address(RTA_DST).unwrap_or(unspecified), body[1]).ok()?;
    Some(Route {
        destination,
        kind: address(RTA_GATEWAY).map_or(RouteKind::Link, RouteKind::Gateway),
        link: wire::find(attributes, RTA_OIF).map_or(0, wire::read_u32),
        source: address(RTA_PREFSRC),
        protocol: body[5],
    })
}

/// Appends the removals of routes.
pub fn write_route_removals(request: &mut Writer, routes: &[Route]) {
    for route in routes {
        request.message(DELETE_ROUTE, ACK, |message| body(message, route));
    }
}
