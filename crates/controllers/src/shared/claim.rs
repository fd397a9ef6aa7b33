//! Which objects an owner manages: those that name it and match, and orphans that it takes over.

use std::sync::Arc;

use client::{Cache, ORPHANS, OWNER_INDEX, Target, typed};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use machinery::selector::labels;
use machinery::{Object, ObjectMeta};
use reconcile::Action;
use serde_json::Value;

use super::{owners, pods};

/// A pod as it is stored and as it is read.
pub type ObservedPod = (Arc<Object>, Arc<Pod>);

/// What `uid` manages, and what nobody manages and the selector matches.
pub fn candidates(cache: &Cache, namespace: &str, uid: &str, selector: &LabelSelector) -> Vec<Arc<Object>> {
    let mut found = cache.indexed_in(OWNER_INDEX, uid, namespace);
    found.retain(|object| owners::is_controlled_by(object, uid));
    if !labels::is_empty(selector) {
        let orphans = cache.indexed_in(OWNER_INDEX, ORPHANS, namespace);
        found.extend(orphans.into_iter().filter(|orphan| labels::matches(selector, &orphan.meta().labels)));
    }
    found
}

/// The pods among the candidates; what cannot be read is left out.
pub fn candidate_pods(
    cache: &Cache,
    namespace: &str,
    uid: &str,
    selector: &LabelSelector,
) -> Vec<ObservedPod> {
    let found = candidates(cache, namespace, uid, selector);
    found.into_iter().filter_map(|object| typed::<Pod>(&object).ok().map(|pod| (object, pod))).collect()
}

/// How an owner takes pods over and lets them go.
pub struct Claim<'a> {
    pub owner: &'a ObjectMeta,
    pub selector: &'a LabelSelector,
    pub collection: Target,
    /// The controller reference that a managed pod carries.
    pub reference: Value,
}

impl Claim<'_> {
    /// The pods that are the owner's, and what makes it so. `fits` is asked of pods whose labels match.
    pub fn pods(
        &self,
        observed: &[ObservedPod],
        fits: impl Fn(&Object) -> bool,
    ) -> (Vec<ObservedPod>, Vec<Action>) {
        let deleting = self.owner.deletion_timestamp.is_some();
        let (mut ours, mut actions) = (Vec::new(), Vec::new());
        for (object, pod) in observed {
            let managed = owners::is_controlled_by(object, &self.owner.uid);
            let matches = labels::matches(self.selector, &object.meta().labels) && fits(object);
            match (managed, matches) {
                (true, true) => ours.push((object.clone(), pod.clone())),
                (true, false) if !deleting => {
                    actions.push(owners::release(self.collection.clone(), object, &self.owner.uid));
                }
                (false, true)
                    if !deleting
                        && pods::is_active(pod)
                        && owners::controller_of(object.meta()).is_none() =>
                {
                    actions.push(owners::adopt(self.collection.clone(), object, self.reference.clone()));
                    ours.push((object.clone(), pod.clone()));
                }
                _ => {}
            }
        }
        (ours, actions)
    }
}
