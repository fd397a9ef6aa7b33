//! `VolumeBinding` and `VolumeRestrictions`: what a pod's claims ask of its node.

use machinery::selector::nodes;

use crate::plugin::{Context, Filter, Plugin, Refusal, Rejection};
use crate::volumes::Needs;
use crate::{NodeInfo, PodInfo};

/// Claims that cannot be used anywhere.
pub fn check(context: Context<'_>) -> Result<(), Refusal> {
    match &context.pod.wish().needs.refusal {
        None => Ok(()),
        Some(message) => Err(Refusal { plugin: Plugin::VolumeBinding, message: message.clone() }),
    }
}

struct Binding<'a>(&'a Needs);

pub fn binding<'a>(context: Context<'a>) -> Option<Box<dyn Filter + 'a>> {
    let needs = &context.pod.wish().needs;
    let concerns = !needs.bound.is_empty() || !needs.unbound.is_empty();
    concerns.then(|| Box::new(Binding(needs)) as Box<dyn Filter>)
}

impl Filter for Binding<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if !self.0.bound.iter().all(|required| nodes::selects(required, node.labels(), &node.name)) {
            return Err(Rejection::by_node("node(s) didn't match PersistentVolume's node affinity"));
        }
        if self.0.choose(node).is_none() {
            return Err(Rejection::by_node("node(s) didn't find available persistent volumes to bind"));
        }
        Ok(())
    }
}

/// Claims that only one pod may use at a time, and how many others use them.
struct Exclusive<'a> {
    pod: &'a PodInfo,
    users: i64,
}

pub fn restrictions<'a>(context: Context<'a>) -> Option<Box<dyn Filter + 'a>> {
    if context.pod.wish().needs.exclusive.is_empty() {
        return None;
    }
    let mut filter = Exclusive { pod: context.pod, users: 0 };
    for node in context.snapshot.nodes() {
        node.pods.iter().for_each(|other| filter.added(other, node));
    }
    Some(Box::new(filter))
}

impl Exclusive<'_> {
    fn shares(&self, other: &PodInfo) -> bool {
        let exclusive = &self.pod.wish().needs.exclusive;
        other.namespace() == self.pod.namespace()
            && other.claims.iter().any(|claim| exclusive.iter().any(|name| **name == **claim))
    }
}

impl Filter for Exclusive<'_> {
    fn filter(&self, _: &NodeInfo) -> Result<(), Rejection> {
        if self.users > 0 {
            return Err(Rejection::by_pods(
                "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode",
            ));
        }
        Ok(())
    }

    fn added(&mut self, pod: &PodInfo, _: &NodeInfo) {
        self.users += i64::from(self.shares(pod));
    }

    fn removed(&mut self, pod: &PodInfo, _: &NodeInfo) {
        self.users -= i64::from(self.shares(pod));
    }
}
