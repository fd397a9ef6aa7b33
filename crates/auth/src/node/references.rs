//! What a pod refers to.

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVar, PersistentVolume, Pod, PodSpec, Volume};
use machinery::{Key, Object};

/// What a pod may refer to by name in its namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Secret,
    ConfigMap,
    Claim,
    Account,
}

/// Whether `pod` is in `namespace` and refers to the object.
pub fn refers(pod: &Pod, namespace: &str, wanted: Wanted, name: &str) -> bool {
    let Some(spec) = &pod.spec else { return false };
    if pod.metadata.namespace.as_deref() != Some(namespace) {
        return false;
    }
    match wanted {
        Wanted::Secret => uses_secret(spec, name),
        Wanted::ConfigMap => uses_config_map(spec, name),
        Wanted::Claim => claims_of(pod).iter().any(|key| key.name == name),
        Wanted::Account => spec.service_account_name.as_deref() == Some(name),
    }
}

/// The claims of a pod's volumes.
pub fn claims_of(pod: &Pod) -> Vec<Key> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let name = pod.metadata.name.clone().unwrap_or_default();
    let claim = |volume: &Volume| match &volume.persistent_volume_claim {
        Some(source) => Some(source.claim_name.clone()),
        None => volume.ephemeral.as_ref().map(|_| format!("{name}-{}", volume.name)),
    };
    volumes(pod.spec.as_ref()).filter_map(claim).map(|claim| Key::new(namespace.clone(), claim)).collect()
}

/// The secrets that a persistent volume's driver needs on a node.
pub fn volume_secrets(volume: &Object) -> Vec<Key> {
    let Ok(volume) = volume.typed::<PersistentVolume>() else { return Vec::new() };
    let Some(spec) = &volume.spec else { return Vec::new() };
    let csi = spec.csi.iter().flat_map(|csi| {
        [&csi.node_publish_secret_ref, &csi.node_stage_secret_ref, &csi.node_expand_secret_ref]
            .into_iter()
            .chain([&csi.controller_publish_secret_ref])
    });
    let others = [
        spec.cephfs.as_ref().and_then(|source| source.secret_ref.as_ref()),
        spec.rbd.as_ref().and_then(|source| source.secret_ref.as_ref()),
        spec.iscsi.as_ref().and_then(|source| source.secret_ref.as_ref()),
        spec.flex_volume.as_ref().and_then(|source| source.secret_ref.as_ref()),
    ];
    let references = csi.flatten().chain(others.into_iter().flatten());
    references
        .map(|secret| {
            Key::new(secret.namespace.clone().unwrap_or_default(), secret.name.clone().unwrap_or_default())
        })
        .collect()
}

fn volumes(spec: Option<&PodSpec>) -> impl Iterator<Item = &Volume> {
    spec.and_then(|spec| spec.volumes.as_ref()).into_iter().flatten()
}

/// The environments of all containers.
fn environments(spec: &PodSpec) -> Vec<(&[EnvVar], &[EnvFromSource])> {
    fn of(container: &Container) -> (&[EnvVar], &[EnvFromSource]) {
        (container.env.as_deref().unwrap_or_default(), container.env_from.as_deref().unwrap_or_default())
    }
    let plain = spec.containers.iter().chain(spec.init_containers.iter().flatten()).map(of);
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|container| {
        (container.env.as_deref().unwrap_or_default(), container.env_from.as_deref().unwrap_or_default())
    });
    plain.chain(ephemeral).collect()
}

fn uses_secret(spec: &PodSpec, name: &str) -> bool {
    spec.image_pull_secrets.iter().flatten().any(|secret| secret.name == name)
        || volumes(Some(spec)).any(|volume| volume_uses_secret(volume, name))
        || environments(spec).into_iter().any(|(variables, sources)| {
            sources.iter().any(|source| source.secret_ref.as_ref().is_some_and(|secret| secret.name == name))
                || variables
                    .iter()
                    .filter_map(|variable| variable.value_from.as_ref())
                    .any(|source| source.secret_key_ref.as_ref().is_some_and(|secret| secret.name == name))
        })
}

fn volume_uses_secret(volume: &Volume, name: &str) -> bool {
    let local = [
        volume.csi.as_ref().and_then(|source| source.node_publish_secret_ref.as_ref()),
        volume.cephfs.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.rbd.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.iscsi.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.flex_volume.as_ref().and_then(|source| source.secret_ref.as_ref()),
    ];
    let projected = volume.projected.iter().flat_map(|source| source.sources.iter().flatten());
    volume.secret.as_ref().is_some_and(|source| source.secret_name.as_deref() == Some(name))
        || local.into_iter().flatten().any(|secret| secret.name == name)
        || projected.filter_map(|source| source.secret.as_ref()).any(|secret| secret.name == name)
}

fn uses_config_map(spec: &PodSpec, name: &str) -> bool {
    let volume_uses = |volume: &Volume| {
        let projected = volume.projected.iter().flat_map(|source| source.sources.iter().flatten());
        volume.config_map.as_ref().is_some_and(|source| source.name == name)
            || projected.filter_map(|source| source.config_map.as_ref()).any(|map| map.name == name)
    };
    volumes(Some(spec)).any(volume_uses)
        || environments(spec).into_iter().any(|(variables, sources)| {
            sources.iter().any(|source| source.config_map_ref.as_ref().is_some_and(|map| map.name == name))
                || variables
                    .iter()
                    .filter_map(|variable| variable.value_from.as_ref())
                    .any(|source| source.config_map_key_ref.as_ref().is_some_and(|map| map.name == name))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_sort_of_reference_counts() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "web"},
            "spec": {
                "serviceAccountName": "app",
                "imagePullSecrets": [{"name": "pull"}],
                "volumes": [
                    {"name": "a", "secret": {"secretName": "volume"}},
                    {"name": "b", "projected": {"sources": [{"secret": {"name": "projected"}}, {"configMap": {"name": "map"}}]}},
                    {"name": "c", "persistentVolumeClaim": {"claimName": "claim"}},
                    {"name": "d", "ephemeral": {}},
                ],
                "containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "all"}}]}],
                "initContainers": [{"name": "i", "env": [
                    {"name": "x", "valueFrom": {"configMapKeyRef": {"name": "key", "key": "k"}}},
                    {"name": "y", "valueFrom": {"secretKeyRef": {"name": "one", "key": "k"}}},
                ]}],
            },
        }))
        .unwrap();
        for name in ["pull", "volume", "projected", "all", "one"] {
            assert!(refers(&pod, "web", Wanted::Secret, name), "{name}");
            assert!(!refers(&pod, "db", Wanted::Secret, name), "{name}");
        }
        for name in ["map", "key"] {
            assert!(refers(&pod, "web", Wanted::ConfigMap, name), "{name}");
            assert!(!refers(&pod, "web", Wanted::Secret, name), "{name}");
        }
        assert!(refers(&pod, "web", Wanted::Claim, "claim") && refers(&pod, "web", Wanted::Claim, "p-d"));
        assert!(refers(&pod, "web", Wanted::Account, "app"));
    }
}
