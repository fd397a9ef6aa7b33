//! What a plugin is: a filter says whether a node will do, a score says how well. Both are made for one pod, so that
//! what concerns the whole cluster is computed once per decision and a plugin that does not concern the pod costs
//! nothing.

use std::borrow::Cow;

use crate::{NodeInfo, PodInfo, Snapshot};

/// The best score.
pub const SCORE_MAX: i64 = 100;

/// A reason in upstream's words; reasons are counted over the nodes.
pub type Reason = Cow<'static, str>;

/// The plugins that can turn a node down. An event is asked about by plugin: could it make the pod fit?
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Plugin {
    NodeUnschedulable,
    NodeName,
    TaintToleration,
    NodeAffinity,
    NodePorts,
    NodeResourcesFit,
    VolumeRestrictions,
    VolumeBinding,
    PodTopologySpread,
    InterPodAffinity,
    DynamicResources,
}

impl Plugin {
    pub const ALL: [Self; 11] = [
        Self::NodeUnschedulable,
        Self::NodeName,
        Self::TaintToleration,
        Self::NodeAffinity,
        Self::NodePorts,
        Self::NodeResourcesFit,
        Self::VolumeRestrictions,
        Self::VolumeBinding,
        Self::PodTopologySpread,
        Self::InterPodAffinity,
        Self::DynamicResources,
    ];
}

/// A set of plugins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plugins(u16);

impl Plugins {
    pub fn insert(&mut self, plugin: Plugin) {
        self.0 |= 1 << plugin as u16;
    }

    pub fn contains(self, plugin: Plugin) -> bool {
        self.0 & (1 << plugin as u16) != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Why a node will not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub reasons: Reasons,
    /// Removing pods from the node cannot help.
    pub unresolvable: bool,
}

/// One reason, mostly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reasons {
    One(Reason),
    Many(Vec<Reason>),
}

impl Rejection {
    /// Pods on the node are in the way.
    pub fn by_pods(reason: &'static str) -> Self {
        Self { reasons: Reasons::One(Cow::Borrowed(reason)), unresolvable: false }
    }

    /// The node itself will not do.
    pub fn by_node(reason: impl Into<Reason>) -> Self {
        Self { reasons: Reasons::One(reason.into()), unresolvable: true }
    }

    pub fn reasons(&self) -> &[Reason] {
        match &self.reasons {
            Reasons::One(reason) => std::slice::from_ref(reason),
            Reasons::Many(reasons) => reasons,
        }
    }
}

/// Says whether the pod that it was made for may run on a node.
pub trait Filter {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection>;

    /// What if `pod` were on `node`, too? Undone by [`Filter::removed`].
    fn added(&mut self, _pod: &PodInfo, _node: &NodeInfo) {}

    /// What if `pod` were not on `node`? Undone by [`Filter::added`].
    fn removed(&mut self, _pod: &PodInfo, _node: &NodeInfo) {}
}

/// Says how well nodes suit the pod that it was made for.
pub trait Score {
    /// A score per node, in the order of `nodes`, from 0 to [`SCORE_MAX`].
    fn score(&self, nodes: &[&NodeInfo]) -> Vec<i64>;
}

/// No node at all will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub plugin: Plugin,
    pub message: String,
}

/// What plugins are made of.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub pod: &'a PodInfo,
    pub snapshot: &'a Snapshot,
    pub defaults: &'a Defaults,
}

/// What the pod's surroundings say of it.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    /// Selects the pods that the pod is spread from when it has no constraints of its own: those of its Services and
    /// of its controller.
    pub spread: Option<machinery::selector::LabelSelector>,
}

/// Stretches raw numbers so that the largest becomes [`SCORE_MAX`]; `reverse` when small is good.
pub fn normalize(raw: Vec<i64>, reverse: bool) -> Vec<i64> {
    let most = raw.iter().copied().max().unwrap_or(0);
    let scaled = |value: i64| if most == 0 { 0 } else { value * SCORE_MAX / most };
    raw.into_iter().map(|value| if reverse { SCORE_MAX - scaled(value) } else { scaled(value) }).collect()
}
