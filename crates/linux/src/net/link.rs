//! Links: bridges, veth pairs and VXLAN devices.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use super::address::{ip, octets};
use super::socket::{NetlinkError, Socket};
use super::wire::{self, ACK, CREATE, EXCLUSIVE, Writer};

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const SET_LINK: u16 = 19;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
/// `IFLA_BRPORT_MODE`.
const BRIDGE_PORT_HAIRPIN: u16 = 4;
const BRIDGE_PORT_ISOLATED: u16 = 33;
const VXLAN_ID: u16 = 1;
const VXLAN_LINK: u16 = 3;
const VXLAN_LOCAL: u16 = 4;
const VXLAN_LEARNING: u16 = 7;
const VXLAN_PORT: u16 = 15;
const VXLAN_LOCAL6: u16 = 17;
const AF_BRIDGE: u8 = 7;
const UP: u32 = 1;

/// Six bytes that identify an interface on its link.
pub type MacAddress = [u8; 6];

/// A link as the kernel shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub mtu: u32,
    pub up: bool,
    pub mac: Option<MacAddress>,
    /// The index of the bridge it is a port of.
    pub master: Option<u32>,
    /// `bridge`, `veth`, …; empty for hardware.
    pub kind: String,
    /// What a VXLAN device was made with.
    pub vxlan: Option<Vxlan>,
}

/// The tunnel of a VXLAN device (RFC 7348). Where a frame goes is only what the forwarding table says: it learns
/// nothing from packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// The network's identifier (VNI).
    pub id: u32,
    /// UDP port.
    pub port: u16,
    /// The address that tunnelled packets come from.
    pub local: IpAddr,
    /// The index of the link that carries them.
    pub underlay: u32,
}

/// A bridge to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge<'a> {
    pub name: &'a str,
    /// Fixed, since otherwise it changes with the ports.
    pub mac: MacAddress,
    pub mtu: u32,
}

/// A veth pair to be made: one end a port of a bridge here, the other in another namespace.
pub struct Veth<'a, N: AsFd> {
    pub name: &'a str,
    pub mtu: u32,
    /// The bridge's index.
    pub master: u32,
    pub peer_name: &'a str,
    pub peer_mac: MacAddress,
    pub peer_namespace: N,
}

impl Socket {
    /// All links of the socket's namespace.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let mut request = Writer::new();
        request.message(GET_LINK, 0, |message| message.raw(&header(0, 0, 0, 0)));
        let mut links = Vec::new();
        self.dump(request, |kind, body| links.extend(parse(kind, body)))?;
        Ok(links)
    }

    /// The link of that name.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let mut request = Writer::new();
        request.message(GET_LINK, 0, |message| {
            message.raw(&header(0, 0, 0, 0));
            message.text(IFLA_IFNAME, name);
        });
        let mut link = None;
        match self.get(request, |kind, body| link = parse(kind, body)) {
            Ok(()) => Ok(link),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a bridge, up; `EEXIST` when the name is taken.
    pub fn create_bridge(&mut self, bridge: &Bridge<'_>) -> Result<(), NetlinkError> {
        let mut request = Writer::new();
        request.message(NEW_LINK, ACK | CREATE | EXCLUSIVE, |message| {
            message.raw(&header(0, 0, UP, UP));
            message.text(IFLA_IFNAME, bridge.name);
            message.attribute(IFLA_ADDRESS, &bridge.mac);
            message.u32(IFLA_MTU, bridge.mtu);
            message.nested(IFLA_LINKINFO, |info| info.text(INFO_KIND, "bridge"));
        });
        self.request(request)
    }

    /// Makes a VXLAN device, up; `EEXIST` when the name or the tunnel is taken.
    pub fn create_vxlan(
        &mut self,
        name: &str,
        mac: MacAddress,
        mtu: u32,
        tunnel: &Vxlan,
    ) -> Result<(), NetlinkError> {
        let mut request = Writer::new();
        request.message(NEW_LINK, ACK | CREATE | EXCLUSIVE, |message| {
            message.raw(&header(0, 0, UP, UP));
            message.text(IFLA_IFNAME, name);
            message.attribute(IFLA_ADDRESS, &mac);
            message.u32(IFLA_MTU, mtu);
            message.nested(IFLA_LINKINFO, |info| {
                info.text(INFO_KIND, "vxlan");
                info.nested(INFO_DATA, |data| write_vxlan(data, tunnel));
            });
        });
        self.request(request)
    }

    /// Makes a veth pair whose peer is born in its namespace. The near end is up and a port of the bridge.
    pub fn create_veth<N: AsFd>(&mut self, veth: &Veth<'_, N>) -> Result<(), NetlinkError> {
        let namespace = veth.peer_namespace.as_fd().as_raw_fd() as u32;
        let mut request = Writer::new();
        request.message(NEW_LINK, ACK | CREATE | EXCLUSIVE, |message| {
            message.raw(&header(0, 0, UP, UP));
            message.text(IFLA_IFNAME, veth.name);
            message.u32(IFLA_MTU, veth.mtu);
            message.u32(IFLA_MASTER, veth.master);
            message.nested(IFLA_LINKINFO, |info| {
                info.text(INFO_KIND, "veth");
                info.nested(INFO_DATA, |data| {
                    data.nested(VETH_INFO_PEER, |peer| {
                        // It cannot be up before it knows its other end.
                        peer.raw(&header(0, 0, 0, 0));
                        peer.text(IFLA_IFNAME, veth.peer_name);
                        peer.attribute(IFLA_ADDRESS, &veth.peer_mac);
                        peer.u32(IFLA_MTU, veth.mtu);
                        peer.u32(IFLA_NET_NS_FD, namespace);
                    });
                });
            });
        });
        self.request(request)
    }

    /// Keeps a port from reaching the bridge's other isolated ports directly.
    pub fn set_isolated(&mut self, port: u32) -> Result<(), NetlinkError> {
        self.set_port(port, BRIDGE_PORT_ISOLATED)
    }

    /// Lets frames leave through the port that they came in by.
    pub fn set_hairpin(&mut self, port: u32) -> Result<(), NetlinkError> {
        self.set_port(port, BRIDGE_PORT_HAIRPIN)
    }

    fn set_port(&mut self, port: u32, flag: u16) -> Result<(), NetlinkError> {
        let mut request = Writer::new();
        request.message(SET_LINK, ACK, |message| {
            message.raw(&header(AF_BRIDGE, port, 0, 0));
            message.nested(IFLA_PROTINFO, |info| info.u8(flag, 1));
        });
        self.request(request)
    }

    /// Brings a link up.
    pub fn set_up(&mut self, index: u32) -> Result<(), NetlinkError> {
        let mut request = Writer::new();
        request.message(SET_LINK, ACK, |message| message.raw(&header(0, index, UP, UP)));
        self.request(request)
    }

    /// Sets the size of the largest packet.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), NetlinkError> {
        let mut request = Writer::new();
        request.message(SET_LINK, ACK, |message| {
            message.raw(&header(0, index, 0, 0));
            message.u32(IFLA_MTU, mtu);
        });
        self.request(request)
    }

    /// Removes a link; no error when it is gone.
    pub fn delete_link(&mut self, index: u32) -> Result<(), NetlinkError> {
        let mut request = Writer::new();
        request.message(DELETE_LINK, ACK, |message| message.raw(&header(0, index, 0, 0)));
        match self.request(request) {
            Err(error) if !error.is_missing() => Err(error),
            _ => Ok(()),
        }
    }
}

