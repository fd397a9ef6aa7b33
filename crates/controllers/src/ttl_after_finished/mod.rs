//! Finished jobs with `ttlSecondsAfterFinished` are removed when their time is over.

use std::time::Duration;

use client::{Cache, Caches, Propagation, target_of, typed};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use machinery::{Key, Object};
use reconcile::{Action, Controller, Input, Plan};

use crate::job::finished_condition;

/// The controller.
pub struct TtlAfterFinished {
    jobs: Cache,
}

impl TtlAfterFinished {
    pub fn new(caches: &Caches) -> Self {
        Self { jobs: caches.of::<Job>() }
    }
}

impl Controller for TtlAfterFinished {
    fn name(&self) -> &'static str {
        "ttl-after-finished-controller"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::own(self.jobs.clone())]
    }

    fn plan(&self, key: &Key, now: Timestamp) -> Plan {
        let Some(object) = self.jobs.get(key) else { return Plan::nothing() };
        typed::<Job>(&object).map_or_else(|_| Plan::nothing(), |job| plan(&object, &job, now))
    }
}

/// Removes the job now or says when.
pub fn plan(object: &Object, job: &Job, now: Timestamp) -> Plan {
    let ttl = job.spec.as_ref().and_then(|spec| spec.ttl_seconds_after_finished);
    let finished = job.status.as_ref().and_then(finished_condition);
    let since = finished.and_then(|condition| condition.last_transition_time.as_ref());
    let (Some(ttl), Some(since)) = (ttl, since) else { return Plan::nothing() };
    if object.meta().deletion_timestamp.is_some() {
        return Plan::nothing();
    }
    let left = i64::from(ttl) - (now.as_second() - since.0.as_second());
    if left > 0 {
        return Plan { next: Some(Duration::from_secs(left.unsigned_abs())), ..Plan::nothing() };
    }
    let delete = Action::delete(target_of::<Job>(""), object, Some(Propagation::Foreground));
    Plan { actions: vec![delete], ..Plan::nothing() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::shared::testing::{ago, describe, now, object};

    #[test]
    fn jobs_go_when_their_time_is_over() {
        for (ttl, status, wanted) in [
            (json!(0), json!({}), ""),
            (
                json!(null),
                json!({"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": ago(5)}]}),
                "",
            ),
            (
                json!(3),
                json!({"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": ago(5)}]}),
                "delete jobs j",
            ),
            (
                json!(9),
                json!({"conditions": [{"type": "Failed", "status": "True", "lastTransitionTime": ago(5)}]}),
                "again in 4 s",
            ),
            (
                json!(0),
                json!({"conditions": [{"type": "Failed", "status": "True", "lastTransitionTime": ago(0)}]}),
                "delete jobs j",
            ),
            (
                json!(0),
                json!({"conditions": [{"type": "FailureTarget", "status": "True", "lastTransitionTime": ago(5)}]}),
                "",
            ),
        ] {
            let job = object(
                &json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": "n"},
                "spec": {"ttlSecondsAfterFinished": ttl, "template": {}}, "status": status}),
            );
            let view = typed::<Job>(&job).unwrap();
            assert_eq!(describe(&plan(&job, &view, now())), wanted, "{ttl} {status}");
        }
    }
}
