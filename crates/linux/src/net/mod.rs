//! Networking by netlink: links, addresses, routes, namespaces, connection tracking.
//!
//! The messages are written by hand ([`wire`]): what is needed is a dozen of them, and a pod's network is then a
//! handful of system calls on a socket that stays open.

pub mod address;
pub mod arp;
pub mod conntrack;
pub mod link;
pub mod monitor;
pub mod namespace;
pub mod neighbour;
pub mod route;
pub mod socket;
pub mod sysctl;
pub mod tun;
pub mod wire;

pub use address::{Address, AddressFlags};
pub use link::{Bridge, Link, MacAddress, Veth, Vxlan};
pub use monitor::{Change, Monitor};
pub use neighbour::{Forwarding, Neighbour};
pub use route::{Route, RouteKind};
pub use socket::{NetlinkError, Protocol, Socket};
