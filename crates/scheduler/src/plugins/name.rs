//! `NodeName`: a pod that names its node runs there. Waiting pods never do; the DaemonSet controller and the kubelet ask.

use crate::NodeInfo;
use crate::plugin::{Context, Filter, Rejection};

struct NodeName<'a>(&'a str);

pub fn filter<'a>(context: Context<'a>) -> Option<Box<dyn Filter + 'a>> {
    let name = context.pod.node.as_deref()?;
    Some(Box::new(NodeName(name)))
}

impl Filter for NodeName<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if *node.name == *self.0 {
            return Ok(());
        }
        Err(Rejection::by_node("node(s) didn't match the requested node name"))
    }
}
