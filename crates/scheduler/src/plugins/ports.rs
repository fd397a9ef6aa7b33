//! `NodePorts`: two pods cannot listen on one port of a node.

use crate::plugin::Filter;
use crate::pod::HostPort;
use crate::{NodeInfo, PodInfo, Snapshot};

pub struct HostPorts;

const ANY: &str = "0.0.0.0";

impl Filter for HostPorts {
    fn filter(&self, pod: &PodInfo, node: &NodeInfo, _: &Snapshot) -> Result<(), String> {
        let taken = |wanted: &HostPort| node.host_ports().any(|used| clash(wanted, used));
        if pod.host_ports.iter().any(taken) {
            return Err("node(s) didn't have free ports for the requested pod ports".to_owned());
        }
        Ok(())
    }
}

fn clash((protocol, address, port): &HostPort, (protocol_b, address_b, port_b): &HostPort) -> bool {
    protocol == protocol_b && port == port_b && (address == address_b || address == ANY || address_b == ANY)
}
