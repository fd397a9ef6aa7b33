//! The `udp` backend: packets in datagrams, carried by this process.
//!
//! A datagram is one IP packet and nothing else, as flannel's: the first four bits tell the version. It is for
//! machines between which neither VXLAN nor a route gets through; every packet costs two system calls.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;

use ipnet::IpNet;
use linux::net::tun::Tun;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;

const PACKET_MAX: usize = 65_535;
/// A window of TCP comes at once; what does not fit the socket is lost and sent again. The system's default is a
/// twentieth of this.
const WAITING_BYTES: usize = 4 << 20;

/// Whom to send what to.
pub type Peers = BTreeMap<IpNet, SocketAddr>;

/// Carries packets until it is dropped.
pub struct Relay {
    peers: watch::Sender<Arc<Peers>>,
    // Dropping the set ends the tasks.
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Makes the device, not up yet, and listens. Must be called inside a tokio runtime.
    pub fn start(device: &str, local: &[IpAddr], port: u16) -> io::Result<Self> {
        let tun = Arc::new(Tun::create(device)?);
        let peers = watch::Sender::new(Arc::default());
        let mut tasks = JoinSet::new();
        let mut sockets = Vec::new();
        for address in local {
            let socket = std::net::UdpSocket::bind(SocketAddr::new(*address, port))?;
            socket.set_nonblocking(true)?;
            if let Err(error) = linux::socket::widen(socket.as_fd(), WAITING_BYTES) {
                tracing::debug!(%error, "the socket's buffers stay small");
            }
            let socket = Arc::new(UdpSocket::from_std(socket)?);
            tasks.spawn(bring_in(socket.clone(), tun.clone(), peers.subscribe()));
            sockets.push((address.is_ipv4(), socket));
        }
        tasks.spawn(send_out(tun, sockets, peers.subscribe()));
        Ok(Self { peers, _tasks: tasks })
    }

    /// Replaces the peers.
    pub fn set_peers(&self, peers: &Peers) {
        self.peers.send_if_modified(|known| {
            let changed = **known != *peers;
            if changed {
                *known = Arc::new(peers.clone());
            }
            changed
        });
    }
}

async fn send_out(tun: Arc<Tun>, sockets: Vec<(bool, Arc<UdpSocket>)>, peers: watch::Receiver<Arc<Peers>>) {
    let mut packet = vec![0; PACKET_MAX];
    loop {
        let length = match tun.receive(&mut packet).await {
            Ok(length) => length,
            Err(error) => {
                tracing::warn!(%error, "the tun device is gone");
                return;
            }
        };
        let packet = &packet[..length];
        let to = destination(packet).and_then(|address| peer_of(&peers.borrow(), address));
        let Some(to) = to else { continue };
        let Some((_, socket)) = sockets.iter().find(|(ipv4, _)| *ipv4 == to.is_ipv4()) else { continue };
        if let Err(error) = socket.send_to(packet, to).await {
            tracing::debug!(%to, %error, "a packet was lost");
        }
    }
}

async fn bring_in(socket: Arc<UdpSocket>, tun: Arc<Tun>, peers: watch::Receiver<Arc<Peers>>) {
    let mut packet = vec![0; PACKET_MAX];
    loop {
        let (length, from) = match socket.recv_from(&mut packet).await {
            Ok(received) => received,
            // A peer's "port unreachable" to an earlier packet of ours.
            Err(error) => {
                tracing::debug!(%error, "nobody listens on a peer");
                continue;
            }
        };
        // Strangers have no say in this network.
        let known = peers.borrow().values().any(|peer| peer.ip() == from.ip());
        if !known || destination(&packet[..length]).is_none() {
            continue;
        }
        if let Err(error) = tun.send(&packet[..length]).await {
            tracing::debug!(%error, "the machine did not take a packet");
        }
    }
}

/// Where an IP packet is to go.
fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => packet.get(16..20)?.first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes).into()),
        6 => packet.get(24..40)?.first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes).into()),
        _ => None,
    }
}

fn peer_of(peers: &Peers, address: IpAddr) -> Option<SocketAddr> {
    peers.iter().find(|(range, _)| range.contains(&address)).map(|(_, peer)| *peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_in_both_versions_and_garbage_is_not() {
        let mut four = vec![0x45; 20];
        four[16..].copy_from_slice(&[10, 42, 3, 7]);
        let mut six = vec![0x60; 40];
        six[24..].copy_from_slice(&"fd42:3::7".parse::<Ipv6Addr>().unwrap().octets());
        let peers: Peers = [
            ("10.42.3.0/24".parse().unwrap(), "192.0.2.3:8285".parse().unwrap()),
            ("fd42:3::/64".parse().unwrap(), "192.0.2.4:8285".parse().unwrap()),
        ]
        .into();
        let to = |packet: &[u8]| destination(packet).and_then(|address| peer_of(&peers, address));
        assert_eq!(to(&four), Some("192.0.2.3:8285".parse().unwrap()));
        assert_eq!(to(&six), Some("192.0.2.4:8285".parse().unwrap()));
        four[18] = 4;
        assert_eq!(to(&four), None, "no node has that range");
        for garbage in [&[][..], &four[..19], &six[..39], &[0x10; 60]] {
            assert_eq!(destination(garbage), None);
        }
    }
}
