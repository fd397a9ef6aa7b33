//! `pods/eviction`: a delete that respects disruption budgets.

use std::sync::Arc;

use async_trait::async_trait;
use client::{DeleteOptions, ListOptions, Preconditions, Target, WriteOptions};
use machinery::selector::LabelSelector;
use machinery::status::{Cause, Details};
use machinery::{Object, Status};
use serde_json::{Value, json};

use super::{Computation, created, text};
use crate::core::Core;
use crate::pipeline::{Call, meta};

/// More pods than this are never being disrupted at once under one budget, as upstream.
const DISRUPTED_MAX: usize = 2000;
const RETRY_AFTER_S: u32 = 10;

pub(super) struct Eviction;

#[async_trait]
impl Computation for Eviction {
    async fn compute(
        &self,
        core: &Arc<Core>,
        call: &Call,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        let name = text(&body, "/metadata/name");
        if !name.is_empty() && name != call.target.name {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        let mut delete: DeleteOptions = match body.get("deleteOptions") {
            None | Some(Value::Null) => DeleteOptions::default(),
            Some(given) => serde_json::from_value(given.clone())
                .map_err(|error| Status::bad_request(error.to_string()))?,
        };
        if options.dry_run && delete.dry_run.is_empty() {
            delete.dry_run.push("All".to_owned());
        }
        let dry_run = !delete.dry_run.is_empty();
        let target = Target { subresource: String::new(), ..call.target.clone() };
        let pod_call = core.call_within(&call.caller, "delete", target)?;
        let pod = core.get(&pod_call, &ListOptions::default()).await?;
        if !ignores_budgets(&pod.value()) {
            take_from_budget(core, call, &pod, dry_run).await?;
            // What was judged is what is deleted.
            let preconditions = delete.preconditions.get_or_insert_with(Preconditions::default);
            preconditions.uid.get_or_insert_with(|| pod.meta().uid.clone());
        }
        if !dry_run {
            mark(core, &pod_call, &pod, &mut delete).await?;
        }
        core.delete(&pod_call, &delete).await?;
        Ok(created())
    }
}

/// Shows on the pod that it ends because of its eviction, which jobs tell from a failure of their own. A pod that does
/// not satisfy the caller's preconditions is left to the delete to refuse.
async fn mark(core: &Arc<Core>, call: &Call, pod: &Object, delete: &mut DeleteOptions) -> Result<(), Status> {
    let wanted = delete.preconditions.clone().unwrap_or_default();
    let other_uid = wanted.uid.is_some_and(|uid| uid != pod.meta().uid);
    let other_revision =
        wanted.resource_version.as_ref().is_some_and(|wanted| *wanted != pod.revision().to_string());
    if other_uid || other_revision {
        return Ok(());
    }
    let now = meta::time(core.env.now());
    let marked = core.rewrite(call, false, &|_, pod| Ok(disrupted(pod, &now))).await?;
    if let Some(revision) = delete.preconditions.as_mut().and_then(|wanted| wanted.resource_version.as_mut())
    {
        *revision = marked.revision().to_string();
    }
    Ok(())
}

fn disrupted(mut pod: Value, now: &str) -> Value {
    let mut conditions =
        pod.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    if conditions
        .iter()
        .any(|condition| condition["type"] == "DisruptionTarget" && condition["status"] == "True")
    {
        return pod;
    }
    conditions.retain(|condition| condition["type"] != "DisruptionTarget");
    conditions.push(json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastTransitionTime": now}));
    pod["status"]["conditions"] = Value::Array(conditions);
    pod
}

/// Pods that are finished, not started or on their way out disrupt nothing.
fn ignores_budgets(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed" | "Pending" | "")
        || !text(pod, "/metadata/deletionTimestamp").is_empty()
}

async fn take_from_budget(core: &Arc<Core>, call: &Call, pod: &Object, dry_run: bool) -> Result<(), Status> {
    let target = Target {
        group: "policy".to_owned(),
        version: "v1".to_owned(),
        resource: "poddisruptionbudgets".to_owned(),
        namespace: call.target.namespace.clone(),
        ..Target::default()
    };
    let list =
        core.list(&core.call_within(&call.caller, "list", target.clone())?, &ListOptions::default()).await?;
    let matching: Vec<_> = list.items.iter().filter(|budget| selects(&budget.value(), pod)).collect();
    let budget = match matching.as_slice() {
        [] => return Ok(()),
        [one] => *one,
        _ => {
            return Err(Status::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
    };
    let named = Target { name: budget.meta().name.clone(), ..target };
    let budget_call = core.call_within(&call.caller, "update", named)?;
    let (pod_value, now) = (pod.value(), meta::time(core.env.now()));
    core.rewrite(&budget_call, dry_run, &|_, budget| decremented(&budget, &pod_value, &now)).await.map(drop)
}

fn selects(budget: &Value, pod: &Object) -> bool {
    let Some(selector) = budget.pointer("/spec/selector").filter(|selector| !selector.is_null()) else {
        return false;
    };
    LabelSelector::from_value(selector).is_ok_and(|selector| selector.matches(&pod.meta().labels))
}

/// The budget after this eviction, or why it does not allow it. Unchanged when the pod does not count.
fn decremented(budget: &Value, pod: &Value, now: &str) -> Result<Value, Status> {
    let number = |pointer: &str| budget.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let name = text(budget, "/metadata/name");
    let (healthy, desired) = (number("/status/currentHealthy"), number("/status/desiredHealthy"));
    if !is_ready(pod) {
        let always = text(budget, "/spec/unhealthyPodEvictionPolicy") == "AlwaysAllow";
        if always || (healthy >= desired && desired > 0) {
            return Ok(budget.clone());
        }
    }
    if number("/status/observedGeneration") < number("/metadata/generation") {
        let cause = format!("The disruption budget {name} is still being processed by the server.");
        return Err(refused(cause, RETRY_AFTER_S));
    }
    let disrupted =
        budget.pointer("/status/disruptedPods").and_then(Value::as_object).map_or(0, serde_json::Map::len);
    let forbidden = |detail: &str| Err(Status::forbidden("policy", "poddisruptionbudgets", name, detail));
    match number("/status/disruptionsAllowed") {
        negative if negative < 0 => return forbidden("pdb disruptions allowed is negative"),
        0 => {
            let cause = format!(
                "The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"
            );
            // Nobody knows when that changes, so clients are not asked to wait for it.
            return Err(refused(cause, 0));
        }
        _ if disrupted > DISRUPTED_MAX => {
            return forbidden(
                "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
            );
        }
        _ => {}
    }
    let mut after = budget.clone();
    after["status"]["disruptionsAllowed"] = json!(number("/status/disruptionsAllowed") - 1);
    after["status"]["disruptedPods"][text(pod, "/metadata/name")] = json!(now);
    Ok(after)
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn refused(cause: String, retry_after_s: u32) -> Status {
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    let mut status = Status::too_many_requests(message, retry_after_s);
    status.details = Some(Box::new(Details {
        causes: vec![Cause { reason: "DisruptionBudget".to_owned(), message: cause, field: String::new() }],
        retry_after_seconds: retry_after_s,
        ..Details::default()
    }));
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets() {
        let ready = json!({"metadata": {"name": "p"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let budget = |allowed: i64, seen: i64| {
            json!({"metadata": {"name": "b", "generation": 2}, "spec": {},
                "status": {"disruptionsAllowed": allowed, "observedGeneration": seen, "currentHealthy": 1, "desiredHealthy": 1}})
        };
        let after = decremented(&budget(1, 2), &ready, "now").unwrap();
        assert_eq!(after["status"]["disruptionsAllowed"], 0);
        assert_eq!(after["status"]["disruptedPods"]["p"], "now");
        let refused = decremented(&budget(0, 2), &ready, "now").unwrap_err();
        assert_eq!(
            (refused.code, refused.details.as_ref().unwrap().causes[0].reason.clone()),
            (429, "DisruptionBudget".to_owned())
        );
        assert_eq!(decremented(&budget(1, 1), &ready, "now").unwrap_err().code, 429);
        let shown = disrupted(disrupted(ready.clone(), "now"), "later");
        assert_eq!(shown["status"]["conditions"][1]["lastTransitionTime"], "now");
        assert_eq!(shown["status"]["conditions"].as_array().map(Vec::len), Some(2));
        let unready = json!({"metadata": {"name": "p"}});
        assert_eq!(decremented(&budget(0, 2), &unready, "now").unwrap(), budget(0, 2));
    }
}