/// `struct ifinfomsg`
fn header(family: u8, index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[0] = family;
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&change.to_ne_bytes());
    bytes
}

fn write_vxlan(data: &mut Writer, tunnel: &Vxlan) {
    data.u32(VXLAN_ID, tunnel.id);
    data.u32(VXLAN_LINK, tunnel.underlay);
    let local = if tunnel.local.is_ipv4() { VXLAN_LOCAL } else { VXLAN_LOCAL6 };
    data.attribute(local, &octets(tunnel.local));
    data.u8(VXLAN_LEARNING, 0);
    data.attribute(VXLAN_PORT, &tunnel.port.to_be_bytes());
}

fn parse_vxlan(data: &[u8]) -> Option<Vxlan> {
    let number = |kind| wire::find(data, kind).map(wire::read_u32);
    let local = wire::find(data, VXLAN_LOCAL).or_else(|| wire::find(data, VXLAN_LOCAL6)).and_then(ip)?;
    let port = wire::find(data, VXLAN_PORT)?.first_chunk().map(|port| u16::from_be_bytes(*port))?;
    Some(Vxlan { id: number(VXLAN_ID)?, port, local, underlay: number(VXLAN_LINK).unwrap_or(0) })
}

pub(super) fn parse(kind: u16, body: &[u8]) -> Option<Link> {
    if kind != NEW_LINK || body.len() < 16 {
        return None;
    }
    let (index, flags) = (wire::read_u32(&body[4..]), wire::read_u32(&body[8..]));
    let mut link = Link { index, up: flags & UP != 0, ..Link::default() };
    for (attribute, value) in wire::attributes(&body[16..]) {
        match attribute {
            IFLA_IFNAME => link.name = wire::text(value),
            IFLA_MTU => link.mtu = wire::read_u32(value),
            IFLA_MASTER => link.master = Some(wire::read_u32(value)),
            IFLA_ADDRESS => link.mac = value.try_into().ok(),
            IFLA_LINKINFO => {
                link.kind = wire::find(value, INFO_KIND).map(wire::text).unwrap_or_default();
                let data = wire::find(value, INFO_DATA).filter(|_| link.kind == "vxlan");
                link.vxlan = data.and_then(parse_vxlan);
            }
            _ => {}
        }
    }
    Some(link)
}
