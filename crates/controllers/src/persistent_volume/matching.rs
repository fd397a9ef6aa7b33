//! Which volume suits a claim.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::api::resource;
use machinery::quantity::Quantity;

use super::{Claim, Volume};
use machinery::selector::labels;

/// The smallest volume that suits; one that was set aside for the claim goes before.
pub fn best<'a>(claim: &Claim, volumes: &'a [Volume]) -> Option<&'a Volume> {
    let reserved = volumes.iter().find(|volume| is_for(&volume.1, claim) && suits(&volume.1, &claim.1));
    let free = |volume: &&Volume| {
        let taken = volume.1.spec.as_ref().is_none_or(|spec| spec.claim_ref.is_some());
        !taken
            && volume.0.meta().deletion_timestamp.is_none()
            && suits(&volume.1, &claim.1)
            && selected(volume, &claim.1)
    };
    let smallest = || {
        volumes.iter().filter(free).min_by(|a, b| {
            capacity(&a.1).cmp(&capacity(&b.1)).then_with(|| a.0.meta().name.cmp(&b.0.meta().name))
        })
    };
    reserved.or_else(smallest)
}

/// Whether the volume's reference is to this claim (a reference without a uid is to any claim of that name).
pub fn is_for(volume: &PersistentVolume, claim: &Claim) -> bool {
    let Some(to) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else { return false };
    let meta = claim.0.meta();
    let same_name =
        to.name.as_deref() == Some(&*meta.name) && to.namespace.as_deref() == Some(&*meta.namespace);
    same_name && to.uid.as_deref().is_none_or(|uid| uid.is_empty() || uid == meta.uid)
}

fn read(quantity: Option<&resource::Quantity>) -> Option<Quantity> {
    Quantity::read(&serde_json::Value::String(quantity?.0.clone()))
}

fn capacity(volume: &PersistentVolume) -> Option<Quantity> {
    read(volume.spec.as_ref()?.capacity.as_ref()?.get("storage"))
}

fn suits(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let (Some(volume_spec), Some(claim_spec)) = (&volume.spec, &claim.spec) else { return false };
    let class = |name: &Option<String>| name.clone().unwrap_or_default();
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
    let wanted = claim_spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let wanted = read(wanted.and_then(|requests| requests.get("storage")));
    let offered = volume_spec.access_modes.as_deref().unwrap_or_default();
    class(&volume_spec.storage_class_name) == class(&claim_spec.storage_class_name)
        && mode(&volume_spec.volume_mode) == mode(&claim_spec.volume_mode)
        && claim_spec.access_modes.iter().flatten().all(|mode| offered.contains(mode))
        && capacity(volume) >= wanted
}

fn selected(volume: &Volume, claim: &PersistentVolumeClaim) -> bool {
    let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_none_or(|selector| labels::matches(selector, &volume.0.meta().labels))
}
