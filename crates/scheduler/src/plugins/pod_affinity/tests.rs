use serde_json::{Value, json};

use crate::Snapshot;
use crate::fixture::*;

const HOST: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

fn term(key: &str, app: &str) -> Value {
    json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}})
}

fn required(side: &str, term: Value) -> Value {
    json!({"spec": {"affinity": {side: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}})
}

fn preferred(side: &str, term: Value) -> Value {
    let weighted = json!({"weight": 10, "podAffinityTerm": term});
    json!({"spec": {"affinity": {side: {"preferredDuringSchedulingIgnoredDuringExecution": [weighted]}}}})
}

const NEAR: &str = "podAffinity";
const FAR: &str = "podAntiAffinity";

fn app(name: &str) -> Value {
    json!({"metadata": {"labels": {"app": name}}})
}

fn zones(pods: &[(&str, Value)]) -> Snapshot {
    let pods = pods.iter().enumerate();
    let pods: Vec<_> = pods.map(|(i, (node, extra))| placed(&format!("x{i}"), node, extra.clone())).collect();
    cluster(vec![in_zone("a1", "a"), in_zone("a2", "a"), in_zone("b1", "b")], pods)
}

fn check(snapshot: &Snapshot, extra: Value, wanted: &[&str]) {
    let outcome = outcome(snapshot, &pod("p", extra.clone()));
    assert!(
        wanted.iter().any(|wanted| outcome.starts_with(wanted)),
        "{outcome} is not in {wanted:?}: {extra}"
    );
}

#[test]
fn near_means_the_same_value() {
    let snapshot = zones(&[("a1", app("db"))]);
    check(&snapshot, required(NEAR, term(HOST, "db")), &["a1"]);
    check(&snapshot, required(NEAR, term(ZONE, "db")), &["a1", "a2"]);
    check(
        &snapshot,
        required(NEAR, term(ZONE, "none")),
        &["0/3 nodes are available: 3 node(s) didn't match pod affinity rules."],
    );
    check(
        &snapshot,
        required(NEAR, term("no/such", "db")),
        &["0/3 nodes are available: 3 node(s) didn't match pod affinity rules."],
    );
}

#[test]
fn the_first_of_a_group_may_start_anywhere() {
    let mut first = required(NEAR, term(ZONE, "web"));
    first["metadata"] = json!({"labels": {"app": "web"}});
    check(&zones(&[]), first.clone(), &["a", "b"]);
    check(&zones(&[("b1", app("web"))]), first, &["b1"]);
}

#[test]
fn far_means_another_value() {
    let snapshot = zones(&[("a1", app("db"))]);
    check(&snapshot, required(FAR, term(HOST, "db")), &["a2", "b1"]);
    check(&snapshot, required(FAR, term(ZONE, "db")), &["b1"]);
    let both = zones(&[("a1", app("db")), ("b1", app("db"))]);
    check(
        &both,
        required(FAR, term(ZONE, "db")),
        &["0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules."],
    );
}

#[test]
fn pods_that_are_there_keep_others_away() {
    let snapshot =
        zones(&[("a1", required(FAR, term(ZONE, "web"))), ("b1", required(FAR, term(HOST, "web")))]);
    check(
        &snapshot,
        app("web"),
        &["0/3 nodes are available: 3 node(s) didn't satisfy existing pods anti-affinity rules."],
    );
    check(&snapshot, app("db"), &["a", "b"]);
}

#[test]
fn namespaces_are_chosen_by_name_or_label() {
    let mut other = app("db");
    other["metadata"]["namespace"] = json!("other");
    let mut snapshot = zones(&[("b1", other)]);
    let with = |field: &str, value: Value| {
        let mut term = term(ZONE, "db");
        term[field] = value;
        required(NEAR, term)
    };
    let nowhere = ["0/3 nodes are available: 3 node(s) didn't match pod affinity rules."];
    check(&snapshot, required(NEAR, term(ZONE, "db")), &nowhere);
    check(&snapshot, with("namespaces", json!(["other"])), &["b1"]);
    check(&snapshot, with("namespaceSelector", json!({})), &["b1"]);
    let selector = json!({"matchLabels": {"team": "t"}});
    check(&snapshot, with("namespaceSelector", selector.clone()), &nowhere);
    snapshot.set_namespace(&object(&json!({"metadata": {"name": "other", "labels": {"team": "t"}}})));
    check(&snapshot, with("namespaceSelector", selector), &["b1"]);
}

#[test]
fn wishes_of_both_sides_are_scored() {
    let snapshot = zones(&[("b1", app("db"))]);
    check(&snapshot, preferred(NEAR, term(ZONE, "db")), &["b1"]);
    check(&snapshot, preferred(FAR, term(ZONE, "db")), &["a"]);
    check(&zones(&[("b1", preferred(NEAR, term(ZONE, "web")))]), app("web"), &["b1"]);
    check(&zones(&[("b1", preferred(FAR, term(ZONE, "web")))]), app("web"), &["a"]);
    // What a pod must be near to draws that near.
    let mut needs = required(NEAR, term(ZONE, "web"));
    needs["metadata"] = json!({"labels": {"app": "web"}});
    check(&zones(&[("b1", needs)]), app("web"), &["b1"]);
}
