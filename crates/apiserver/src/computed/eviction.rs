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
        core.delete(&pod_call, &delete).await?;
        Ok(created())
    }
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
    core.rewrite(&budget_call, dry_run, &|old| decremented(&old.value(), &pod_value, &now)).await.map(drop)
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
        return Err(refused(format!("The disruption budget {name} is still being processed by the server.")));
    }
    let disrupted =
        budget.pointer("/status/disruptedPods").and_then(Value::as_object).map_or(0, serde_json::Map::len);
    let forbidden = |detail: &str| Err(Status::forbidden("policy", "poddisruptionbudgets", name, detail));
    match number("/status/disruptionsAllowed") {
        negative if negative < 0 => return forbidden("pdb disruptions allowed is negative"),
        0 => {
            return Err(refused(format!(
                "The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"
            )));
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

fn refused(cause: String) -> Status {
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    let mut status = Status::too_many_requests(message, RETRY_AFTER_S);
    status.details = Some(Box::new(Details {
        causes: vec![Cause { reason: "DisruptionBudget".to_owned(), message: cause, field: String::new() }],
        retry_after_seconds: RETRY_AFTER_S,
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
            (refused.code, refused.details.unwrap().causes[0].reason.clone()),
            (429, "DisruptionBudget".to_owned())
        );
        assert_eq!(decremented(&budget(1, 1), &ready, "now").unwrap_err().code, 429);
        let unready = json!({"metadata": {"name": "p"}});
        assert_eq!(decremented(&budget(0, 2), &unready, "now").unwrap(), budget(0, 2));
    }
}
