//! Telling the neighbours of a link that an address is here now.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::link::MacAddress;

const PROTOCOL_ARP: u16 = 0x0806;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// The sender's own word counts more than what was known.
const OVERRIDE: u8 = 0x20;
const TARGET_LINK_ADDRESS: u8 = 2;
/// Neighbour discovery is heeded with this hop limit only (RFC 4861, 7.1.2).
const HOP_LIMIT: libc::c_int = 255;

/// Sends a gratuitous ARP (RFC 5227) or an unsolicited neighbour advertisement (RFC 4861, 7.2.6) for an address of
/// this machine, in the calling thread's network namespace.
pub fn announce(link: u32, mac: MacAddress, address: IpAddr) -> io::Result<()> {
    match address {
        IpAddr::V4(address) => send_arp(link, &arp(mac, address)),
        IpAddr::V6(address) => send_advertisement(link, &advertisement(mac, address)),
    }
}

fn socket(family: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn send_to<A>(fd: &OwnedFd, bytes: &[u8], address: &A) -> io::Result<()> {
    // SAFETY: both pointers are valid for their lengths during the call; `A` is one of libc's address structures.
    let sent = unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            0,
            std::ptr::from_ref(address).cast(),
            size_of::<A>() as libc::socklen_t,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn send_arp(link: u32, packet: &[u8]) -> io::Result<()> {
    let fd = socket(libc::AF_PACKET, libc::SOCK_DGRAM, libc::c_int::from(PROTOCOL_ARP.to_be()))?;
    // SAFETY: all zeroes is a valid value of this plain structure.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_protocol = PROTOCOL_ARP.to_be();
    to.sll_ifindex = link as libc::c_int;
    to.sll_halen = 6;
    to.sll_addr[..6].fill(0xff);
    send_to(&fd, packet, &to)
}

fn send_advertisement(link: u32, packet: &[u8]) -> io::Result<()> {
    let fd = socket(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6)?;
    // SAFETY: the pointer and length describe a constant that outlives the call.
    let set = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_IPV6,
            libc::IPV6_MULTICAST_HOPS,
            (&raw const HOP_LIMIT_VALUE).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if set < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all zeroes is a valid value of this plain structure.
    let mut to: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
    to.sin6_family = libc::AF_INET6 as u16;
    to.sin6_addr.s6_addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets();
    to.sin6_scope_id = link;
    send_to(&fd, packet, &to)
}

static HOP_LIMIT_VALUE: libc::c_int = HOP_LIMIT;

/// An ARP request from the address for itself.
fn arp(mac: MacAddress, address: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1];
    packet.extend(mac);
    packet.extend(address.octets());
    packet.extend([0; 6]);
    packet.extend(address.octets());
    packet
}

/// The kernel fills in the checksum.
fn advertisement(mac: MacAddress, address: Ipv6Addr) -> Vec<u8> {
    let mut packet = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0];
    packet.extend(address.octets());
    packet.extend([TARGET_LINK_ADDRESS, 1]);
    packet.extend(mac);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_have_the_form_of_their_standards() {
        let mac = [2, 0, 0, 0, 0, 7];
        let arp = arp(mac, Ipv4Addr::new(192, 0, 2, 7));
        assert_eq!(arp.len(), 28);
        assert_eq!(
            (&arp[8..14], &arp[14..18], &arp[24..28]),
            (&mac[..], &[192, 0, 2, 7][..], &[192, 0, 2, 7][..])
        );
        let advertisement = advertisement(mac, "fd00::7".parse().unwrap());
        assert_eq!(advertisement.len(), 32);
        assert_eq!(
            (advertisement[0], &advertisement[24..26], &advertisement[26..]),
            (136, &[2, 1][..], &mac[..])
        );
    }
}
