//! The pods' network on this node: a bridge that is their gateway, a veth pair and an address per pod, translation
//! of what leaves the cluster.
//!
//! Pods speak to everything through the gateway, also to each other: so a packet passes the machine's own rules in
//! both directions, Services work between pods of one node, and no kernel module for filtering bridged frames is
//! needed. Services themselves are the `proxy` crate's.
//!
//! [`Overlay`] is the way to the pods of other nodes, [`Policies`] keeps NetworkPolicies,
//! [`Announcer`] brings load balancers' addresses to a node. [`Cni`] is somebody else's network instead.
//!
//! On a node that joins a cluster [`Config::pod_cidrs`] is empty: [`Overlay`] learns the ranges from the node's own
//! Node object and gives them to [`PodNetwork`]; pods, and whoever needs [`PodNetwork::gateways`], wait for
//! [`PodNetwork::ranges_known`].

mod addresses;
mod announce;
mod cni;
mod kernel;
pub mod machines;
pub mod overlay;
mod plan;
mod pods;
pub mod policy;

pub use addresses::{AddressPool, PoolError};
pub use announce::{Announcer, AnnouncerConfig};
pub use cni::Cni;
pub use overlay::{Backend, Overlay};
pub use plan::{Config, NetworkError};
pub use pods::{PodNetwork, teardown};
pub use policy::{Gate, Policies};
