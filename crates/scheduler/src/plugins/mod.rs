//! The plugins, one file each, in upstream's default profile.

mod affinity;
mod balance;
mod devices;
mod image_locality;
mod name;
pub mod pod_affinity;
mod ports;
mod resources;
mod spread;
mod taints;
mod volumes;

use crate::plugin::{Context, Filter, Plugin, Refusal, Rejection, Score};
use crate::{NodeInfo, PodInfo};

/// The filters that concern one pod, in upstream's order: the first that turns a node down gives the reason.
pub struct Filters<'a> {
    all: Vec<(Plugin, Box<dyn Filter + 'a>)>,
    /// Only nodes of these names are looked at.
    pub only: Option<Vec<&'a str>>,
}

impl<'a> Filters<'a> {
    pub fn of(context: Context<'a>) -> Result<Self, Refusal> {
        devices::check(context)?;
        volumes::check(context)?;
        let all = [
            (Plugin::NodeUnschedulable, taints::unschedulable(context)),
            (Plugin::NodeName, name::filter(context)),
            (Plugin::TaintToleration, taints::filter(context)),
            (Plugin::NodeAffinity, affinity::filter(context)),
            (Plugin::NodePorts, ports::filter(context)),
            (Plugin::NodeResourcesFit, resources::filter(context)),
            (Plugin::VolumeRestrictions, volumes::restrictions(context)),
            (Plugin::VolumeBinding, volumes::binding(context)),
            (Plugin::PodTopologySpread, spread::filter(context)),
            (Plugin::InterPodAffinity, pod_affinity::filter(context)),
        ];
        let all = all.into_iter().filter_map(|(plugin, filter)| Some((plugin, filter?))).collect();
        Ok(Self { all, only: affinity::names(context) })
    }

    pub fn filter(&self, node: &NodeInfo) -> Result<(), (Plugin, Rejection)> {
        for (plugin, filter) in &self.all {
            if let Err(rejection) = filter.filter(node) {
                return Err((*plugin, rejection));
            }
        }
        Ok(())
    }

    pub fn added(&mut self, pod: &PodInfo, node: &NodeInfo) {
        self.all.iter_mut().for_each(|(_, filter)| filter.added(pod, node));
    }

    pub fn removed(&mut self, pod: &PodInfo, node: &NodeInfo) {
        self.all.iter_mut().for_each(|(_, filter)| filter.removed(pod, node));
    }
}

/// The scores that concern one pod, with upstream's weights.
pub fn scores<'a>(context: Context<'a>, feasible: &[&NodeInfo]) -> Vec<(i64, Box<dyn Score + 'a>)> {
    let all = [
        (3, taints::score(context, feasible)),
        (2, affinity::score(context)),
        (1, resources::score(context)),
        (1, balance::score(context)),
        (2, spread::score(context, feasible)),
        (2, pod_affinity::score(context)),
        (1, image_locality::score(context)),
    ];
    all.into_iter().filter_map(|(weight, score)| Some((weight, score?))).collect()
}

pub(crate) use ports::clash as ports_clash;
