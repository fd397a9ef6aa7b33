//! Persistent volumes and claims: binding one to the other, and keeping both while they are used.
//!
//! Nothing is provisioned or recycled here: volumes are made by people or by provisioners of their own.

mod bind;
mod matching;
mod protection;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::{Cache, Caches, typed};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use machinery::{Key, Object};
use reconcile::{Controller, Input, Plan};

pub use protection::{ClaimProtection, VolumeProtection};

/// A claim as it is stored and read.
pub type Claim = (Arc<Object>, Arc<PersistentVolumeClaim>);
/// A volume as it is stored and read.
pub type Volume = (Arc<Object>, Arc<PersistentVolume>);

/// The binder. Its keys are claims and, without a namespace, volumes.
pub struct Binder {
    claims: Cache,
    volumes: Cache,
    classes: Cache,
}

impl Binder {
    pub fn new(caches: &Caches) -> Self {
        Self {
            claims: caches.of::<PersistentVolumeClaim>(),
            volumes: caches.of::<PersistentVolume>(),
            classes: caches.of::<StorageClass>(),
        }
    }

    fn volumes(&self) -> Vec<Volume> {
        let all = self.volumes.all();
        all.into_iter().filter_map(|object| typed(&object).ok().map(|view| (object, view))).collect()
    }

    fn class(&self, claim: &PersistentVolumeClaim) -> Option<Arc<StorageClass>> {
        let name = claim.spec.as_ref()?.storage_class_name.as_deref()?;
        typed(&*self.classes.get(&Key::new("", name))?).ok()
    }

    fn plan_claim(&self, key: &Key) -> Plan {
        let Some(object) = self.claims.get(key) else { return Plan::nothing() };
        let Ok(view) = typed::<PersistentVolumeClaim>(&object) else { return Plan::nothing() };
        let class = self.class(&view);
        bind::claim(&(object, view), &self.volumes(), class.as_deref())
    }

    fn plan_volume(&self, key: &Key) -> Plan {
        let Some(object) = self.volumes.get(key) else { return Plan::nothing() };
        let Ok(view) = typed::<PersistentVolume>(&object) else { return Plan::nothing() };
        let bound = view.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        let claim = bound.and_then(|claim| {
            let key = Key::new(claim.namespace.as_deref()?, claim.name.as_deref()?);
            self.claims.get(&key)
        });
        bind::volume(&(object, view), claim.as_deref())
    }
}

impl Controller for Binder {
    fn name(&self) -> &'static str {
        "persistentvolume-binder"
    }

    fn inputs(&self) -> Vec<Input> {
        let (claims, of_class) = (self.claims.clone(), self.claims.clone());
        let pending = |claims: &Cache| -> Vec<Key> {
            let unbound = |claim: &Arc<Object>| {
                typed::<PersistentVolumeClaim>(claim).is_ok_and(|claim| {
                    claim.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Bound")
                })
            };
            claims.all().iter().filter(|claim| unbound(claim)).map(|claim| claim.key()).collect()
        };
        let of_claim = |claim: &Object| {
            let volume = typed::<PersistentVolumeClaim>(claim).ok();
            let volume = volume.and_then(|claim| claim.spec.as_ref()?.volume_name.clone());
            volume.map(|name| Key::new("", name)).into_iter().chain([claim.key()]).collect()
        };
        let of_volume = move |volume: &Object| {
            let mut keys = pending(&claims);
            keys.push(volume.key());
            let bound = typed::<PersistentVolume>(volume).ok();
            let bound = bound.and_then(|volume| volume.spec.as_ref()?.claim_ref.clone());
            keys.extend(bound.and_then(|claim| Some(Key::new(claim.namespace?, claim.name?))));
            keys
        };
        vec![
            Input::new(self.claims.clone(), of_claim),
            Input::new(self.volumes.clone(), of_volume),
            Input::new(self.classes.clone(), move |_| pending(&of_class)),
        ]
    }

    fn plan(&self, key: &Key, _now: Timestamp) -> Plan {
        if key.namespace.is_empty() { self.plan_volume(key) } else { self.plan_claim(key) }
    }
}
