//! Priorities and preemption, by an extended resource that only these pods ask for.

use serde_json::{Value, json};

use super::{condition, create, delete, get, limited, nodes, on_node, pod, until_running};
use crate::cluster::Cluster;

const RESOURCE: &str = "scheduling.k8s.io/foo";
const SYSTEM: &str = "kube-system";

fn class(name: &str, value: i64) -> Value {
    json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value})
}

/// Gives nodes an extended resource, or takes it away.
fn offer(cluster: &Cluster, nodes: &[String], resource: &str, amount: Value) {
    let amounts = json!({resource: amount});
    let patch = json!({"status": {"capacity": amounts, "allocatable": amounts}}).to_string();
    for node in nodes {
        cluster.kubectl(&["patch", "node", node, "--subresource=status", "--type=merge", "-p", &patch]);
    }
}

/// The one node on which pods that do not say otherwise may find what they need.
fn one_node(cluster: &Cluster) -> Vec<String> {
    nodes(cluster).into_iter().take(1).collect()
}

/// A pod that takes part of the resource.
fn takes(name: &str, amount: &str, class: &str) -> Value {
    let spec = json!({"priorityClassName": class, "containers": [limited(&json!({RESOURCE: amount}))]});
    pod(name, &json!({"spec": spec}))
}

fn until_gone(cluster: &Cluster, name: &str) {
    cluster.until(&format!("{name} is gone"), |cluster| {
        !cluster.try_kubectl(&["get", "pod", name]).status.success()
    });
}

// conformance: [sig-scheduling] SchedulerPreemption [Serial] PriorityClass endpoints verify PriorityClass endpoints can be operated with different HTTP methods
pub fn priority_classes(cluster: &Cluster) {
    for (name, value) in [("p1", 1), ("p2", 2)] {
        create(cluster, &class(name, value));
    }
    let values = |_: ()| {
        let list = cluster.json(&["get", "priorityclass"]);
        let items = list["items"].as_array().unwrap().clone();
        let value =
            |name: &str| items.iter().find(|c| c["metadata"]["name"] == name).map(|c| c["value"].clone());
        (value("p1"), value("p2"))
    };
    assert_eq!(values(()), (Some(json!(1)), Some(json!(2))));
    let patch = |patch: Value| {
        vec![
            "patch".to_owned(),
            "priorityclass".into(),
            "p1".into(),
            "--type=merge".into(),
            "-p".into(),
            patch.to_string(),
        ]
    };
    let wrong = patch(json!({"value": 10}));
    let error = cluster.kubectl_fails(&wrong.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(error.contains("may not be changed in an update") || error.contains("immutable"), "{error}");
    let mut changed = cluster.json(&["get", "priorityclass", "p1"]);
    changed["value"] = json!(10);
    let path = cluster.dir.path().join("class.json");
    std::fs::write(&path, changed.to_string()).unwrap();
    let put = cluster.kubectl_fails(&[
        "replace",
        "--raw",
        "/apis/scheduling.k8s.io/v1/priorityclasses/p1",
        "-f",
        path.to_str().unwrap(),
    ]);
    assert!(put.contains("may not be changed in an update") || put.contains("immutable"), "{put}");
    let right = patch(json!({"description": "patched"}));
    cluster.kubectl(&right.iter().map(String::as_str).collect::<Vec<_>>());
    let mut changed = cluster.json(&["get", "priorityclass", "p1"]);
    assert_eq!(changed["description"], "patched");
    changed["description"] = json!("replaced");
    cluster.feed(&["replace"], &changed.to_string());
    assert_eq!(cluster.json(&["get", "priorityclass", "p1"])["description"], "replaced");
    delete(cluster, "priorityclass", &["p1", "p2"]);
    assert_eq!(values(()), (None, None));
}

/// Every node is full. Of its pods all are of medium priority but for the last node's larger one.
fn low_and_medium(cluster: &Cluster) {
    let nodes = nodes(cluster);
    offer(cluster, &nodes, RESOURCE, json!("5"));
    for (name, value) in [("low", 1), ("medium", 100), ("high", 1000)] {
        create(cluster, &class(name, value));
    }
    let mut names = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let is_last = index + 1 == nodes.len();
        let large = if is_last { "pod-low".to_owned() } else { format!("large-{index}") };
        let class = if is_last { "low" } else { "medium" };
        for (name, amount, class) in [(large, "3", class), (format!("small-{index}"), "2", "medium")] {
            let mut pod = takes(&name, amount, class);
            pod["spec"]["nodeSelector"] = on_node(node);
            create(cluster, &pod);
            names.push(name);
        }
    }
    names.iter().for_each(|name| until_running(cluster, name));
}

/// Nobody had to leave but `pod-low`.
fn only_the_low_one_left(cluster: &Cluster) {
    until_gone(cluster, "pod-low");
    let list = cluster.json(&["get", "pods"]);
    let pods = list["items"].as_array().unwrap();
    assert!(pods.iter().all(|pod| pod["metadata"]["deletionTimestamp"].is_null()), "{list:#}");
    let medium = pods.iter().filter(|pod| pod["spec"]["priorityClassName"] == "medium").count();
    assert_eq!(medium, nodes(cluster).len() * 2 - 1);
}

