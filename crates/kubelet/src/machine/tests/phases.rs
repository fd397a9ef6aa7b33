//! The phase for every combination of container states that upstream's table has.

use k8s_openapi::api::core::v1::ContainerStatus;

use super::super::spec::Kind;
use super::*;

fn status(state: &str) -> ContainerStatus {
    let value = match state {
        "waiting" => json!({"state": {"waiting": {}}}),
        "restarting" => json!({"state": {"waiting": {}}, "lastState": {"terminated": {"exitCode": 1}}}),
        "running" => json!({"state": {"running": {}}, "started": true}),
        "starting" => json!({"state": {"running": {}}, "started": false}),
        "succeeded" => json!({"state": {"terminated": {"exitCode": 0}}}),
        "failed" => json!({"state": {"terminated": {"exitCode": 1}}}),
        other => panic!("{other}"),
    };
    serde_json::from_value(value).unwrap()
}

/// `i:` init, `s:` sidecar, others main.
fn check(policy: &str, states: &[&str], initialized: bool, over: bool, want: &str) {
    let mut machine = Script::new(json!({"containers": [], "restartPolicy": policy})).machine;
    machine.initialized = initialized;
    let statuses: Vec<_> = states
        .iter()
        .map(|state| match state.split_once(':') {
            Some(("i", state)) => (Kind::Init, status(state)),
            Some((_, state)) => (Kind::Sidecar, status(state)),
            None => (Kind::Main, status(state)),
        })
        .collect();
    assert_eq!(machine.phase_of(&statuses, over), want, "{policy} {states:?} {initialized} {over}");
}

#[test]
fn main_containers() {
    let table: [(&[&str], [&str; 3]); 10] = [
        (&["waiting"], ["Pending"; 3]),
        (&["running"], ["Running"; 3]),
        (&["running", "running"], ["Running"; 3]),
        (&["succeeded"], ["Running", "Succeeded", "Succeeded"]),
        (&["failed"], ["Running", "Running", "Failed"]),
        (&["succeeded", "failed"], ["Running", "Running", "Failed"]),
        (&["running", "failed"], ["Running"; 3]),
        (&["running", "succeeded"], ["Running"; 3]),
        (&["running", "waiting"], ["Pending"; 3]),
        (&["running", "restarting"], ["Running"; 3]),
    ];
    for (states, wants) in table {
        for (policy, want) in ["Always", "OnFailure", "Never"].into_iter().zip(wants) {
            check(policy, states, true, false, want);
        }
    }
}

#[test]
fn a_pod_that_is_over_has_succeeded_or_failed() {
    for policy in ["Always", "OnFailure", "Never"] {
        check(policy, &["succeeded"], true, true, "Succeeded");
        check(policy, &["failed"], true, true, "Failed");
        check(policy, &["succeeded", "failed"], true, true, "Failed");
        check(policy, &["restarting"], true, true, "Failed");
        check(policy, &["s:failed", "succeeded"], true, true, "Succeeded");
    }
}

#[test]
fn init_containers() {
    for policy in ["Always", "OnFailure", "Never"] {
        check(policy, &["i:waiting", "waiting"], false, false, "Pending");
        check(policy, &["i:running", "waiting"], false, false, "Pending");
        check(policy, &["i:succeeded", "waiting"], false, false, "Pending");
        check(policy, &["i:succeeded", "running"], true, false, "Running");
        check(policy, &["s:starting", "waiting"], false, false, "Pending");
        check(policy, &["s:running", "running"], true, false, "Running");
        check(policy, &["s:failed", "running"], true, false, "Running");
    }
    check("Always", &["i:failed", "waiting"], false, false, "Pending");
    check("OnFailure", &["i:restarting", "waiting"], false, false, "Pending");
    check("Never", &["i:failed", "waiting"], false, false, "Failed");
}
