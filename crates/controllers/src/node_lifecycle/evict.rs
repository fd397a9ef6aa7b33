//! Which pods have to leave a node with `NoExecute` taints, and when.

use std::sync::Arc;
use std::time::Duration;

use client::{target_of, typed};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use machinery::Object;
use reconcile::{Action, Reference};

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
        // A pod that came later counts from its own start.
        let came = pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
        let since = taint.time_added.as_ref().map_or(now, |time| time.0).max(came.unwrap_or(Timestamp::MIN));
        let passed = now.as_second() - since.as_second();
        Some(Duration::from_secs((seconds - passed).max(0).unsigned_abs()))
    };
    taints.iter().filter_map(ends).min()
}
