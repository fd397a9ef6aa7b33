//! Terms about other pods: affinity, anti-affinity and spreading.

use std::collections::BTreeMap;

use machinery::selector::{LabelSelector, Operator, Requirement};
use serde_json::Value;

use super::view::{AffinityView, PodAffinityView, SpreadView, TermView};

type Labels = BTreeMap<String, String>;

/// One term of pod affinity or anti-affinity.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// `None` selects nothing.
    pub selector: Option<LabelSelector>,
    pub namespaces: Vec<String>,
    pub namespace_selector: Option<LabelSelector>,
    pub topology_key: String,
    /// 0 for required terms.
    pub weight: i64,
}

/// A pod's terms about other pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Terms {
    pub affinity: Vec<Term>,
    pub anti_affinity: Vec<Term>,
    pub preferred: Vec<Term>,
    /// Preferred anti-affinity, with positive weights.
    pub avoided: Vec<Term>,
}

impl Terms {
    /// `None` if the pod has none, as most have.
    pub fn read(affinity: &AffinityView, namespace: &str, labels: &Labels) -> Option<Box<Self>> {
        let required = |side: &Option<PodAffinityView>| {
            let terms = side.iter().flat_map(|side| side.required.iter().flatten());
            terms.map(|term| Term::read(term, 0, namespace, labels)).collect::<Vec<_>>()
        };
        let preferred = |side: &Option<PodAffinityView>| {
            let terms = side.iter().flat_map(|side| side.preferred.iter().flatten());
            let term = |term: &super::view::WeightedView| {
                Term::read(&term.pod_affinity_term, term.weight, namespace, labels)
            };
            terms.map(term).collect::<Vec<_>>()
        };
        let terms = Self {
            affinity: required(&affinity.pod_affinity),
            anti_affinity: required(&affinity.pod_anti_affinity),
            preferred: preferred(&affinity.pod_affinity),
            avoided: preferred(&affinity.pod_anti_affinity),
        };
        (terms != Self::default()).then(|| Box::new(terms))
    }
}

impl Term {
    fn read(view: &TermView, weight: i64, namespace: &str, labels: &Labels) -> Self {
        let mut namespaces = view.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && view.namespace_selector.is_none() {
            namespaces.push(namespace.to_owned());
        }
        let mut selector = read_selector(&view.label_selector);
        add_keys(&mut selector, &view.match_label_keys, Operator::In, labels);
        add_keys(&mut selector, &view.mismatch_label_keys, Operator::NotIn, labels);
        Self {
            selector,
            namespaces,
            namespace_selector: read_selector(&view.namespace_selector),
            topology_key: view.topology_key.clone(),
            weight,
        }
    }

    /// Whether the term is about a pod of this namespace (which has `namespace_labels`) with these labels.
    pub fn matches(&self, namespace: &str, namespace_labels: &Labels, labels: &Labels) -> bool {
        let here = self.namespaces.iter().any(|name| name == namespace)
            || self.namespace_selector.as_ref().is_some_and(|selector| selector.matches(namespace_labels));
        here && self.selector.as_ref().is_some_and(|selector| selector.matches(labels))
    }
}

/// `null` and absence select nothing; validation refuses what cannot be read.
fn read_selector(value: &Option<Value>) -> Option<LabelSelector> {
    let value = value.as_ref().filter(|value| !value.is_null())?;
    LabelSelector::from_value(value).ok()
}

/// `matchLabelKeys`: the pod's own values of some labels become requirements. Keys that the pod lacks are ignored.
fn add_keys(
    selector: &mut Option<LabelSelector>,
    keys: &Option<Vec<String>>,
    operator: Operator,
    labels: &Labels,
) {
    let Some(selector) = selector else { return };
    for key in keys.iter().flatten() {
        let Some(value) = labels.get(key) else { continue };
        let requirement = Requirement { key: key.clone(), operator, values: vec![value.clone()] };
        if !selector.requirements().contains(&requirement) {
            selector.require(requirement);
        }
    }
}

/// A topology spread constraint.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    pub max_skew: i64,
    pub topology_key: String,
    /// `DoNotSchedule`; otherwise it is only scored.
    pub required: bool,
    /// `None` selects nothing.
    pub selector: Option<LabelSelector>,
    pub min_domains: Option<i64>,
    /// Count only nodes that the pod's node affinity allows.
    pub honors_affinity: bool,
    /// Count only nodes whose taints the pod tolerates.
    pub honors_taints: bool,
}

impl Spread {
    pub fn read(view: &SpreadView, labels: &Labels) -> Self {
        let mut selector = read_selector(&view.label_selector);
        add_keys(&mut selector, &view.match_label_keys, Operator::In, labels);
        Self {
            max_skew: view.max_skew,
            topology_key: view.topology_key.clone(),
            required: view.when_unsatisfiable == "DoNotSchedule",
            selector,
            min_domains: view.min_domains,
            honors_affinity: view.node_affinity_policy.as_deref() != Some("Ignore"),
            honors_taints: view.node_taints_policy.as_deref() == Some("Honor"),
        }
    }
}
