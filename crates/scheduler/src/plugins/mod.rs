//! The plugins, one file each.

mod affinity;
mod image_locality;
mod name;
mod ports;
mod resources;
mod spread;
mod taints;

use crate::plugin::{Filter, Score};

/// All filters, cheapest first: the first reason is the one that counts.
pub fn filters() -> Vec<Box<dyn Filter>> {
    vec![
        Box::new(name::NodeName),
        Box::new(taints::Unschedulable),
        Box::new(taints::Taints),
        Box::new(affinity::NodeAffinity),
        Box::new(ports::HostPorts),
        Box::new(resources::Fit),
    ]
}

/// All scores.
pub fn scores() -> Vec<Box<dyn Score>> {
    vec![
        Box::new(taints::Taints),
        Box::new(affinity::NodeAffinity),
        Box::new(resources::Fit),
        Box::new(resources::Balanced),
        Box::new(spread::OwnerSpread),
        Box::new(image_locality::ImageLocality),
    ]
}
