//! `NodeName`: a pod that names its node runs there.

use crate::plugin::Filter;
use crate::{NodeInfo, PodInfo, Snapshot};

pub struct NodeName;

impl Filter for NodeName {
    fn filter(&self, pod: &PodInfo, node: &NodeInfo, _: &Snapshot) -> Result<(), String> {
        match &pod.node {
            Some(name) if *name != node.name => {
                Err("node(s) didn't match the requested node name".to_owned())
            }
            _ => Ok(()),
        }
    }
}