fn clean(cluster: &Cluster) {
    delete(cluster, "pod", &["--all"]);
    delete(cluster, "priorityclass", &["low", "medium", "high"]);
    offer(cluster, &nodes(cluster), RESOURCE, Value::Null);
}

// conformance: [sig-scheduling] SchedulerPreemption [Serial] validates basic preemption works
pub fn basic(cluster: &Cluster) {
    low_and_medium(cluster);
    create(cluster, &takes("preemptor", "3", "high"));
    until_running(cluster, "preemptor");
    only_the_low_one_left(cluster);
    let events = cluster.kubectl(&[
        "get",
        "events",
        "--field-selector",
        "involvedObject.name=pod-low,reason=Preempted",
        "-o",
        "jsonpath={.items[*].message}",
    ]);
    assert!(events.starts_with("Preempted by pod ") && events.contains(" on node "), "{events}");
    clean(cluster);
}

// conformance: [sig-scheduling] SchedulerPreemption [Serial] validates lower priority pod preemption by critical pod
pub fn critical(cluster: &Cluster) {
    low_and_medium(cluster);
    let mut critical = takes("critical", "3", "system-cluster-critical");
    critical["metadata"]["namespace"] = json!(SYSTEM);
    create(cluster, &critical);
    cluster.until("the critical pod runs", |cluster| {
        cluster.json(&["get", "pod", "critical", "-n", SYSTEM])["status"]["phase"] == "Running"
    });
    only_the_low_one_left(cluster);
    delete(cluster, "pod", &["critical", "-n", SYSTEM]);
    clean(cluster);
}

// conformance: [sig-scheduling] SchedulerPreemption [Serial] validates pod disruption condition is added to the preempted pod
pub fn disruption_condition(cluster: &Cluster) {
    offer(cluster, &one_node(cluster), RESOURCE, json!("1"));
    create(cluster, &class("low", 1));
    create(cluster, &class("high", 1000));
    let mut victim = takes("victim", "1", "low");
    victim["metadata"]["finalizers"] = json!(["example.com/test-finalizer"]);
    create(cluster, &victim);
    until_running(cluster, "victim");
    create(cluster, &takes("preemptor", "1", "high"));
    cluster.until("the victim is being deleted", |cluster| {
        !get(cluster, "victim")["metadata"]["deletionTimestamp"].is_null()
    });
    let victim = get(cluster, "victim");
    let target = condition(&victim, "DisruptionTarget");
    assert_eq!(target["status"], "True", "{victim:#}");
    assert_eq!(target["reason"], "PreemptionByScheduler");
    until_running(cluster, "preemptor");
    cluster.kubectl(&[
        "patch",
        "pod",
        "victim",
        "--type=json",
        "-p",
        r#"[{"op": "remove", "path": "/metadata/finalizers"}]"#,
    ]);
    until_gone(cluster, "victim");
    clean(cluster);
}

fn replica_set(name: &str, replicas: u32, amount: &str, class: &str) -> Value {
    let labels = json!({"name": name});
    let spec = json!({"priorityClassName": class, "terminationGracePeriodSeconds": 0,
        "containers": [limited(&json!({"example.com/fakecpu": amount}))]});
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec}}})
}

// conformance: [sig-scheduling] SchedulerPreemption [Serial] PreemptionExecutionPath runs ReplicaSets to verify preemption running path
pub fn replica_sets(cluster: &Cluster) {
    let one = one_node(cluster);
    offer(cluster, &one, "example.com/fakecpu", json!("1000"));
    let sets = [
        ("rs-pod1", 5, "40", "p1"),
        ("rs-pod2", 4, "50", "p2"),
        ("rs-pod3", 4, "95", "p3"),
        ("rs-pod4", 1, "400", "p4"),
    ];
    for (index, (_, _, _, name)) in sets.iter().enumerate() {
        create(cluster, &class(name, index as i64 + 1));
    }
    let ready = |cluster: &Cluster, name: &str| {
        cluster.json(&["get", "rs", name])["status"]["readyReplicas"].as_u64().unwrap_or(0)
    };
    for (name, replicas, amount, class) in sets {
        create(cluster, &replica_set(name, replicas, amount, class));
        cluster.until(&format!("{name} has its replicas"), |cluster| {
            ready(cluster, name) == u64::from(replicas)
        });
    }
    // 5 × 40 had to leave for 400 of 1000; their successors wait.
    cluster.until("the least important pods wait", |cluster| {
        let pods = cluster.json(&["get", "pods", "-l", "name=rs-pod1"]);
        let pods = pods["items"].as_array().unwrap();
        pods.len() == 5 && pods.iter().all(|pod| pod["status"]["phase"] == "Pending")
    });
    assert_eq!((ready(cluster, "rs-pod2"), ready(cluster, "rs-pod3"), ready(cluster, "rs-pod4")), (4, 4, 1));
    delete(cluster, "rs", &["rs-pod1", "rs-pod2", "rs-pod3", "rs-pod4"]);
    delete(cluster, "priorityclass", &["p1", "p2", "p3", "p4"]);
    offer(cluster, &one, "example.com/fakecpu", Value::Null);
}
