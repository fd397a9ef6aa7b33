//! Claims stay while a scheduled pod names them, volumes while they are bound: each has a finalizer that goes only then.

use client::{Cache, Caches, Patch, Target, target_of, typed};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use machinery::{Key, Object};
use reconcile::plan::named;
use reconcile::{Action, Controller, Input, Plan};
use serde_json::json;

const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

fn waits(object: &Object, finalizer: &str) -> bool {
    let meta = object.meta();
    meta.deletion_timestamp.is_some() && meta.finalizers.iter().any(|name| name == finalizer)
}

fn release(collection: Target, object: &Object, finalizer: &str) -> Plan {
    let field = "$deleteFromPrimitiveList/finalizers";
    let body = json!({"metadata": {"uid": object.meta().uid, field: [finalizer]}});
    let patch = Action::Patch { target: named(collection, object), patch: Patch::StrategicMerge(body) };
    Plan { actions: vec![patch], ..Plan::nothing() }
}

/// The claims that a pod on a node uses. A generic ephemeral volume's claim has the name `POD-VOLUME`.
pub fn used_by(pod: &Pod) -> Vec<String> {
    let Some(spec) = pod.spec.as_ref().filter(|spec| spec.node_name.is_some()) else { return Vec::new() };
    let claim = |volume: &k8s_openapi::api::core::v1::Volume| {
        let ephemeral = volume.ephemeral.as_ref();
        let named = volume.persistent_volume_claim.as_ref().map(|source| source.claim_name.clone());
        let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
        named.or_else(|| ephemeral.map(|_| format!("{pod_name}-{}", volume.name)))
    };
    spec.volumes.iter().flatten().filter_map(claim).collect()
}

/// The controller of claims' finalizer.
pub struct ClaimProtection {
    claims: Cache,
    pods: Cache,
}

impl ClaimProtection {
    pub fn new(caches: &Caches) -> Self {
        Self { claims: caches.of::<PersistentVolumeClaim>(), pods: caches.of::<Pod>() }
    }
}

impl Controller for ClaimProtection {
    fn name(&self) -> &'static str {
        "pvc-protection-controller"
    }

    fn inputs(&self) -> Vec<Input> {
        let claims = self.claims.clone();
        let of_pod = move |pod: &Object| {
            let namespace = &pod.meta().namespace;
            // Pods matter only where a claim waits, which is rare.
            let waiting =
                claims.namespace(namespace).into_iter().filter(|claim| waits(claim, CLAIM_FINALIZER));
            waiting.map(|claim| claim.key()).collect()
        };
        vec![Input::own(self.claims.clone()), Input::new(self.pods.clone(), of_pod)]
    }

    fn plan(&self, key: &Key, _now: Timestamp) -> Plan {
        let Some(claim) = self.claims.get(key).filter(|claim| waits(claim, CLAIM_FINALIZER)) else {
            return Plan::nothing();
        };
        let uses = |pod: &Object| typed::<Pod>(pod).is_ok_and(|pod| used_by(&pod).contains(&key.name));
        if self.pods.namespace(&key.namespace).iter().any(|pod| uses(pod)) {
            return Plan::nothing();
        }
        release(target_of::<PersistentVolumeClaim>(""), &claim, CLAIM_FINALIZER)
    }
}

/// The controller of volumes' finalizer.
pub struct VolumeProtection {
    volumes: Cache,
}

impl VolumeProtection {
    pub fn new(caches: &Caches) -> Self {
        Self { volumes: caches.of::<PersistentVolume>() }
    }
}

impl Controller for VolumeProtection {
    fn name(&self) -> &'static str {
        "pv-protection-controller"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::own(self.volumes.clone())]
    }

    fn plan(&self, key: &Key, _now: Timestamp) -> Plan {
        let waiting = self.volumes.get(key).filter(|volume| waits(volume, VOLUME_FINALIZER));
        let Some(volume) = waiting else { return Plan::nothing() };
        let phase = typed::<PersistentVolume>(&volume).ok();
        let phase = phase.and_then(|volume| volume.status.as_ref()?.phase.clone());
        if phase.as_deref() == Some("Bound") {
            return Plan::nothing();
        }
        release(target_of::<PersistentVolume>(""), &volume, VOLUME_FINALIZER)
    }
}
