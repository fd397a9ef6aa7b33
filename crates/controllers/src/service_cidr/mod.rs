//! Says that ranges of Services are ready. Which addresses are free is admission's business.

use client::{Cache, Caches, Patch, target_of};
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use machinery::Key;
use reconcile::plan::named;
use reconcile::{Action, Controller, Input, Plan};
use serde_json::{Value, json};

/// The controller.
pub struct ServiceCidrs {
    ranges: Cache,
}

impl ServiceCidrs {
    pub fn new(caches: &Caches) -> Self {
        Self { ranges: caches.of::<ServiceCIDR>() }
    }
}

/// The conditions with one that says `Ready`; `None` when there is one.
fn ready(status: &Value, now: Timestamp) -> Option<Value> {
    let mut conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    if conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True") {
        return None;
    }
    conditions.retain(|condition| condition["type"] != "Ready");
    conditions.push(json!({
        "type": "Ready", "status": "True", "reason": "",
        "message": "Kubernetes Service CIDR is ready",
        "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    }));
    Some(conditions.into())
}

impl Controller for ServiceCidrs {
    fn name(&self) -> &'static str {
        "service-cidr-controller"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::own(self.ranges.clone())]
    }

    fn plan(&self, key: &Key, now: Timestamp) -> Plan {
        let Some(range) = self.ranges.get(key) else { return Plan::nothing() };
        if range.meta().deletion_timestamp.is_some() {
            return Plan::nothing();
        }
        let Some(conditions) = ready(&range.value()["status"], now) else { return Plan::nothing() };
        let mut target = named(target_of::<ServiceCIDR>(""), &range);
        target.subresource = "status".to_owned();
        let body = json!({
            "metadata": {"resourceVersion": range.revision().to_string()},
            "status": {"conditions": conditions},
        });
        Plan { status: Some(Action::Patch { target, patch: Patch::Merge(body) }), ..Plan::nothing() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_said_once_and_beside_what_others_say() {
        let other = json!({"type": "Other", "status": "True"});
        let said = ready(
            &json!({"conditions": [other, {"type": "Ready", "status": "False"}]}),
            Timestamp::UNIX_EPOCH,
        );
        let said = said.unwrap();
        assert_eq!(
            (&said[0], &said[1]["status"], said.as_array().unwrap().len()),
            (&other, &json!("True"), 2)
        );
        assert_eq!(ready(&json!({"conditions": said}), Timestamp::UNIX_EPOCH), None);
    }
}
