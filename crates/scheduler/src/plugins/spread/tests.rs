use serde_json::{Value, json};

use crate::fixture::*;
use crate::{Decision, Defaults, PodInfo, Round, Snapshot, schedule};

const UNMATCHED: &str = "node(s) didn't match pod topology spread constraints";

fn spread(key: &str, skew: i64, more: Value) -> Value {
    let constraint = json!({"topologyKey": key, "maxSkew": skew, "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "x"}}});
    let constraint = machinery::patch::merge_patch(&constraint, &more);
    labelled(json!({"app": "x"}), json!({"topologySpreadConstraints": [constraint]}))
}

fn x() -> Value {
    json!({"metadata": {"labels": {"app": "x"}}})
}

fn zones(pods: &[(&str, Value)]) -> Snapshot {
    let pods = pods.iter().enumerate();
    let pods = pods.map(|(index, (node, extra))| placed(&format!("x{index}"), node, extra.clone()));
    let pods: Vec<_> = pods.collect();
    cluster(vec![in_zone("a1", "a"), in_zone("a2", "a"), in_zone("b1", "b")], pods)
}

const ZONE: &str = "topology.kubernetes.io/zone";

fn check(snapshot: &Snapshot, extra: Value, wanted: &[&str]) {
    let outcome = outcome(snapshot, &pod("p", extra.clone()));
    assert!(
        wanted.iter().any(|wanted| outcome.starts_with(wanted)),
        "{outcome} is not in {wanted:?}: {extra}"
    );
}

#[test]
fn the_skew_is_kept() {
    check(&zones(&[("a1", x())]), spread(ZONE, 1, json!({})), &["b1"]);
    check(&zones(&[("b1", x())]), spread(ZONE, 1, json!({})), &["a1", "a2"]);
    let two_to_none = zones(&[("a1", x()), ("a2", x())]);
    check(&two_to_none, spread(ZONE, 1, json!({})), &["b1"]);
    check(&two_to_none, spread(ZONE, 5, json!({})), &["a1", "a2", "b1"]);
    check(&two_to_none, spread("kubernetes.io/hostname", 1, json!({})), &["b1"]);
}

#[test]
fn only_living_pods_of_the_namespace_count() {
    let mut leaving = x();
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let mut elsewhere = x();
    elsewhere["metadata"]["namespace"] = json!("other");
    let none_counts = zones(&[("b1", leaving), ("b1", elsewhere), ("b1", json!({})), ("a1", x())]);
    check(&none_counts, spread(ZONE, 1, json!({})), &["b1"]);
}

#[test]
fn nodes_without_the_label_will_not_do() {
    let snapshot = cluster(vec![node("a", json!({}))], vec![]);
    let missing = format!("0/1 nodes are available: 1 {UNMATCHED} (missing required label).");
    check(&snapshot, spread(ZONE, 1, json!({})), &[&missing]);
}

#[test]
fn too_few_domains_count_as_an_empty_one() {
    let one_each = zones(&[("a1", x()), ("b1", x())]);
    check(&one_each, spread(ZONE, 1, json!({"minDomains": 2})), &["a1", "a2", "b1"]);
    let message = format!("0/3 nodes are available: 3 {UNMATCHED}.");
    check(&one_each, spread(ZONE, 1, json!({"minDomains": 3})), &[&message]);
}

#[test]
fn excluded_nodes_count_unless_ignored() {
    // The pod may only go to zone a; zone b is empty.
    let one = zones(&[("a1", x())]);
    let only_a = |policy: &str| {
        let mut extra = spread(ZONE, 1, json!({"nodeAffinityPolicy": policy}));
        extra["spec"]["nodeSelector"] = json!({"topology.kubernetes.io/zone": "a"});
        extra
    };
    check(&one, only_a("Honor"), &["a1", "a2"]);
    check(
        &one,
        only_a("Ignore"),
        &["0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 2"],
    );
}

#[test]
fn label_keys_narrow_the_selector() {
    let of = |revision: &str| labelled(json!({"app": "x", "revision": revision}), json!({}));
    let snapshot = zones(&[("a1", of("old")), ("a2", of("old")), ("b1", of("new"))]);
    let mut extra = spread(ZONE, 1, json!({"matchLabelKeys": ["revision"]}));
    extra["metadata"]["labels"]["revision"] = json!("new");
    check(&snapshot, extra, &["a1", "a2"]);
}

#[test]
fn soft_constraints_are_scored() {
    let soft = spread(ZONE, 1, json!({"whenUnsatisfiable": "ScheduleAnyway"}));
    check(&zones(&[("a1", x()), ("a2", x())]), soft.clone(), &["b1"]);
    check(&zones(&[("b1", x())]), soft, &["a1", "a2"]);
}

fn by_default(snapshot: &Snapshot, pod: &PodInfo) -> String {
    let selector =
        machinery::selector::LabelSelector::from_value(&json!({"matchLabels": {"app": "x"}})).unwrap();
    let defaults = Defaults { spread: Some(selector) };
    match schedule(snapshot, pod, &defaults, &Round::default()).0 {
        Decision::Bind { node } => node.to_string(),
        Decision::Wait(wait) => wait.message,
    }
}

#[test]
fn owners_spread_their_pods_by_default() {
    let mut snapshot = cluster((0..4).map(|index| node(&format!("n{index}"), json!({}))).collect(), vec![]);
    let mut used = std::collections::BTreeSet::new();
    for index in 0..8 {
        let name = format!("p{index}");
        let node = by_default(&snapshot, &pod(&name, x()));
        snapshot.place(placed(&name, &node, x()));
        used.insert(node);
        if index == 3 {
            assert_eq!(used.len(), 4);
        }
    }
    assert!(snapshot.nodes().iter().all(|node| node.pods.len() == 2));
    // Zones count, too.
    let snapshot = zones(&[("a1", x())]);
    assert_eq!(by_default(&snapshot, &pod("p", x())), "b1");
}

#[test]
fn a_remembered_count_follows_the_pods() {
    let mut snapshot = zones(&[]);
    let hard = || pod("p", spread(ZONE, 1, json!({})));
    snapshot.place(placed("x", "b1", x()));
    assert!(outcome(&snapshot, &hard()).starts_with('a'));
    snapshot.remove_pod(&machinery::Key::new("default", "x"));
    snapshot.place(placed("y", "a1", x()));
    assert_eq!(outcome(&snapshot, &hard()), "b1");
    // A label that changes moves a node to another zone.
    snapshot.set_node(in_zone("a2", "c"));
    snapshot.set_node(in_zone("b1", "a"));
    assert_eq!(outcome(&snapshot, &hard()), "a2");
}
