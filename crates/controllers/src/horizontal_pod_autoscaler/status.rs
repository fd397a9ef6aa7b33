//! What the autoscaler says of itself.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use machinery::Object;
use reconcile::Action;
use serde_json::{Value, json};

use super::{Judgement, collection};
use crate::shared::{conditions, status};

/// The status patch, if it says anything new.
pub fn plan(
    object: &Object,
    view: &HorizontalPodAutoscaler,
    judgement: &Judgement,
    rescaled: bool,
    now: Timestamp,
) -> Option<Action> {
    let stored = serde_json::to_value(&view.status).unwrap_or_default();
    let mut all = stored["conditions"].as_array().cloned().unwrap_or_default();
    for condition in &judgement.conditions {
        conditions::set(&mut all, condition.clone(), now);
    }
    let mut wanted = json!({
        "observedGeneration": object.meta().generation,
        "currentReplicas": judgement.current,
        "desiredReplicas": judgement.desired,
        "conditions": all,
    });
    if !judgement.metrics.is_empty() {
        wanted["currentMetrics"] = Value::Array(judgement.metrics.clone());
    }
    if rescaled {
        let message =
            format!("the HPA controller was able to update the target scale to {}", judgement.desired);
        let shown = conditions::condition("AbleToScale", "True", "SucceededRescale", &message);
        if let Some(all) = wanted["conditions"].as_array_mut() {
            conditions::set(all, shown, now);
        }
        wanted["lastScaleTime"] = json!(status::time(now));
    }
    status::patch_if_new(collection(), object, &wanted, &stored)
}

/// Why the size changes, for the event.
pub fn why(judgement: &Judgement) -> &'static str {
    match judgement.metrics.is_empty() {
        true if judgement.desired < judgement.current => "Current number of replicas above Spec.MaxReplicas",
        true => "Current number of replicas below Spec.MinReplicas",
        false if judgement.desired > judgement.current => "metrics above target",
        false => "All metrics below target",
    }
}
