use serde_json::{Value, json};

use super::*;
use crate::fixture::*;
use crate::{Decision, Defaults, Snapshot, schedule};

fn worth(priority: i32, cpu: &str) -> Value {
    let mut extra = asks(json!({"cpu": cpu}));
    extra["spec"]["priority"] = json!(priority);
    extra
}

fn budget(app: &str, allowed: i64) -> Budget {
    let selector = LabelSelector::from_value(&json!({"matchLabels": {"app": app}})).unwrap();
    Budget { namespace: "default".to_owned(), selector, allowed, disrupted: Vec::new() }
}

/// `NODE: VICTIM VICTIM`, or why not.
fn plan_of(snapshot: &Snapshot, pod: &PodInfo, budgets: Vec<Budget>) -> String {
    let round = Round { budgets, ..Round::default() };
    match schedule(snapshot, pod, &Defaults::default(), &round).0 {
        Decision::Bind { node } => format!("fits {node}"),
        Decision::Wait(wait) => match wait.preemption {
            Preemption::Evict { node, victims } => {
                let names: Vec<&str> = victims.iter().map(|pod| pod.key.name.as_str()).collect();
                format!("{node}: {}", names.join(" "))
            }
            Preemption::Useless { message, .. } => message,
        },
    }
}

fn check(snapshot: &Snapshot, extra: Value, wanted: &str) {
    assert_eq!(plan_of(snapshot, &pod("p", extra), Vec::new()), wanted);
}

#[test]
fn only_lower_priorities_leave_and_no_more_than_needed() {
    let snapshot = cluster(
        vec![node("a", json!({}))],
        vec![
            placed("low", "a", worth(1, "500m")),
            placed("lower", "a", worth(0, "500m")),
            placed("high", "a", worth(5, "1")),
        ],
    );
    check(&snapshot, worth(5, "500m"), "a: lower");
    check(&snapshot, worth(5, "1"), "a: low lower");
    check(&snapshot, worth(5, "1500m"), "0/1 nodes are available: 1 Insufficient cpu.");
    check(&snapshot, worth(6, "2"), "a: high low lower");
    check(&snapshot, worth(6, "3"), "0/1 nodes are available: 1 Preemption is not helpful for scheduling.");
    check(
        &snapshot,
        worth(0, "500m"),
        "0/1 nodes are available: 1 No preemption victims found for incoming pod.",
    );
}

#[test]
fn the_least_harm_is_done() {
    let nodes = || vec![node("a", json!({})), node("b", json!({})), node("c", json!({}))];
    let highest = cluster(
        nodes(),
        vec![
            placed("x", "a", worth(3, "2")),
            placed("y", "b", worth(2, "2")),
            placed("z", "c", worth(4, "2")),
        ],
    );
    check(&highest, worth(9, "2"), "b: y");
    let fewest = cluster(
        nodes(),
        vec![
            placed("x1", "a", worth(2, "1")),
            placed("x2", "a", worth(2, "1")),
            placed("y", "b", worth(2, "2")),
            placed("z", "c", worth(4, "2")),
        ],
    );
    check(&fewest, worth(9, "2"), "b: y");
    let since = |priority: i32, time: &str| {
        let mut extra = worth(priority, "2");
        extra["status"] = json!({"startTime": time});
        extra
    };
    let youngest = cluster(
        nodes(),
        vec![
            placed("x", "a", since(2, "2026-01-01T00:00:00Z")),
            placed("y", "b", since(2, "2026-01-01T00:00:01Z")),
            placed("z", "c", since(2, "2026-01-01T00:00:00Z")),
        ],
    );
    check(&youngest, worth(9, "2"), "b: y");
}

#[test]
fn budgets_are_spared_where_possible() {
    let of = |app: &str, cpu: &str| {
        let mut extra = worth(1, cpu);
        extra["metadata"] = json!({"labels": {"app": app}});
        extra
    };
    let nodes = || vec![node("a", json!({})), node("b", json!({}))];
    let snapshot =
        cluster(nodes(), vec![placed("x", "a", of("kept", "2")), placed("y", "b", of("free", "2"))]);
    let preemptor = pod("p", worth(9, "2"));
    assert_eq!(plan_of(&snapshot, &preemptor, vec![budget("kept", 0)]), "b: y");
    assert_eq!(plan_of(&snapshot, &preemptor, vec![budget("free", 0)]), "a: x");
    // Protected pods stay first, whatever their order.
    let snapshot = cluster(
        vec![node("a", json!({}))],
        vec![placed("x", "a", of("free", "1")), placed("y", "a", of("kept", "1"))],
    );
    let half = pod("p", worth(9, "1"));
    assert_eq!(plan_of(&snapshot, &half, vec![budget("kept", 0)]), "a: x");
    assert_eq!(plan_of(&snapshot, &half, vec![budget("free", 0)]), "a: y");
    // A budget that lets one go protects the second.
    assert_eq!(plan_of(&snapshot, &half, vec![budget("kept", 1), budget("free", 0)]), "a: y");
}

#[test]
fn some_may_not_preempt() {
    let mut leaving = worth(1, "2");
    leaving["metadata"] = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
    leaving["status"] = json!({"conditions": [{"type": "DisruptionTarget", "status": "True",
        "reason": "PreemptionByScheduler"}]});
    let snapshot = cluster(vec![node("a", json!({}))], vec![placed("x", "a", leaving)]);
    let mut never = worth(9, "2");
    never["spec"]["preemptionPolicy"] = json!("Never");
    check(&snapshot, never, "not eligible due to preemptionPolicy=Never.");
    let mut nominated = worth(9, "2");
    nominated["status"] = json!({"nominatedNodeName": "a"});
    check(&snapshot, nominated, "not eligible due to a terminating pod on the nominated node.");
    check(&snapshot, worth(9, "2"), "a: x");
}

#[test]
fn ports_and_terms_are_preempted_for_too() {
    let port = json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80}]}]});
    let mut high = json!({"spec": port});
    let snapshot = cluster(vec![node("a", json!({}))], vec![placed("x", "a", high.clone())]);
    high["spec"]["priority"] = json!(1);
    check(&snapshot, high, "a: x");

    let term =
        json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "x"}}});
    let far = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
    let is_x = json!({"metadata": {"labels": {"app": "x"}}});
    let snapshot =
        cluster(vec![node("a", json!({}))], vec![placed("x", "a", is_x), placed("y", "a", json!({}))]);
    check(&snapshot, json!({"spec": {"priority": 1, "affinity": far}}), "a: x");
}

#[test]
fn nothing_is_changed_by_looking() {
    let snapshot = cluster(
        vec![node("a", json!({})), node("b", json!({}))],
        vec![placed("x", "a", worth(1, "2")), placed("y", "b", worth(1, "2"))],
    );
    for _ in 0..2 {
        check(&snapshot, worth(9, "2"), "a: x");
    }
    assert_eq!(snapshot.node("a").unwrap().requested.cpu, 2000);
}
