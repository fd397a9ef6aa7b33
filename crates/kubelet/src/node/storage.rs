//! How much of the disk a pod may use: limits of its emptyDir volumes and of its containers, and who goes first when
//! the disk is short.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::quantity;

const NAME: &str = "ephemeral-storage";

/// What a pod occupies, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Occupied {
    /// By emptyDir volume on disk.
    pub volumes: BTreeMap<String, u64>,
    /// By container: its writable layer and its logs.
    pub containers: BTreeMap<String, u64>,
}

impl Occupied {
    pub fn total(&self) -> u64 {
        self.volumes.values().chain(self.containers.values()).sum()
    }
}

/// The emptyDir volumes on disk.
pub fn disk_volumes(pod: &Pod) -> impl Iterator<Item = (&str, Option<&str>)> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| {
        let source = volume.empty_dir.as_ref()?;
        let on_disk = source.medium.as_deref().unwrap_or_default().is_empty();
        let limit = source.size_limit.as_ref().filter(|limit| quantity::units(limit).is_some_and(|n| n > 0));
        on_disk.then_some((volume.name.as_str(), limit.map(|limit| limit.0.as_str())))
    })
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()))
}

fn limit(container: &Container) -> Option<&str> {
    let limits = container.resources.as_ref()?.limits.as_ref()?;
    limits.get(NAME).map(|limit| limit.0.as_str())
}

fn bytes(text: &str) -> u64 {
    let quantity = k8s_openapi::apimachinery::pkg::api::resource::Quantity(text.to_owned());
    quantity::units(&quantity).map_or(u64::MAX, |bytes| bytes.max(0).unsigned_abs())
}

/// Whether the pod has a limit that must be watched.
pub fn is_limited(pod: &Pod) -> bool {
    disk_volumes(pod).any(|(_, limit)| limit.is_some()) || containers(pod).any(|c| limit(c).is_some())
}

/// Upstream's message when the pod uses more of the disk than it may.
pub fn exceeds(pod: &Pod, occupied: &Occupied) -> Option<String> {
    for (name, limit) in disk_volumes(pod) {
        let used = occupied.volumes.get(name).copied().unwrap_or(0);
        if let Some(limit) = limit.filter(|limit| used > bytes(limit)) {
            return Some(format!("Usage of EmptyDir volume {name:?} exceeds the limit {limit:?}. "));
        }
    }
    let mains = pod.spec.iter().flat_map(|spec| &spec.containers);
    let total: Option<u64> =
        mains.map(|c| limit(c).map(bytes)).try_fold(0_u64, |sum, own| Some(sum.saturating_add(own?)));
    if let Some(total) = total.filter(|total| occupied.total() > *total) {
        return Some(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {}. ",
            shown(total)
        ));
    }
    containers(pod).find_map(|container| {
        let used = occupied.containers.get(&container.name).copied().unwrap_or(0);
        let limit = limit(container).filter(|limit| used > bytes(limit))?;
        Some(format!("Container {} exceeded its local ephemeral storage limit {limit:?}. ", container.name))
    })
}

/// Bytes in the largest binary unit that needs no fraction, as quantities are written.
fn shown(bytes: u64) -> String {
    let units = [("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
    let fits = units.iter().find(|(_, shift)| bytes > 0 && bytes.is_multiple_of(1 << shift));
    fits.map_or_else(|| bytes.to_string(), |(name, shift)| format!("{}{name}", bytes >> shift))
}

/// What the pod asked for of the disk, in bytes.
pub fn requested(pod: &Pod) -> i64 {
    let of = |container: &Container| {
        let resources = container.resources.as_ref()?;
        resources.requests.as_ref()?.get(NAME).and_then(quantity::units)
    };
    pod.spec.iter().flat_map(|spec| &spec.containers).filter_map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(spec: Value, volumes: &[(&str, u64)], containers: &[(&str, u64)], want: Option<&str>) {
        let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
        let map =
            |list: &[(&str, u64)]| list.iter().map(|(name, used)| ((*name).to_owned(), *used)).collect();
        let occupied = Occupied { volumes: map(volumes), containers: map(containers) };
        assert_eq!(exceeds(&pod, &occupied).as_deref(), want);
    }

    #[test]
    fn limits() {
        let volume = |medium: &str| {
            json!({"containers": [{"name": "c"}],
            "volumes": [{"name": "v", "emptyDir": {"medium": medium, "sizeLimit": "1Mi"}}]})
        };
        check(volume(""), &[("v", 1 << 20)], &[], None);
        let message = "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ";
        check(volume(""), &[("v", (1 << 20) + 1)], &[("c", 5)], Some(message));
        check(volume("Memory"), &[("v", 1 << 30)], &[], None);
        let limited =
            |limit: &str| json!({"name": "c", "resources": {"limits": {"ephemeral-storage": limit}}});
        let one = json!({"containers": [limited("2Ki"), {"name": "d"}]});
        check(one.clone(), &[], &[("c", 2048), ("d", 1 << 30)], None);
        let message = "Container c exceeded its local ephemeral storage limit \"2Ki\". ";
        check(one, &[], &[("c", 2049)], Some(message));
        let both = json!({"containers": [limited("1Ki"), limited("1Ki")], "volumes": [{"name": "v", "emptyDir": {}}]});
        let message = "Pod ephemeral local storage usage exceeds the total limit of containers 2Ki. ";
        check(both, &[("v", 2049)], &[], Some(message));
    }

    #[test]
    fn what_is_watched() {
        let pod = |spec: Value| -> Pod { serde_json::from_value(json!({"spec": spec})).unwrap() };
        assert!(!is_limited(&pod(json!({"containers": [], "volumes": [{"name": "v", "emptyDir": {}}]}))));
        assert!(is_limited(&pod(
            json!({"containers": [], "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1"}}]})
        )));
    }
}
