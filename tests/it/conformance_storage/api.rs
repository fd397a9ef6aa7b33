//! What sig-storage asks of the API alone.

use serde_json::{Value, json};

use crate::lifecycle::Kind;
use crate::space::{Space, condition, shell, with};

fn kind<'a>(space: &'a Space<'_>, path: &str, object: Value) -> Kind<'a> {
    Kind { rest: space.rest, path: path.to_owned(), object }
}

fn storage(resource: &str) -> String {
    format!("/apis/storage.k8s.io/v1/{resource}")
}

// conformance: [sig-storage] CSIInlineVolumes should run through the lifecycle of a CSIDriver
pub fn drivers(space: &Space<'_>) {
    let object = json!({"metadata": {}, "spec": {"attachRequired": false, "podInfoOnMount": true, "volumeLifecycleModes": ["Ephemeral"]}});
    kind(space, &storage("csidrivers"), object).lives("e2e-csi-driver", json!({}));
}

// conformance: [sig-storage] CSIInlineVolumes should support CSIVolumeSource in Pod API
pub fn inline_volumes(space: &Space<'_>) {
    let csi = json!({"driver": "e2e.example.com", "readOnly": true, "fsType": "fs", "volumeAttributes": {"foo": "bar"}});
    let volume = json!({"name": "inline", "csi": csi});
    let main =
        with(shell("main", "true"), json!({"volumeMounts": [{"name": "inline", "mountPath": "/mnt"}]}));
    space.pod_with(
        "inline",
        json!({"labels": {"csi": "x"}}),
        json!({"containers": [main], "volumes": [volume]}),
    );
    let list = space.get("pods?labelSelector=csi%3Dx");
    let volumes = list["items"][0]["spec"]["volumes"].as_array().unwrap();
    assert!(volumes.iter().any(|volume| volume["csi"] == csi), "{list}");
    let patched = space.patch("pods/inline", &json!({"metadata": {"labels": {"patched": "yes"}}}));
    assert_eq!(patched["metadata"]["labels"]["patched"], "yes");
    space.until("inline", "scheduled", |pod| condition(pod, "PodScheduled") == "True");
    space.delete("pods/inline");
    let path = space.path("pods/inline");
    space.wait("it is gone", || (space.rest.call("GET", &path, None).0 == 404).then_some(()));
}

// conformance: [sig-storage] CSINodes CSI Conformance should run through the lifecycle of a csinode
pub fn csi_nodes(space: &Space<'_>) {
    kind(space, &storage("csinodes"), json!({"metadata": {}, "spec": {"drivers": []}})).lives(
        "e2e-csi-node",
        json!({"spec": {"drivers": [{"name": "d", "nodeID": "n", "topologyKeys": null}]}}),
    );
}

// conformance: [sig-storage] CSIStorageCapacity should support CSIStorageCapacities API operations
pub fn capacities(space: &Space<'_>) {
    let path = space.path("storage.k8s.io/v1:csistoragecapacities");
    kind(space, &path, json!({"metadata": {}, "storageClassName": "sc"}))
        .lives("capacity", json!({"capacity": "1Gi"}));
}

// conformance: [sig-storage] StorageClasses CSI Conformance should run through the lifecycle of a StorageClass
pub fn storage_classes(space: &Space<'_>) {
    let object = json!({"metadata": {}, "provisioner": "e2e-fake-provisioner", "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"});
    kind(space, &storage("storageclasses"), object).lives("e2e-storage-class", json!({}));
}

// conformance: [sig-storage] VolumeAttributesClass [FeatureGate:VolumeAttributesClass] should run through the lifecycle of a VolumeAttributesClass
pub fn attributes_classes(space: &Space<'_>) {
    let object = json!({"metadata": {}, "driverName": "e2e-fake-csi-driver", "parameters": {"foo": "1"}});
    kind(space, &storage("volumeattributesclasses"), object).lives("e2e-attributes", json!({}));
}

fn attachment() -> Value {
    json!({"metadata": {}, "spec": {"attacher": "e2e.example.com", "nodeName": "node", "source": {"persistentVolumeName": "pv"}}})
}

// conformance: [sig-storage] VolumeAttachment Conformance should run through the lifecycle of a VolumeAttachment
// conformance: [sig-storage] VolumeAttachment Conformance should apply changes to a volumeattachment status
pub fn attachments(space: &Space<'_>) {
    let attachments = kind(space, &storage("volumeattachments"), attachment());
    attachments.lives("e2e-va", json!({}));
    attachments.has_status("e2e-va-status", json!({"attached": true, "attachmentMetadata": {"a": "b"}}));
}

fn volume() -> Value {
    json!({"metadata": {}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
        "storageClassName": "e2e-none", "persistentVolumeReclaimPolicy": "Retain",
        "csi": {"driver": "e2e-driver", "volumeHandle": "e2e-handle"}}})
}

fn claim() -> Value {
    json!({"metadata": {}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "e2e-other",
        "resources": {"requests": {"storage": "1Gi"}}}})
}

// conformance: [sig-storage] PersistentVolumes CSI Conformance should run through the lifecycle of a PV and a PVC
// conformance: [sig-storage] PersistentVolumes CSI Conformance should apply changes to a pv/pvc status
pub fn volumes_and_claims(space: &Space<'_>) {
    let volumes = kind(space, "/api/v1/persistentvolumes", volume());
    volumes.lives("e2e-pv", json!({"metadata": {"labels": {"x": "y"}}}));
    volumes.has_status("e2e-pv-status", json!({"message": "patched", "reason": "E2E"}));
    let path = space.path("persistentvolumeclaims");
    let claims = kind(space, &path, claim());
    claims.lives("e2e-pvc", json!({"metadata": {"labels": {"x": "y"}}}));
    let condition = json!({"type": "StatusPatched", "status": "True", "reason": "E2E", "message": "patched"});
    claims.has_status("e2e-pvc-status", json!({"conditions": [condition]}));
}
