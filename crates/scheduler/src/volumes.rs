//! Claims of a pod and what they need of a node.
//!
//! A claim that is bound ties the pod to the nodes that reach its volume. One whose class waits for the first consumer
//! is bound to a volume that the chosen node reaches, or provisioned there. Others have to be bound by the volume
//! controller first.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    NodeSelector, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeSpec,
    TopologySelectorTerm,
};
use k8s_openapi::api::storage::v1::StorageClass;
use machinery::quantity::Quantity;
use machinery::selector::{LabelSelector, nodes};
use machinery::{Key, Object};

use crate::NodeInfo;
use crate::pod::view::SpecView;

const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const LEGACY_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// A claim that a pod names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub claim: String,
    /// It is made for this pod.
    pub ephemeral: bool,
}

/// The names of a pod's claims.
pub fn claim_names(spec: &SpecView, pod: &str) -> Vec<Box<str>> {
    names(spec, pod).map(|(name, _)| name.into()).collect()
}

/// The claims that have to be looked up before the pod can be placed.
pub fn wanted(spec: &SpecView, object: &Object) -> Vec<Wanted> {
    names(spec, &object.meta().name).map(|(claim, ephemeral)| Wanted { claim, ephemeral }).collect()
}

fn names<'a>(spec: &'a SpecView, pod: &'a str) -> impl Iterator<Item = (String, bool)> + 'a {
    spec.volumes.iter().flatten().filter_map(move |volume| match &volume.persistent_volume_claim {
        Some(claim) => Some((claim.claim_name.clone(), false)),
        None => volume.ephemeral.is_some().then(|| (format!("{pod}-{}", volume.name), true)),
    })
}

/// What a pod's claims need of its node.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// No node will do, and why.
    pub refusal: Option<String>,
    /// What the volumes of bound claims ask of the node.
    pub bound: Vec<NodeSelector>,
    pub unbound: Vec<Unbound>,
    /// Claims that only one pod may use at a time.
    pub exclusive: Vec<String>,
}

/// A claim that is bound when its first consumer has a node.
#[derive(Clone, Debug)]
pub struct Unbound {
    pub claim: String,
    /// Volumes that would do, the smallest first.
    pub candidates: Vec<Candidate>,
    /// It can be provisioned on nodes of these places (everywhere, if there are none).
    pub provisioned: Option<Vec<TopologySelectorTerm>>,
}

#[derive(Clone, Debug)]
pub struct Candidate {
    pub volume: String,
    pub node: Option<NodeSelector>,
}

/// How a claim is bound on the chosen node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    Bind { claim: String, volume: String },
    Provision { claim: String },
}

/// Where claims, volumes and classes are looked up.
pub trait Storage {
    fn claim(&self, key: &Key) -> Option<Arc<PersistentVolumeClaim>>;
    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>>;
    fn volumes(&self) -> Vec<Arc<PersistentVolume>>;
    fn class(&self, name: &str) -> Option<Arc<StorageClass>>;
}

/// Looks up what a pod's claims need. `taken`: volumes that other pods are being bound to.
pub fn needs(namespace: &str, wanted: &[Wanted], storage: &dyn Storage, taken: &BTreeSet<String>) -> Needs {
    let mut needs = Needs::default();
    for wanted in wanted {
        if let Err(refusal) = add_claim(&mut needs, namespace, wanted, storage, taken) {
            return Needs { refusal: Some(refusal), ..Needs::default() };
        }
    }
    needs
}

fn add_claim(
    needs: &mut Needs,
    namespace: &str,
    wanted: &Wanted,
    storage: &dyn Storage,
    taken: &BTreeSet<String>,
) -> Result<(), String> {
    let name = &wanted.claim;
    let claim = storage.claim(&Key::new(namespace, name.as_str())).ok_or_else(|| match wanted.ephemeral {
        true => {
            format!("waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}")
        }
        false => format!("persistentvolumeclaim {name:?} not found"),
    })?;
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
    }
    let spec = claim.spec.clone().unwrap_or_default();
    if spec.access_modes.iter().flatten().any(|mode| mode == "ReadWriteOncePod") {
        needs.exclusive.push(name.clone());
    }
    let volume = spec.volume_name.as_deref().filter(|volume| !volume.is_empty());
    let complete = claim.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(BIND_COMPLETED));
    match volume {
        Some(volume) if complete => {
            let found = storage.volume(volume).ok_or_else(|| {
                format!("persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}")
            })?;
            needs.bound.extend(required_node(&found));
            Ok(())
        }
        // Half bound: the volume controller is at it.
        Some(_) => Err(UNBOUND.to_owned()),
        None => {
            needs.unbound.push(unbound(&claim, &spec, name, storage, taken)?);
            Ok(())
        }
    }
}

const UNBOUND: &str = "pod has unbound immediate PersistentVolumeClaims";

