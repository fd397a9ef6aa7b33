//! The judgement: how many pods there should be, how many are healthy, how many may go.

use std::collections::BTreeMap;
use std::time::Duration;

use client::target_of;
use jiff::Timestamp;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use reconcile::plan::named;
use reconcile::{Action, Plan, Reference};
use serde_json::{Value, json};

use super::Observed;
use crate::shared::conditions::{self, condition};
use crate::shared::status::time;
use crate::shared::{intstr, pods};

/// A pod that was allowed to be evicted counts as gone for so long, even if it is still there.
const DISRUPTED_SECONDS: i64 = 120;

/// What to do for a budget.
pub fn plan(observed: &Observed, now: Timestamp) -> Plan {
    let (disrupted, next, events) = disrupted(observed, now);
    let is_healthy = |pod: &&super::ObservedPod| {
        !pods::is_deleting(&pod.1) && pods::is_ready(&pod.1) && !disrupted.contains_key(&pod.0.meta().name)
    };
    let healthy = i32::try_from(observed.pods.iter().filter(is_healthy).count()).unwrap_or(i32::MAX);
    let (expected, desired) = wanted(observed);
    let allowed = if expected <= 0 { 0 } else { (healthy - desired).max(0) };
    let stored = serde_json::to_value(&observed.view.status).unwrap_or_default();
    let mut status = json!({
        "observedGeneration": observed.object.meta().generation,
        "disruptionsAllowed": allowed,
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "expectedPods": expected,
        "conditions": shown(observed, &stored, allowed, now),
    });
    if !disrupted.is_empty() {
        status["disruptedPods"] = json!(disrupted);
    }
    Plan { actions: events, status: write(observed, status, &stored), next }
}

/// The pods that were allowed to be evicted and are still there, and when the next of them counts again.
fn disrupted(
    observed: &Observed,
    now: Timestamp,
) -> (BTreeMap<String, Value>, Option<Duration>, Vec<Action>) {
    let status = observed.view.status.as_ref();
    let stored = status.and_then(|status| status.disrupted_pods.clone()).unwrap_or_default();
    let (mut kept, mut next, mut events) = (BTreeMap::new(), None::<Duration>, Vec::new());
    for (name, since) in stored {
        let pod = observed.pods.iter().find(|(object, _)| object.meta().name == name);
        let Some((object, _)) = pod.filter(|(_, pod)| !pods::is_deleting(pod)) else { continue };
        let left = DISRUPTED_SECONDS - (now.as_second() - since.0.as_second());
        if left <= 0 {
            let budget = observed.object.key();
            let message = format!("Pod was expected by PDB {budget} to be deleted but it wasn't");
            events.push(Action::warning(Reference::new("v1", "Pod", object), "NotDeleted", message));
            continue;
        }
        let left = Duration::from_secs(left.unsigned_abs());
        next = Some(next.map_or(left, |next| next.min(left)));
        kept.insert(name, json!(time(since.0)));
    }
    (kept, next, events)
}

/// How many pods are expected, and how many of them must be healthy.
fn wanted(observed: &Observed) -> (i32, i32) {
    let Some(spec) = &observed.view.spec else { return (0, 0) };
    let sum = observed.expected.unwrap_or(0);
    if let Some(unavailable) = &spec.max_unavailable {
        return (sum, (sum - intstr::resolve(unavailable, sum, true)).max(0));
    }
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    match &spec.min_available {
        None => (0, 0),
        Some(IntOrString::Int(number)) => (i32::try_from(observed.pods.len()).unwrap_or(i32::MAX), *number),
        Some(share) => (sum, intstr::resolve(share, sum, true)),
    }
}

fn shown(observed: &Observed, stored: &Value, allowed: i32, now: Timestamp) -> Value {
    let mut all = stored["conditions"].as_array().cloned().unwrap_or_default();
    let (status, reason) =
        if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let mut wanted = condition("DisruptionAllowed", status, reason, "");
    wanted["observedGeneration"] = json!(observed.object.meta().generation);
    conditions::set(&mut all, wanted, now);
    Value::Array(all)
}

/// The whole status is replaced, guarded by the revision: an eviction may take from the budget at the same time.
fn write(observed: &Observed, status: Value, stored: &Value) -> Option<Action> {
    let same = |field: &str| {
        let (new, old) = (&status[field], &stored[field]);
        new == old || (old.is_null() && *new == json!(0)) || (new.is_null() && *old == json!({}))
    };
    let fields =
        ["observedGeneration", "disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
    if !stored.is_null() && fields.iter().chain(&["conditions", "disruptedPods"]).all(|field| same(field)) {
        return None;
    }
    let mut target = named(target_of::<PodDisruptionBudget>(""), &observed.object);
    target.subresource = "status".to_owned();
    let mut body = observed.object.value();
    body["status"] = status;
    Some(Action::Update { target, body })
}
