//! Looking at what the runtime has.

use std::collections::BTreeMap;

use containers::{ContainerStatus, PodIdentity, RuntimeError, SandboxStatus};

use super::pulling::image_ref;
use super::shared::Shared;
use super::termination;
use crate::machine::Observed;

/// Sandboxes and containers of one pod.
pub type Belongings = (Vec<SandboxStatus>, Vec<Observed>);

/// Everything the runtime has, by the pod's uid.
pub async fn all(shared: &Shared) -> Result<BTreeMap<String, (PodIdentity, Belongings)>, RuntimeError> {
    let (sandboxes, containers) = tokio::try_join!(shared.runtime.sandboxes(), shared.runtime.containers())?;
    let mut pods: BTreeMap<String, (PodIdentity, Belongings)> = BTreeMap::new();
    let mut owners = BTreeMap::new();
    for sandbox in sandboxes {
        let pod = sandbox.config.pod.clone();
        owners.insert(sandbox.id.clone(), pod.uid.clone());
        pods.entry(pod.uid.clone()).or_insert_with(|| (pod, Belongings::default())).1.0.push(sandbox);
    }
    for container in containers {
        let Some(uid) = owners.get(&container.sandbox) else { continue };
        if let Some((_, (_, list))) = pods.get_mut(uid) {
            list.push(observed(shared, container).await);
        }
    }
    Ok(pods)
}

/// What the runtime has for one pod.
pub async fn pod(shared: &Shared, pod: &PodIdentity) -> Result<Belongings, RuntimeError> {
    let found = all(shared).await?.remove(&pod.uid);
    Ok(found.map(|(_, belongings)| belongings).unwrap_or_default())
}

async fn observed(shared: &Shared, status: ContainerStatus) -> Observed {
    let image = shared.images.find(&status.config.image_id).await.ok().flatten();
    let image_reference = image.map_or(status.config.image_id.clone(), |image| image_ref(&image).reference);
    Observed { message: termination::message(&status), status, image_reference }
}
