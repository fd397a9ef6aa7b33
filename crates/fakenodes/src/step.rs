//! What a fake node does about a pod: a plain function of the pod.

use jiff::Timestamp;
use machinery::Object;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::body::{Containers, running};

/// What is to be done about a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Nothing,
    /// Write this status.
    Write(Value),
    /// It was told to end, and has.
    Remove,
}

/// The fields that a fake node reads.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct PodView {
    pub spec: SpecView,
    pub status: StatusView,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SpecView {
    containers: Vec<ContainerView>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ContainerView {
    name: String,
    image: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StatusView {
    phase: Option<String>,
    conditions: Option<Vec<ConditionView>>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ConditionView {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl PodView {
    pub fn read(pod: &Object) -> Option<Self> {
        serde_json::from_slice(pod.stored()).ok()
    }

    fn is_ready(&self) -> bool {
        let conditions = self.status.conditions.iter().flatten();
        conditions.into_iter().any(|condition| condition.kind == "Ready" && condition.status == "True")
    }
}

/// Pods on node number `node` run at once and end at once. `address` is for those that have none.
pub fn step(
    pod: &Object,
    view: &PodView,
    node: usize,
    address: impl FnOnce() -> String,
    now: Timestamp,
) -> Step {
    if pod.meta().deletion_timestamp.is_some() {
        return Step::Remove;
    }
    let finished = matches!(view.status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if finished || view.status.phase.as_deref() == Some("Running") && view.is_ready() {
        return Step::Nothing;
    }
    let containers: Containers<'_> = view
        .spec
        .containers
        .iter()
        .map(|container| (container.name.as_str(), container.image.as_deref().unwrap_or_default()))
        .collect();
    let address = view.status.pod_ip.clone().unwrap_or_else(address);
    let status = running(&containers, node, &address, now);
    Step::Write(json!({"metadata": {"uid": pod.meta().uid}, "status": status}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(metadata: Value, status: Value) -> Step {
        let value = json!({"metadata": metadata, "status": status,
            "spec": {"nodeName": "fake-1", "containers": [{"name": "c", "image": "i"}]}});
        let pod = Object::from_value(&value, 1).unwrap();
        let view = PodView::read(&pod).unwrap();
        step(&pod, &view, 1, || "100.64.0.1".to_owned(), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn pods_run_until_they_are_told_to_end() {
        let Step::Write(body) = of(json!({"uid": "u"}), json!({})) else { panic!("it does not run") };
        assert_eq!(body["metadata"]["uid"], "u");
        assert_eq!(body["status"]["phase"], "Running");
        assert_eq!(body["status"]["podIP"], "100.64.0.1");
        assert_eq!(body["status"]["containerStatuses"][0]["ready"], true);
        assert_eq!(of(json!({}), body["status"].clone()), Step::Nothing);
        assert_eq!(of(json!({}), json!({"phase": "Failed"})), Step::Nothing);
        let leaving = json!({"deletionTimestamp": "1970-01-01T00:00:00Z"});
        assert_eq!(of(leaving, body["status"].clone()), Step::Remove);
    }

    #[test]
    fn a_pod_that_was_taken_for_lost_is_ready_again() {
        let lost = json!({"phase": "Running", "podIP": "100.64.0.7",
            "conditions": [{"type": "Ready", "status": "False"}]});
        let Step::Write(body) = of(json!({}), lost) else { panic!("it stays lost") };
        assert_eq!(body["status"]["podIP"], "100.64.0.7", "it keeps its address");
    }
}
