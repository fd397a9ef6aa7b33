//! `NodePorts`: two pods cannot listen on one port of a node.

use crate::NodeInfo;
use crate::plugin::{Context, Filter, Rejection};
use crate::pod::HostPort;

const ANY: &str = "0.0.0.0";

struct HostPorts<'a>(&'a [HostPort]);

pub fn filter<'a>(context: Context<'a>) -> Option<Box<dyn Filter + 'a>> {
    let ports = context.pod.host_ports.as_slice();
    (!ports.is_empty()).then(|| Box::new(HostPorts(ports)) as Box<dyn Filter>)
}

impl Filter for HostPorts<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if self.0.iter().any(|wanted| node.ports.iter().any(|used| clash(wanted, used))) {
            return Err(Rejection::by_pods("node(s) didn't have free ports for the requested pod ports"));
        }
        Ok(())
    }
}

pub(crate) fn clash(a: &HostPort, b: &HostPort) -> bool {
    let addresses = a.address == b.address || *a.address == *ANY || *b.address == *ANY;
    a.protocol == b.protocol && a.number == b.number && addresses
}
