//! Which pods have to leave a node with `NoExecute` taints, and when.

use std::sync::Arc;
use std::time::Duration;

use client::{Patch, target_of, typed};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use machinery::Object;
use reconcile::plan::named;
use reconcile::{Action, Reference};
use serde_json::json;

use crate::shared::status::time;
use crate::shared::taints::tolerates;

/// Deletes pods whose time on the node is over; says when the next one's is.
pub fn plan(node: &Node, pods: &[Arc<Object>], now: Timestamp) -> (Vec<Action>, Option<Duration>) {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let taints: Vec<&Taint> = taints.iter().filter(|taint| taint.effect == "NoExecute").collect();
    let (mut actions, mut next) = (Vec::new(), None::<Duration>);
    for object in pods.iter().filter(|pod| pod.meta().deletion_timestamp.is_none()) {
        let Ok(pod) = typed::<Pod>(object) else { continue };
        match time_left(&taints, &pod, now) {
            None => {}
            Some(left) if left.is_zero() => {
                actions.push(disrupt(object, now));
                actions.push(Action::delete(target_of::<Pod>(""), object, None));
                let about = Reference::new("v1", "Pod", object);
                let message = format!("Marking for deletion Pod {}", object.key());
                actions.push(Action::event(about, "TaintManagerEviction", message));
            }
            Some(left) => next = Some(next.map_or(left, |next| next.min(left))),
        }
    }
    (actions, next)
}

/// Shows that the pod does not end by a failure of its own.
fn disrupt(pod: &Object, now: Timestamp) -> Action {
    let condition = json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint",
        "lastTransitionTime": time(now),
    });
    let mut target = named(target_of::<Pod>(""), pod);
    target.subresource = "status".to_owned();
    Action::Patch { target, patch: Patch::StrategicMerge(json!({"status": {"conditions": [condition]}})) }
}

/// How long the pod may still stay; `None`: for ever.
fn time_left(taints: &[&Taint], pod: &Pod, now: Timestamp) -> Option<Duration> {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let ends = |taint: &&Taint| {
        let tolerating: Vec<&Toleration> = tolerations.iter().filter(|t| tolerates(t, taint)).collect();
        if tolerating.is_empty() {
            return Some(Duration::ZERO);
        }
        // The shortest of the tolerations that have an end counts.
        let seconds = tolerating.iter().filter_map(|toleration| toleration.toleration_seconds).min()?;
        // A pod that came later counts from then.
        let since = taint.time_added.as_ref().map_or(now, |time| time.0).max(came(pod, now));
        let passed = now.as_second() - since.as_second();
        Some(Duration::from_secs((seconds - passed).max(0).unsigned_abs()))
    };
    taints.iter().filter_map(ends).min()
}

/// When the pod was put on its node, by the control plane's clock. The node's own, of which the pod's start is, may be
/// hours off, and so may the word of a kubelet that was given a pod without being asked by a scheduler.
fn came(pod: &Pod, now: Timestamp) -> Timestamp {
    let created = pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::MIN, |time| time.0);
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let scheduled = conditions.iter().find(|condition| condition.type_ == "PodScheduled");
    let scheduled =
        scheduled.and_then(|condition| condition.last_transition_time.as_ref()).map(|time| time.0);
    scheduled.filter(|at| (created..=now).contains(at)).unwrap_or(created)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::shared::testing::{ago, describe_actions, now, pod, ready};

    fn evicted(tolerations: Value, since: i64) -> (String, Option<u64>) {
        evicted_of(tolerations, since, ready())
    }

    fn evicted_of(tolerations: Value, since: i64, status: Value) -> (String, Option<u64>) {
        let taint =
            json!({"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": ago(since)});
        let soft = json!({"key": "other", "effect": "NoSchedule"});
        let node: Node =
            serde_json::from_value(json!({"metadata": {}, "spec": {"taints": [taint, soft]}})).unwrap();
        let pod = pod("p", "", json!({}), json!({"tolerations": tolerations}), status);
        let (actions, next) = plan(&node, &[pod.0], now());
        let text = describe_actions(&reconcile::Plan { actions, ..reconcile::Plan::nothing() });
        let last = text.lines().skip(1).collect::<Vec<_>>().join(", ");
        (last, next.map(|next| next.as_secs()))
    }

    #[test]
    fn pods_leave_when_their_toleration_ends() {
        let gone = "delete pods p, event TaintManagerEviction: Marking for deletion Pod n/p";
        let key = "node.kubernetes.io/unreachable";
        for (tolerations, since, wanted) in [
            (json!([]), 0, (gone, None)),
            (json!([{"key": "x", "operator": "Exists"}]), 0, (gone, None)),
            (json!([{"operator": "Exists"}]), 900, ("", None)),
            (json!([{"key": key, "operator": "Exists", "effect": "NoExecute"}]), 900, ("", None)),
            (json!([{"key": key, "operator": "Exists", "effect": "NoSchedule"}]), 0, (gone, None)),
            (json!([{"key": key, "operator": "Exists", "tolerationSeconds": 300}]), 100, ("", Some(200))),
            (json!([{"key": key, "operator": "Exists", "tolerationSeconds": 300}]), 300, (gone, None)),
            (json!([{"key": key, "operator": "Equal", "value": "v"}]), 0, (gone, None)),
            (json!([{"key": key, "operator": "Equal", "value": ""}]), 0, ("", None)),
        ] {
            let found = evicted(tolerations.clone(), since);
            assert_eq!((found.0.as_str(), found.1), wanted, "{tolerations} {since}");
        }
    }

    #[test]
    fn a_pod_that_came_later_has_its_time_whatever_its_node_says() {
        let key = "node.kubernetes.io/unreachable";
        let tolerations = || json!([{"key": key, "operator": "Exists", "tolerationSeconds": 300}]);
        // The pod was made 500 s ago and the node was tainted 900 s ago.
        for (scheduled, wanted) in [(100, Some(200)), (-3600, None), (3600, None)] {
            let status = json!({"startTime": ago(-3600), "conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": ago(scheduled)}]});
            assert_eq!(evicted_of(tolerations(), 900, status).1, wanted, "{scheduled}");
        }
    }
}
