use calculate::{Goal, Wanted};
use observe::Usage;
use serde_json::json;

use super::*;
use crate::shared::testing::{ago, now, phase, pod, ready};

/// Pods that request 100m; the last `pending` of them do not run yet.
fn pods(count: usize, pending: usize) -> Vec<Arc<Pod>> {
    let spec = || json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "100m"}}}]});
    let one = |at: usize| {
        let mut status = ready();
        status["startTime"] = json!(ago(900));
        let status = if at < count - pending { status } else { phase("Pending") };
        pod(&format!("p{at}"), "", json!({}), spec(), status).1
    };
    (0..count).map(one).collect()
}

fn cpu(goal: Goal) -> Wanted {
    Wanted { resource: "cpu".to_owned(), container: None, goal }
}

/// What is proposed when the pods use so much; -1 stands for a pod without a measurement.
fn proposed(goal: Goal, used: &[i64], pending: usize) -> i32 {
    let current = i32::try_from(used.len()).unwrap();
    let measured = used.iter().enumerate().filter(|(_, milli)| **milli >= 0);
    let usage = |milli: i64| Usage { milli, at: now(), window_seconds: 10 };
    let usage = measured.map(|(at, milli)| (format!("p{at}"), usage(*milli))).collect();
    calculate::propose(&cpu(goal), current, &pods(used.len(), pending), &usage, now()).unwrap().replicas
}

#[test]
fn proposals() {
    let half = Goal::Utilization(50);
    for (goal, used, pending, wanted) in [
        (half, vec![50, 50], 0, 2),
        (half, vec![54, 54], 0, 2),
        (half, vec![100, 100], 0, 4),
        (half, vec![60, 60, 60], 0, 4),
        (half, vec![10, 10, 10], 0, 1),
        (Goal::Average(20), vec![40, 40], 0, 4),
        // A pod that is not measured counts as idle when growing, as full when shrinking.
        (half, vec![100, -1], 0, 2),
        (half, vec![200, -1], 0, 4),
        (half, vec![10, 10, 10, -1], 0, 2),
        (half, vec![40, -1], 0, 2),
        // So does one that does not run yet.
        (half, vec![100, -1], 1, 2),
        (half, vec![200, -1], 1, 4),
    ] {
        assert_eq!(proposed(goal, &used, pending), wanted, "{goal:?} {used:?}");
    }
    let nothing = calculate::propose(&cpu(half), 2, &pods(2, 0), &std::collections::BTreeMap::new(), now());
    assert!(nothing.unwrap_err().1.contains("did not receive metrics"));
    let bare = pod("p", "", json!({}), json!({"containers": [{"name": "c"}]}), ready()).1;
    let failure =
        calculate::propose(&cpu(half), 2, &[bare], &std::collections::BTreeMap::new(), now()).unwrap_err();
    assert!(failure.1.ends_with("missing request for cpu in container c of Pod p"), "{}", failure.1);
}

fn spec(value: serde_json::Value) -> HorizontalPodAutoscalerSpec {
    let mut spec = json!({"maxReplicas": 10, "scaleTargetRef": {"kind": "Deployment", "name": "d"}});
    for (field, given) in value.as_object().into_iter().flatten() {
        spec[field] = given.clone();
    }
    serde_json::from_value(spec).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

#[test]
fn growth_is_limited() {
    let judge = |spec: &HorizontalPodAutoscalerSpec, current: i32, proposed: i32| {
        let (desired, shown) = behavior::judge(spec, current, proposed, &mut Memory::default(), now());
        (desired, shown[1]["reason"].as_str().unwrap_or_default().to_owned())
    };
    for (given, current, proposed, wanted) in [
        (json!({}), 2, 3, (3, "DesiredWithinRange")),
        (json!({}), 1, 9, (5, "ScaleUpLimit")),
        (json!({}), 5, 30, (10, "TooManyReplicas")),
        (json!({"minReplicas": 2}), 3, 1, (2, "TooFewReplicas")),
        (
            json!({"behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}}}),
            2,
            9,
            (3, "ScaleUpLimit"),
        ),
        (json!({"behavior": {"scaleUp": {"selectPolicy": "Disabled"}}}), 2, 9, (2, "ScaleUpLimit")),
        (
            json!({"behavior": {"scaleDown": {"policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}]}}}),
            8,
            1,
            (4, "ScaleDownLimit"),
        ),
    ] {
        let (desired, reason) = judge(&spec(given.clone()), current, proposed);
        assert_eq!((desired, reason.as_str()), wanted, "{given}");
    }
}

#[test]
fn shrinking_waits_for_the_highest_recommendation() {
    let (spec, mut memory) = (spec(json!({})), Memory::default());
    let mut judge = |seconds: i64, current: i32, proposed: i32| {
        behavior::judge(&spec, current, proposed, &mut memory, at(seconds)).0
    };
    assert_eq!(judge(0, 6, 6), 6);
    assert_eq!(judge(60, 6, 2), 6);
    assert_eq!(judge(299, 6, 3), 6);
    assert_eq!(judge(301, 6, 2), 3);
    assert_eq!(judge(600, 3, 2), 2);
}

#[test]
fn policies_look_back() {
    let rules =
        json!({"behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}]}}});
    let (spec, mut memory) = (spec(rules), Memory::default());
    assert_eq!(behavior::judge(&spec, 1, 9, &mut memory, at(0)).0, 3);
    memory.scaled(2, at(0));
    assert_eq!(behavior::judge(&spec, 3, 9, &mut memory, at(30)).0, 3);
    assert_eq!(behavior::judge(&spec, 3, 9, &mut memory, at(61)).0, 5);
}

#[test]
fn metrics_are_read() {
    let metrics = json!({"timestamp": ago(5), "window": "15s", "containers": [
        {"name": "a", "usage": {"cpu": "20m", "memory": "1Mi"}}, {"name": "b", "usage": {"cpu": "5m"}}]});
    let read = |resource: &str, container: Option<&str>| {
        let wanted = Wanted {
            resource: resource.to_owned(),
            container: container.map(str::to_owned),
            goal: Goal::Average(1),
        };
        observe::read(&metrics, &wanted).map(|usage| usage.milli)
    };
    assert_eq!(read("cpu", None), Some(25));
    assert_eq!(read("cpu", Some("b")), Some(5));
    assert_eq!(read("memory", None), None, "a container without a measurement");
    assert_eq!(read("cpu", Some("c")), None);
}