fn unbound(
    claim: &PersistentVolumeClaim,
    spec: &PersistentVolumeClaimSpec,
    name: &str,
    storage: &dyn Storage,
    taken: &BTreeSet<String>,
) -> Result<Unbound, String> {
    let class_name = class_of(claim, spec);
    let class = storage
        .class(class_name)
        .filter(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
    let class = class.ok_or(UNBOUND)?;
    let mut fitting: Vec<(i64, Candidate)> = storage
        .volumes()
        .iter()
        .filter(|volume| !volume.metadata.name.as_ref().is_some_and(|name| taken.contains(name)))
        .filter_map(|volume| fits(volume, claim, spec, class_name))
        .collect();
    fitting.sort_by(|a, b| (a.0, &a.1.volume).cmp(&(b.0, &b.1.volume)));
    let provisioned =
        (class.provisioner != NO_PROVISIONER).then(|| class.allowed_topologies.clone().unwrap_or_default());
    let candidates = fitting.into_iter().map(|(_, candidate)| candidate).collect();
    Ok(Unbound { claim: name.to_owned(), candidates, provisioned })
}

fn class_of<'a>(claim: &'a PersistentVolumeClaim, spec: &'a PersistentVolumeClaimSpec) -> &'a str {
    let annotated = claim.metadata.annotations.as_ref().and_then(|annotations| annotations.get(LEGACY_CLASS));
    annotated.or(spec.storage_class_name.as_ref()).map_or("", String::as_str)
}

/// The volume with its size, if it is free and satisfies the claim.
fn fits(
    volume: &PersistentVolume,
    claim: &PersistentVolumeClaim,
    spec: &PersistentVolumeClaimSpec,
    class: &str,
) -> Option<(i64, Candidate)> {
    let name = volume.metadata.name.clone()?;
    let offered = volume.spec.as_ref()?;
    let available = volume.metadata.deletion_timestamp.is_none()
        && volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Available")
        && is_free_for(offered, claim);
    let size = |quantity: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity>| {
        quantity.and_then(|quantity| quantity.0.parse::<Quantity>().ok()).map_or(0, |size| size.value())
    };
    let has = size(offered.capacity.as_ref().and_then(|capacity| capacity.get("storage")));
    let asks =
        size(spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()?.get("storage")));
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
    let modes = offered.access_modes.as_deref().unwrap_or_default();
    let suits = offered.storage_class_name.as_deref().unwrap_or_default() == class
        && mode(&offered.volume_mode) == mode(&spec.volume_mode)
        && spec.access_modes.iter().flatten().all(|mode| modes.contains(mode))
        && has >= asks
        && is_selected(volume, spec);
    (available && suits).then(|| (has, Candidate { volume: name, node: required_node(volume) }))
}

fn is_free_for(offered: &PersistentVolumeSpec, claim: &PersistentVolumeClaim) -> bool {
    offered.claim_ref.as_ref().is_none_or(|reference| {
        reference.name == claim.metadata.name
            && reference.namespace == claim.metadata.namespace
            && (reference.uid.is_none() || reference.uid == claim.metadata.uid)
    })
}

fn is_selected(volume: &PersistentVolume, spec: &PersistentVolumeClaimSpec) -> bool {
    let Some(selector) = &spec.selector else { return true };
    let selector = serde_json::to_value(selector).ok().and_then(|s| LabelSelector::from_value(&s).ok());
    let labels = volume.metadata.labels.clone().unwrap_or_default();
    selector.is_some_and(|selector| selector.matches(&labels))
}

fn required_node(volume: &PersistentVolume) -> Option<NodeSelector> {
    volume.spec.as_ref()?.node_affinity.as_ref()?.required.clone()
}

impl Unbound {
    /// How the claim can be bound on a node. `used`: volumes chosen for other claims of the pod.
    pub fn choose(&self, node: &NodeInfo, used: &[Choice]) -> Option<Choice> {
        let is_used = |candidate: &Candidate| {
            used.iter()
                .any(|choice| matches!(choice, Choice::Bind { volume, .. } if *volume == candidate.volume))
        };
        let reachable = |candidate: &&Candidate| {
            let reaches = candidate
                .node
                .as_ref()
                .is_none_or(|node_selector| nodes::selects(node_selector, node.labels(), &node.name));
            reaches && !is_used(candidate)
        };
        if let Some(candidate) = self.candidates.iter().find(reachable) {
            let (claim, volume) = (self.claim.clone(), candidate.volume.clone());
            return Some(Choice::Bind { claim, volume });
        }
        let places = self.provisioned.as_ref()?;
        let allowed = places.is_empty() || places.iter().any(|place| is_at(place, node));
        allowed.then(|| Choice::Provision { claim: self.claim.clone() })
    }
}

fn is_at(place: &TopologySelectorTerm, node: &NodeInfo) -> bool {
    place.match_label_expressions.iter().flatten().all(|expression| {
        node.labels().get(&expression.key).is_some_and(|value| expression.values.contains(value))
    })
}

impl Needs {
    /// How all claims are bound on a node; `None` if that node will not do.
    pub fn choose(&self, node: &NodeInfo) -> Option<Vec<Choice>> {
        let mut choices = Vec::new();
        for unbound in &self.unbound {
            choices.push(unbound.choose(node, &choices)?);
        }
        Some(choices)
    }
}
