//! Whether a job has come to its end, and why.

use std::time::Duration;

use jiff::Timestamp;

use super::tally::Tally;
use super::{Observed, success_policy};
use crate::shared::claim::ObservedPod;
use crate::shared::pods;

/// How a job ends. First the interim condition is shown, then, when all pods are gone, the final one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub succeeded: bool,
    pub reason: String,
    pub message: String,
}

impl Verdict {
    fn failed(reason: &str, message: impl Into<String>) -> Self {
        Self { succeeded: false, reason: reason.to_owned(), message: message.into() }
    }

    fn succeeded(reason: &str, message: impl Into<String>) -> Self {
        Self { succeeded: true, reason: reason.to_owned(), message: message.into() }
    }

    pub fn interim(&self) -> &'static str {
        if self.succeeded { "SuccessCriteriaMet" } else { "FailureTarget" }
    }

    pub fn last(&self) -> &'static str {
        if self.succeeded { "Complete" } else { "Failed" }
    }
}

/// What was decided before.
pub fn decided(observed: &Observed) -> Option<Verdict> {
    let conditions = observed.status.conditions.as_deref().unwrap_or_default();
    let interim = conditions.iter().filter(|condition| condition.status == "True");
    let verdict = |condition: &k8s_openapi::api::batch::v1::JobCondition| {
        let reason = condition.reason.as_deref().unwrap_or_default();
        let message = condition.message.clone().unwrap_or_default();
        match condition.type_.as_str() {
            "FailureTarget" => Some(Verdict::failed(reason, message)),
            "SuccessCriteriaMet" => Some(Verdict::succeeded(reason, message)),
            _ => None,
        }
    };
    interim.filter_map(verdict).next()
}

/// Decides by what the pods did.
pub fn judge(observed: &Observed, ours: &[ObservedPod], tally: &Tally, now: Timestamp) -> Option<Verdict> {
    failure(observed, ours, tally, now)
        .or_else(|| of_indexes(observed, tally))
        .or_else(|| complete(observed, tally))
}

fn failure(observed: &Observed, ours: &[ObservedPod], tally: &Tally, now: Timestamp) -> Option<Verdict> {
    if let Some(message) = &tally.fatal {
        return Some(Verdict::failed("PodFailurePolicy", message.clone()));
    }
    let limit = observed.spec.backoff_limit.unwrap_or(6);
    if tally.failures() > limit || restarts_too_often(observed, ours, limit) {
        return Some(Verdict::failed("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
    }
    let late = until_deadline(observed, now).is_some_and(|left| left.is_zero());
    late.then(|| Verdict::failed("DeadlineExceeded", "Job was active longer than specified deadline"))
}

/// How long the job may still run.
pub fn until_deadline(observed: &Observed, now: Timestamp) -> Option<Duration> {
    let start = observed.status.start_time.as_ref().filter(|_| !observed.is_suspended())?;
    let left = observed.spec.active_deadline_seconds? - (now.as_second() - start.0.as_second());
    Some(Duration::from_secs(left.max(0).unsigned_abs()))
}

/// Pods that restart in place fail as often as their containers do.
fn restarts_too_often(observed: &Observed, ours: &[ObservedPod], limit: i32) -> bool {
    let policy = observed.spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    if policy != Some("OnFailure") {
        return false;
    }
    let running = ours.iter().filter(|(_, pod)| matches!(pods::phase(pod), "Running" | "Pending"));
    let restarts = |pod: &k8s_openapi::api::core::v1::Pod| -> i32 {
        let Some(status) = &pod.status else { return 0 };
        let all =
            status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
        all.map(|container| container.restart_count).sum()
    };
    let restarts: i32 = running.map(|(_, pod)| restarts(pod)).sum();
    if limit == 0 { restarts > 0 } else { restarts >= limit }
}

fn of_indexes(observed: &Observed, tally: &Tally) -> Option<Verdict> {
    if !observed.is_indexed() {
        return None;
    }
    if observed.retries_per_index().is_some() {
        let failed = tally.failed_indexes.len();
        if observed.spec.max_failed_indexes.is_some_and(|max| failed > max) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return Some(Verdict::failed("MaxFailedIndexesExceeded", message));
        }
        if failed > 0 && failed + tally.succeeded_indexes.len() >= observed.completions() {
            return Some(Verdict::failed("FailedIndexes", "Job has failed indexes"));
        }
    }
    let met = success_policy::judge(
        observed.spec.success_policy.as_ref(),
        observed.completions(),
        &tally.succeeded_indexes,
    )?;
    Some(Verdict::succeeded("SuccessPolicy", met))
}

fn complete(observed: &Observed, tally: &Tally) -> Option<Verdict> {
    let enough = match (observed.is_indexed(), observed.spec.completions) {
        (true, _) => tally.succeeded_indexes.len() >= observed.completions(),
        (false, Some(completions)) => tally.successes() >= completions,
        (false, None) => tally.successes() > 0,
    };
    let done = enough && tally.active.is_empty();
    done.then(|| Verdict::succeeded("CompletionsReached", "Reached expected number of succeeded pods"))
}
