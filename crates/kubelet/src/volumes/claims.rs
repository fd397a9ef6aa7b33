//! Persistent volume claims that are bound to a directory of this machine (`hostPath` and `local` volumes).

use std::path::PathBuf;

use client::Client;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::host_path;

/// Where the claim's data is. `Err` says why it cannot be had.
pub async fn locate(client: &Client, namespace: &str, claim: &str) -> Result<PathBuf, String> {
    let text = |error: machinery::Status| error.to_string();
    let object = client.namespaced::<PersistentVolumeClaim>(namespace).get(claim).await.map_err(text)?;
    let found: std::sync::Arc<PersistentVolumeClaim> = client::typed(&object).map_err(text)?;
    let phase = found.status.as_ref().and_then(|status| status.phase.as_deref());
    let volume =
        found.spec.as_ref().and_then(|spec| spec.volume_name.clone()).filter(|name| !name.is_empty());
    let Some(volume) = volume.filter(|_| phase == Some("Bound")) else {
        return Err(format!("error processing PVC {namespace}/{claim}: PVC is not bound"));
    };
    let object = client.cluster::<PersistentVolume>().get(&volume).await.map_err(text)?;
    let found: std::sync::Arc<PersistentVolume> = client::typed(&object).map_err(text)?;
    let spec = found.spec.clone().unwrap_or_default();
    let bound = spec
        .claim_ref
        .as_ref()
        .is_some_and(|to| to.name.as_deref() == Some(claim) && to.namespace.as_deref() == Some(namespace));
    if !bound {
        return Err(format!("PV {volume} is not bound to claim {namespace}/{claim}"));
    }
    if let Some(host) = spec.host_path {
        let path = PathBuf::from(host.path);
        host_path::check(&path, host.type_.as_deref().unwrap_or_default())?;
        return Ok(path);
    }
    match spec.local {
        Some(local) => Ok(PathBuf::from(local.path)),
        None => Err(format!(
            "the kind of persistent volume {volume} is not supported: only hostPath and local are"
        )),
    }
}
