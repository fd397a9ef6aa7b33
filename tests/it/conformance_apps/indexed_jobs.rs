//! Indexed jobs.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::jobs::{complete, failed, job};
use super::space::{Space, condition, name, text};

const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Odd indexes fail.
const ODD_FAILS: &str = "exit $((JOB_COMPLETION_INDEX % 2))";
/// Index 0 succeeds, the others never end.
const FIRST_SUCCEEDS: &str =
    "if [ $JOB_COMPLETION_INDEX = 0 ]; then exit 0; fi; while true; do sleep 0.2; done";

fn indexed(text: &str, spec: Value) -> Value {
    let mut body = job("Never", text, json!({"completionMode": "Indexed"}));
    for (field, value) in spec.as_object().into_iter().flatten() {
        body["spec"][field] = value.clone();
    }
    body
}

// conformance: [sig-apps] Job should create pods for an Indexed job with completion indexes and specified hostname
pub fn indexes(space: &Space<'_>) {
    space.make(&indexed("echo $JOB_COMPLETION_INDEX $(hostname)", json!({})));
    let done = complete(space);
    assert_eq!(done["status"]["completedIndexes"], "0-3");
    let mut seen = BTreeSet::new();
    for pod in space.list("pods", "job-name=job") {
        let index = text(&pod["metadata"]["annotations"][INDEX]);
        let host = format!("job-{index}");
        assert_eq!(pod["spec"]["hostname"], host);
        assert!(name(&pod).starts_with(&format!("{host}-")));
        assert_eq!(space.kubectl(&["logs", &name(&pod)]).trim(), format!("{index} {host}"));
        seen.insert(index);
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
}

// conformance: [sig-apps] Job should execute all indexes despite some failing when using backoffLimitPerIndex
pub fn retries_per_index(space: &Space<'_>) {
    space.make(&indexed(ODD_FAILS, json!({"backoffLimitPerIndex": 1})));
    let done = failed(space, "FailedIndexes");
    let status = &done["status"];
    assert_eq!((&status["failedIndexes"], &status["completedIndexes"]), (&json!("1,3"), &json!("0,2")));
    assert_eq!((&status["failed"], &status["succeeded"]), (&json!(4), &json!(2)));
}

// conformance: [sig-apps] Job should mark indexes as failed when the FailIndex action is matched in podFailurePolicy
pub fn fail_index(space: &Space<'_>) {
    let rule = json!({"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [1]}});
    let spec = json!({"backoffLimitPerIndex": 1, "podFailurePolicy": {"rules": [rule]}});
    space.make(&indexed(ODD_FAILS, spec));
    let done = failed(space, "FailedIndexes");
    let status = &done["status"];
    assert_eq!((&status["failedIndexes"], &status["completedIndexes"]), (&json!("1,3"), &json!("0,2")));
    assert_eq!((&status["failed"], &status["succeeded"]), (&json!(2), &json!(2)));
}

// conformance: [sig-apps] Job should terminate job execution when the number of failed indexes exceeds maxFailedIndexes
pub fn max_failed_indexes(space: &Space<'_>) {
    let odd_or_endless =
        "if [ $((JOB_COMPLETION_INDEX % 2)) = 1 ]; then exit 1; fi; while true; do sleep 0.2; done";
    space.make(&indexed(odd_or_endless, json!({"backoffLimitPerIndex": 0, "maxFailedIndexes": 0})));
    let done = failed(space, "MaxFailedIndexesExceeded");
    // The indexes whose pods were stopped for it may have failed, too.
    let indexes = text(&done["status"]["failedIndexes"]);
    assert!(indexes.split(',').any(|index| index == "1"), "{indexes}");
    assert!(done["status"]["active"].is_null() || done["status"]["active"] == 0);
}

/// Waits for a success by policy and checks that nothing is left at work.
fn succeeds(space: &Space<'_>, completed: &str) {
    let done = complete(space);
    for kind in ["SuccessCriteriaMet", "Complete"] {
        let shown = condition(&done, kind).unwrap();
        assert_eq!(
            (&shown["reason"], &shown["message"]),
            (&json!("SuccessPolicy"), &json!("Matched rules at index 0"))
        );
    }
    let status = &done["status"];
    assert_eq!(status["completedIndexes"], completed);
    assert_eq!((&status["ready"], &status["terminating"]), (&json!(0), &json!(0)), "{status}");
    assert!(status["active"].is_null(), "{status}");
}

// conformance: [sig-apps] Job with successPolicy should succeeded when all indexes succeeded
pub fn success_of_all(space: &Space<'_>) {
    let policy = json!({"rules": [{"succeededIndexes": "0-3"}]});
    space.make(&indexed("exit 0", json!({"successPolicy": policy})));
    succeeds(space, "0-3");
}

// conformance: [sig-apps] Job with successPolicy succeededIndexes rule should succeeded even when some indexes remain pending
pub fn success_of_some_indexes(space: &Space<'_>) {
    let policy = json!({"rules": [{"succeededIndexes": "0"}]});
    space.make(&indexed(FIRST_SUCCEEDS, json!({"successPolicy": policy})));
    succeeds(space, "0");
}

// conformance: [sig-apps] Job with successPolicy succeededCount rule should succeeded even when some indexes remain pending
pub fn success_of_a_count(space: &Space<'_>) {
    let policy = json!({"rules": [{"succeededCount": 1}]});
    space.make(&indexed(FIRST_SUCCEEDS, json!({"successPolicy": policy})));
    succeeds(space, "0");
}
