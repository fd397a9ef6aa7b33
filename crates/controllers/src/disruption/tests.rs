use serde_json::{Value, json};

use super::*;
use crate::shared::testing::{ago, describe, describe_actions, now, object, phase, pod, ready, status_of};

fn budget(spec: Value, status: Value, expected: Option<i32>, statuses: &[Value]) -> Plan {
    let object = object(&json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "b", "namespace": "n", "uid": "u", "generation": 3}, "spec": spec, "status": status}));
    let view = typed::<PodDisruptionBudget>(&object).unwrap();
    let pods = statuses.iter().enumerate();
    let pods =
        pods.map(|(at, status)| pod(&format!("p{at}"), "", json!({}), json!({}), status.clone())).collect();
    plan(&Observed { object, view, pods, expected }, now())
}

#[test]
fn what_a_budget_allows() {
    let (up, down) = (ready(), phase("Running"));
    for (spec, expected, pods, wanted) in [
        // disruptionsAllowed, currentHealthy, desiredHealthy, expectedPods
        (json!({"minAvailable": 1}), None, vec![&up, &up, &down], (1, 2, 1, 3)),
        (json!({"minAvailable": 2}), None, vec![&up, &up], (0, 2, 2, 2)),
        (json!({"minAvailable": 3}), None, vec![&up], (0, 1, 3, 1)),
        (json!({"minAvailable": 0}), None, vec![&up], (1, 1, 0, 1)),
        (json!({"minAvailable": 0}), None, vec![], (0, 0, 0, 0)),
        (json!({"minAvailable": "50%"}), Some(3), vec![&up, &up, &up], (1, 3, 2, 3)),
        (json!({"maxUnavailable": 1}), Some(3), vec![&up, &up, &up], (1, 3, 2, 3)),
        (json!({"maxUnavailable": 1}), Some(3), vec![&up, &up, &down], (0, 2, 2, 3)),
        (json!({"maxUnavailable": "34%"}), Some(3), vec![&up, &up, &up], (2, 3, 1, 3)),
        (json!({"maxUnavailable": 5}), Some(3), vec![&up, &up, &up], (3, 3, 0, 3)),
        (json!({"maxUnavailable": 1}), None, vec![&up], (0, 1, 0, 0)),
    ] {
        let pods: Vec<Value> = pods.into_iter().cloned().collect();
        let status = status_of(&budget(spec.clone(), Value::Null, expected, &pods));
        let number = |field: &str| status[field].as_i64().unwrap();
        let found = (
            number("disruptionsAllowed"),
            number("currentHealthy"),
            number("desiredHealthy"),
            number("expectedPods"),
        );
        assert_eq!(found, wanted, "{spec} {expected:?}");
        let reason = if wanted.0 > 0 { "SufficientPods" } else { "InsufficientPods" };
        assert_eq!(status["conditions"][0]["reason"], reason);
    }
}

#[test]
fn evicted_pods_count_as_gone_for_a_while() {
    let status = |seconds: i64| json!({"disruptedPods": {"p0": ago(seconds), "gone": ago(1)}});
    let spec = || json!({"minAvailable": 1});
    let fresh = budget(spec(), status(20), None, &[ready(), ready()]);
    assert_eq!(status_of(&fresh)["disruptedPods"], json!({"p0": ago(20)}));
    assert_eq!(status_of(&fresh)["disruptionsAllowed"], 0);
    assert_eq!(fresh.next.map(|next| next.as_secs()), Some(100));
    let stale = budget(spec(), status(120), None, &[ready(), ready()]);
    assert_eq!(status_of(&stale)["disruptionsAllowed"], 1);
    assert_eq!(
        describe_actions(&stale),
        "event NotDeleted: Pod was expected by PDB n/b to be deleted but it wasn't"
    );
}

#[test]
fn a_status_that_says_nothing_new_is_not_written() {
    let first = budget(json!({"minAvailable": 1}), Value::Null, None, &[ready(), ready()]);
    let again = budget(json!({"minAvailable": 1}), status_of(&first), None, &[ready(), ready()]);
    assert_eq!(describe(&again), "");
}

#[test]
fn selectors_that_are_absent_select_nothing() {
    let pod = pod("p", "", json!({"a": "b"}), json!({}), ready());
    for (selector, wanted) in
        [(Value::Null, false), (json!({}), true), (json!({"matchLabels": {"a": "c"}}), false)]
    {
        let budget = serde_json::from_value(json!({"metadata": {}, "spec": {"selector": selector}})).unwrap();
        assert_eq!(protects(&budget, &pod.0), wanted, "{selector}");
    }
}
