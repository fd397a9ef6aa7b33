use serde_json::{Value, json};

use super::*;
use crate::shared::testing::{ago, describe, object, pod, ready};

fn claim(spec: Value, more: Value) -> Claim {
    let mut value = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "c", "namespace": "n", "uid": "cu"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Pending"}});
    for (field, given) in spec.as_object().into_iter().flatten() {
        value["spec"][field] = given.clone();
    }
    for (field, given) in more.as_object().into_iter().flatten() {
        value["metadata"][field] = given.clone();
    }
    let object = object(&value);
    let view = typed(&object).unwrap();
    (object, view)
}

fn volume(name: &str, spec: Value) -> Volume {
    let mut value = json!({"apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": name, "uid": format!("u-{name}"), "labels": {"name": name}},
        "spec": {"accessModes": ["ReadWriteOnce", "ReadOnlyMany"], "capacity": {"storage": "1Gi"}}});
    for (field, given) in spec.as_object().into_iter().flatten() {
        value["spec"][field] = given.clone();
    }
    let object = object(&value);
    let view = typed(&object).unwrap();
    (object, view)
}

#[test]
fn the_best_volume() {
    let size = |size: &str| json!({"capacity": {"storage": size}});
    let plain = json!({});
    for (spec, volumes, wanted) in [
        (&plain, vec![("a", json!({})), ("b", json!({}))], Some("a")),
        (&plain, vec![("a", size("3Gi")), ("b", size("2Gi"))], Some("b")),
        (&plain, vec![("a", size("900Mi"))], None),
        (&plain, vec![("a", json!({"storageClassName": "fast"}))], None),
        (&json!({"storageClassName": "fast"}), vec![("a", json!({"storageClassName": "fast"}))], Some("a")),
        (&plain, vec![("a", json!({"volumeMode": "Block"}))], None),
        (&json!({"accessModes": ["ReadWriteMany"]}), vec![("a", json!({}))], None),
        (
            &json!({"selector": {"matchLabels": {"name": "b"}}}),
            vec![("a", json!({})), ("b", json!({}))],
            Some("b"),
        ),
        (&plain, vec![("a", json!({"claimRef": {"namespace": "n", "name": "other"}}))], None),
        (
            &plain,
            vec![("a", json!({})), ("b", json!({"claimRef": {"namespace": "n", "name": "c"}}))],
            Some("b"),
        ),
        (&plain, vec![("a", json!({"claimRef": {"namespace": "n", "name": "c", "uid": "old"}}))], None),
    ] {
        let claim = claim(spec.clone(), json!({}));
        let volumes: Vec<Volume> = volumes.into_iter().map(|(name, spec)| volume(name, spec)).collect();
        let found = matching::best(&claim, &volumes).map(|(object, _)| object.meta().name.clone());
        assert_eq!(found.as_deref(), wanted, "{spec}");
    }
}

#[test]
fn binding_goes_step_by_step() {
    let to_us = json!({"claimRef": {"namespace": "n", "name": "c", "uid": "cu"}});
    let step =
        |claim: &Claim, volume: &Volume| describe(&bind::claim(claim, std::slice::from_ref(volume), None));
    let first = step(&claim(json!({}), json!({})), &volume("a", json!({})));
    assert!(first.starts_with("patch persistentvolumes a:") && first.contains(r#""uid":"cu""#), "{first}");
    let second = step(&claim(json!({}), json!({})), &volume("a", to_us.clone()));
    assert!(
        second.starts_with("patch persistentvolumeclaims c:") && second.contains(r#""volumeName":"a""#),
        "{second}"
    );
    let named =
        claim(json!({"volumeName": "a"}), json!({"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}));
    let third = step(&named, &volume("a", to_us));
    assert_eq!(
        third,
        r#"patch persistentvolumeclaims/status c: {"status":{"accessModes":["ReadWriteOnce","ReadOnlyMany"],"capacity":{"storage":"1Gi"},"phase":"Bound"}}"#
    );
    let lost = describe(&bind::claim(&named, &[], None));
    assert_eq!(lost, r#"patch persistentvolumeclaims/status c: {"status":{"phase":"Lost"}}"#);
}

#[test]
fn claims_wait_and_say_why() {
    let class = |mode: &str, provisioner: &str| -> StorageClass {
        serde_json::from_value(
            json!({"metadata": {"name": "k"}, "provisioner": provisioner, "volumeBindingMode": mode}),
        )
        .unwrap()
    };
    let reason = |claim: &Claim, class: Option<&StorageClass>| {
        let text = describe(&bind::claim(claim, &[], class));
        text.split(':').next().unwrap_or_default().to_owned()
    };
    let classed = || claim(json!({"storageClassName": "k"}), json!({}));
    assert_eq!(reason(&claim(json!({}), json!({})), None), "event FailedBinding");
    assert_eq!(reason(&classed(), None), "event ProvisioningFailed");
    assert_eq!(reason(&classed(), Some(&class("Immediate", "example.com/x"))), "event ExternalProvisioning");
    let late = class("WaitForFirstConsumer", "kubernetes.io/no-provisioner");
    assert_eq!(reason(&classed(), Some(&late)), "event WaitForFirstConsumer");
    let chosen = claim(
        json!({"storageClassName": "k"}),
        json!({"annotations": {"volume.kubernetes.io/selected-node": "x"}}),
    );
    let text = describe(&bind::claim(&chosen, &[volume("a", json!({"storageClassName": "k"}))], Some(&late)));
    assert!(text.starts_with("patch persistentvolumes a:"), "{text}");
}

#[test]
fn phases_of_volumes() {
    let claim = claim(json!({}), json!({}));
    let to = |uid: &str| json!({"claimRef": {"namespace": "n", "name": "c", "uid": uid}});
    for (spec, claim, wanted) in [
        (json!({}), None, "Available"),
        (json!({"claimRef": {"namespace": "n", "name": "c"}}), None, "Available"),
        (to("cu"), Some(&*claim.0), "Bound"),
        (to("old"), Some(&*claim.0), "Released"),
        (to("cu"), None, "Released"),
    ] {
        let text = describe(&bind::volume(&volume("a", spec), claim));
        assert!(text.contains(wanted), "{text}");
    }
}

#[test]
fn claims_that_pods_use() {
    let volumes = json!([{"name": "a", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "b", "ephemeral": {}},
        {"name": "d", "emptyDir": {}}]);
    let on_node = pod("p", "", json!({}), json!({"nodeName": "x", "volumes": volumes}), ready());
    assert_eq!(protection::used_by(&on_node.1), ["c", "p-b"]);
    let waiting = pod("p", "", json!({}), json!({"volumes": volumes}), json!({"startTime": ago(1)}));
    assert!(protection::used_by(&waiting.1).is_empty());
}
