//! Which event may make which pod fit (queueing hints, KEP-4247): a pod that waits is tried again only when something
//! changed that those plugins look at which turned nodes down.

use crate::plugin::{Plugin, Plugins};
use crate::plugins::{pod_affinity, ports_clash};
use crate::{NodeInfo, PodInfo};

/// Something happened.
#[derive(Clone, Copy)]
pub enum Event<'a> {
    PodPlaced(&'a PodInfo),
    PodGone(&'a PodInfo),
    /// A placed pod's labels or requests changed.
    PodChanged(&'a PodInfo, &'a PodInfo),
    NodeAdded(&'a NodeInfo),
    NodeChanged(&'a NodeInfo, &'a NodeInfo),
    NodeGone,
    /// Claims, volumes or storage classes.
    Storage,
    Namespace,
}

use Plugin::{
    InterPodAffinity, NodeAffinity, NodeName, NodePorts, NodeResourcesFit, NodeUnschedulable,
    PodTopologySpread, TaintToleration, VolumeBinding, VolumeRestrictions,
};

impl Event<'_> {
    /// The plugins that could judge otherwise now.
    pub fn concerns(&self) -> &'static [Plugin] {
        match self {
            Self::PodPlaced(_) => &[PodTopologySpread, InterPodAffinity],
            Self::PodGone(_) => {
                &[NodePorts, NodeResourcesFit, VolumeRestrictions, PodTopologySpread, InterPodAffinity]
            }
            Self::PodChanged(..) => &[NodeResourcesFit, PodTopologySpread, InterPodAffinity],
            Self::NodeAdded(_) | Self::NodeChanged(..) => &[
                NodeUnschedulable,
                NodeName,
                TaintToleration,
                NodeAffinity,
                NodePorts,
                NodeResourcesFit,
                VolumeBinding,
                PodTopologySpread,
                InterPodAffinity,
            ],
            Self::NodeGone => &[PodTopologySpread],
            Self::Storage => &[VolumeBinding, VolumeRestrictions],
            Self::Namespace => &[InterPodAffinity],
        }
    }
}

/// Whether `pod`, which `plugins` turned down, may fit after the event.
pub fn may_help(event: Event<'_>, pod: &PodInfo, plugins: Plugins) -> bool {
    plugins.is_empty()
        || event.concerns().iter().any(|plugin| plugins.contains(*plugin) && helps(event, pod, *plugin))
}

fn helps(event: Event<'_>, pod: &PodInfo, plugin: Plugin) -> bool {
    match event {
        Event::PodPlaced(other) | Event::PodGone(other) => pod_helps(event, pod, other, plugin),
        Event::PodChanged(before, after) => {
            let relabelled = before.labels() != after.labels();
            let shrank = before.requests != after.requests;
            if plugin == NodeResourcesFit { shrank } else { relabelled }
        }
        Event::NodeAdded(node) => node_helps(pod, node, plugin),
        Event::NodeChanged(before, after) => changed(before, after, plugin) && node_helps(pod, after, plugin),
        Event::NodeGone | Event::Storage | Event::Namespace => true,
    }
}

fn pod_helps(event: Event<'_>, pod: &PodInfo, other: &PodInfo, plugin: Plugin) -> bool {
    match plugin {
        NodePorts => other.host_ports.iter().any(|a| pod.host_ports.iter().any(|b| ports_clash(a, b))),
        VolumeRestrictions => {
            other.namespace() == pod.namespace()
                && other.claims.iter().any(|claim| pod.claims.contains(claim))
        }
        PodTopologySpread => {
            let counts = |spread: &crate::pod::terms::Spread| {
                spread.required && spread.selector.as_ref().is_some_and(|s| s.matches(other.labels()))
            };
            other.namespace() == pod.namespace() && pod.wish().spreads.iter().any(counts)
        }
        InterPodAffinity => match event {
            Event::PodPlaced(_) => pod_affinity::wants(pod),
            _ => pod_affinity::avoids(pod) || pod_affinity::avoids(other),
        },
        // Its place among the pods of the node is worth something even if it asked for nothing.
        _ => true,
    }
}

fn node_helps(pod: &PodInfo, node: &NodeInfo, plugin: Plugin) -> bool {
    let (wanted, has) = (&pod.requests, &node.allocatable);
    match plugin {
        NodeUnschedulable => !node.unschedulable || !pod.wish().tolerations.is_empty(),
        NodeAffinity => pod.wish().selects(node),
        NodeResourcesFit => {
            wanted.cpu <= has.cpu
                && wanted.memory <= has.memory
                && wanted.storage <= has.storage
                && wanted.scalars().all(|(name, amount)| amount <= has.get(name))
        }
        _ => true,
    }
}

fn changed(before: &NodeInfo, after: &NodeInfo, plugin: Plugin) -> bool {
    match plugin {
        NodeUnschedulable => before.unschedulable != after.unschedulable,
        TaintToleration => before.taints != after.taints,
        NodeResourcesFit => before.allocatable != after.allocatable,
        NodePorts | NodeName => false,
        PodTopologySpread => before.labels() != after.labels() || before.taints != after.taints,
        _ => before.labels() != after.labels(),
    }
}
