use serde_json::{Value, json};

use super::*;
use crate::fixture::*;

fn check(snapshot: &Snapshot, extra: Value, wanted: &str) {
    let outcome = outcome(snapshot, &pod("p", extra.clone()));
    let short = outcome.split(" no new claims").next().unwrap();
    assert_eq!(short, wanted, "{extra}");
}

fn two() -> Snapshot {
    cluster(
        vec![
            node("a", json!({"metadata": {"labels": {"disk": "ssd", "size": "5"}}})),
            node("b", json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}})),
        ],
        vec![],
    )
}

#[test]
fn messages_are_upstreams() {
    let outcome = |pod: PodInfo| outcome(&two(), &pod);
    let none = crate::fixture::outcome(&Snapshot::default(), &pod("p", json!({})));
    assert_eq!(none, "no nodes available to schedule pods");
    let one = cluster(vec![node("a", json!({}))], vec![]);
    assert_eq!(
        crate::fixture::outcome(&one, &pod("p", asks(json!({"cpu": "3", "memory": "5Gi", "x.y/z": "1"})))),
        "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, 1 Insufficient x.y/z. no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    );
    assert_eq!(
        outcome(pod("p", json!({"spec": {"nodeSelector": {"disk": "hdd"}}}))),
        "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint(s). no new claims to deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    );
    let full = cluster(vec![node("a", json!({}))], vec![placed("x", "a", asks(json!({"cpu": "2"})))]);
    assert_eq!(
        crate::fixture::outcome(&full, &pod("p", asks(json!({"cpu": "1"})))),
        "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
    );
}

#[test]
fn filters_say_why_not() {
    let nodes = two();
    check(&nodes, json!({}), "a");
    check(
        &nodes,
        asks(json!({"cpu": "3"})),
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s).",
    );
    let spec =
        json!({"tolerations": [{"operator": "Exists"}], "nodeSelector": {"kubernetes.io/hostname": "b"}});
    check(&nodes, json!({"spec": spec}), "b");
    let affinity = |term: Value| {
        json!({"spec": {"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}}})
    };
    let size = |operator: &str, values: Value| {
        affinity(json!({"matchExpressions": [{"key": "size", "operator": operator, "values": values}]}))
    };
    let neither = "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint(s).";
    check(&nodes, size("Gt", json!(["4"])), "a");
    check(&nodes, size("Lt", json!(["5"])), neither);
    check(&nodes, size("In", json!(["4", "5"])), "a");
    check(&nodes, size("DoesNotExist", json!([])), neither);
    check(&nodes, affinity(json!({})), neither);
    let named = |name: &str| {
        affinity(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}))
    };
    check(&nodes, named("a"), "a");
    check(
        &nodes,
        named("b"),
        "0/2 nodes are available: 1 node(s) didn't satisfy plugin(s) [NodeAffinity], 1 node(s) had untolerated taint(s).",
    );
}

#[test]
fn cordoned_and_full_nodes_take_nothing() {
    let mut snapshot = cluster(vec![node("a", json!({"spec": {"unschedulable": true}}))], vec![]);
    check(&snapshot, json!({}), "0/1 nodes are available: 1 node(s) were unschedulable.");
    let tolerates = json!([{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]);
    check(&snapshot, json!({"spec": {"tolerations": tolerates}}), "a");
    snapshot.set_node(node("a", json!({"status": {"allocatable": {"pods": "1"}}})));
    snapshot.place(placed("x", "a", json!({})));
    check(&snapshot, json!({}), "0/1 nodes are available: 1 Too many pods.");
    assert!(snapshot.remove_pod(&machinery::Key::new("default", "x")).is_some());
    check(&snapshot, json!({}), "a");
}

#[test]
fn a_node_that_returns_has_its_pods() {
    let small = json!({"status": {"allocatable": {"pods": "1"}}});
    let mut snapshot = cluster(vec![node("a", small.clone()), node("b", json!({}))], vec![]);
    snapshot.place(placed("x", "a", json!({})));
    snapshot.remove_node("a");
    check(&snapshot, json!({}), "b");
    snapshot.remove_node("b");
    snapshot.set_node(node("a", small));
    check(&snapshot, json!({}), "0/1 nodes are available: 1 Too many pods.");
}

#[test]
fn ports_clash_by_protocol_and_address() {
    let port = |ip: &str, protocol: &str| {
        let port = json!({"containerPort": 1, "hostPort": 80, "hostIP": ip, "protocol": protocol});
        json!({"spec": {"containers": [{"name": "c", "ports": [port]}]}})
    };
    let snapshot = cluster(vec![node("a", json!({}))], vec![placed("x", "a", port("127.0.0.1", "TCP"))]);
    let taken = "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.";
    check(&snapshot, port("127.0.0.1", "TCP"), taken);
    check(&snapshot, port("", "TCP"), taken);
    check(&snapshot, port("0.0.0.0", "TCP"), taken);
    check(&snapshot, port("127.0.0.2", "TCP"), "a");
    check(&snapshot, port("127.0.0.1", "UDP"), "a");
}

#[test]
fn scores_choose() {
    let nodes = || vec![node("a", json!({})), node("b", json!({}))];
    let busy = cluster(nodes(), vec![placed("x", "a", asks(json!({"cpu": "1", "memory": "2Gi"})))]);
    check(&busy, json!({}), "b");
    let soft = json!({"spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}});
    check(&cluster(vec![node("a", soft), node("b", json!({}))], vec![]), json!({}), "b");
    let image =
        json!({"status": {"images": [{"names": ["docker.io/library/web:latest"], "sizeBytes": 900 << 20}]}});
    let one_has_it = cluster(vec![node("a", json!({})), node("b", image)], vec![]);
    check(&one_has_it, json!({"spec": {"containers": [{"name": "c", "image": "web"}]}}), "b");
    let preferred = json!({"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference":
        {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["b"]}]}}]});
    check(&cluster(nodes(), vec![]), json!({"spec": {"affinity": {"nodeAffinity": preferred}}}), "b");
    // CPU is taken on a: a pod that wants memory balances it.
    let uneven = cluster(
        nodes(),
        vec![placed("x", "a", asks(json!({"cpu": "1"}))), placed("y", "b", asks(json!({"memory": "2Gi"})))],
    );
    check(&uneven, asks(json!({"memory": "1Gi"})), "a");
}

#[test]
fn large_clusters_are_sampled_in_turn() {
    let nodes = (0..1000).map(|index| node(&format!("n{index:04}"), json!({}))).collect();
    let snapshot = cluster(nodes, vec![]);
    assert_eq!(
        (enough(50), enough(100), enough(1000), enough(5000), enough(20_000)),
        (50, 100, 420, 500, 1000)
    );
    let (_, next) = schedule(&snapshot, &pod("p", json!({})), &Defaults::default(), &Round::default());
    assert_eq!(next, 420);
    let round = Round { start: next * 2, ..Round::default() };
    let (_, next) = schedule(&snapshot, &pod("p", json!({})), &Defaults::default(), &round);
    assert_eq!(next, 260);
}

#[test]
fn promised_room_is_kept_for_equals_and_betters() {
    let mut snapshot = cluster(vec![node("a", json!({}))], vec![]);
    let wants_all = |priority: i32| {
        let mut extra = asks(json!({"cpu": "2"}));
        extra["spec"]["priority"] = json!(priority);
        extra
    };
    snapshot.nominate(&Arc::new(pod("n", wants_all(10))), Some("a"));
    check(&snapshot, wants_all(10), "0/1 nodes are available: 1 Insufficient cpu.");
    check(&snapshot, wants_all(11), "a");
    snapshot.nominate(&Arc::new(pod("n", wants_all(10))), None);
    check(&snapshot, wants_all(1), "a");
}

#[test]
fn devices_are_refused_in_so_many_words() {
    let claims = json!({"spec": {"resourceClaims": [{"name": "gpu"}]}});
    check(
        &two(),
        claims,
        "0/2 nodes are available: pod has resource claims, and dynamic resource allocation is not implemented.",
    );
}
