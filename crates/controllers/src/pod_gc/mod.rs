//! Pods that nobody will remove otherwise: those of nodes that are gone, those that were deleted before they were
//! scheduled, and the oldest finished ones when there are too many.

use client::{Cache, Caches, DeleteOptions, NODE_INDEX, Patch, Preconditions, target_of, typed};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use machinery::{Key, Object};
use reconcile::plan::named;
use reconcile::{Action, Controller, Input, Plan};
use serde::Deserialize;
use serde_json::json;

use crate::shared::pods;

/// `--terminated-pod-gc-threshold` upstream.
const FINISHED_MAX: usize = 12_500;

/// The controller. Its one key is the whole cluster, as the threshold is.
pub struct PodGarbage {
    pods: Cache,
    nodes: Cache,
}

impl PodGarbage {
    pub fn new(caches: &Caches) -> Self {
        Self { pods: caches.of::<Pod>(), nodes: caches.of::<Node>() }
    }

    fn is_orphaned(&self, pod: &Pod) -> bool {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        node.is_some_and(|node| self.nodes.get(&Key::new("", node)).is_none())
    }
}

impl Controller for PodGarbage {
    fn name(&self) -> &'static str {
        "pod-garbage-collector"
    }

    fn inputs(&self) -> Vec<Input> {
        let (nodes, pods, bound) = (self.nodes.clone(), self.pods.clone(), self.pods.clone());
        // Only pods that could be garbage are worth a look; a node that leaves makes all its pods so.
        let suspicious = move |object: &Object| {
            let suspect = match object.node_name() {
                "" => object.meta().deletion_timestamp.is_some(),
                node => nodes.get(&Key::new("", node)).is_none(),
            };
            // There cannot be too many finished pods among few.
            let suspect = suspect || pods.len() > FINISHED_MAX && is_finished(object);
            if suspect { vec![object.key()] } else { Vec::new() }
        };
        let by_node = move |node: &Object| {
            let pods = bound.indexed(NODE_INDEX, &node.meta().name);
            pods.iter().map(|pod| pod.key()).collect()
        };
        vec![Input::new(self.pods.clone(), suspicious), Input::new(self.nodes.clone(), by_node)]
    }

    fn plan(&self, key: &Key, now: Timestamp) -> Plan {
        let Some(object) = self.pods.get(key) else { return Plan::nothing() };
        let Ok(pod) = typed::<Pod>(&object) else { return Plan::nothing() };
        let scheduled = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        let abandoned = self.is_orphaned(&pod);
        if abandoned || (!scheduled && pods::is_deleting(&pod)) {
            return Plan {
                actions: vec![remove(&object)],
                status: fail(&object, &pod, abandoned, now),
                next: None,
            };
        }
        if pods::is_finished(&pod) && self.pods.len() > FINISHED_MAX {
            return Plan { actions: self.surplus(), ..Plan::nothing() };
        }
        Plan::nothing()
    }
}

impl PodGarbage {
    fn surplus(&self) -> Vec<Action> {
        let all = self.pods.all();
        let finished = all.iter().filter_map(|object| Some((object, typed::<Pod>(object).ok()?)));
        let mut finished: Vec<_> = finished.filter(|(_, pod)| pods::is_finished(pod)).collect();
        let surplus = finished.len().saturating_sub(FINISHED_MAX);
        finished.sort_by_key(|(_, pod)| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
        finished[..surplus].iter().map(|(object, _)| remove(object)).collect()
    }
}

/// Whether the pod's phase is a last one. Nothing else of it is decoded.
fn is_finished(pod: &Object) -> bool {
    #[derive(Deserialize)]
    struct Pod {
        status: Option<Status>,
    }
    #[derive(Deserialize)]
    struct Status {
        phase: Option<String>,
    }
    let phase = pod.part::<Pod>().ok().and_then(|pod| pod.status?.phase);
    matches!(phase.as_deref(), Some("Succeeded" | "Failed"))
}

fn remove(object: &Object) -> Action {
    let options = DeleteOptions {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: Some(object.meta().uid.clone()), resource_version: None }),
        ..DeleteOptions::default()
    };
    Action::Delete { target: named(target_of::<Pod>(""), object), options, announce: None }
}

/// A pod of a lost node that has finalizers stays visible; it is shown as failed.
fn fail(object: &Object, pod: &Pod, abandoned: bool, now: Timestamp) -> Option<Action> {
    if !abandoned || pods::is_finished(pod) || object.meta().finalizers.is_empty() {
        return None;
    }
    let body = json!({"status": {"phase": "Failed", "conditions": [{
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "DeletionByPodGC",
        "message": "PodGC: node no longer exists",
        "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    }]}});
    let mut target = named(target_of::<Pod>(""), object);
    target.subresource = "status".to_owned();
    Some(Action::Patch { target, patch: Patch::StrategicMerge(body) })
}
