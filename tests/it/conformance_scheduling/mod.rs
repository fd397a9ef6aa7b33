//! `[sig-scheduling]`: where pods go, who has to leave for them, and what limits they get, on one, two and five nodes.

mod limit_range;
mod predicates;
mod preemption;

use serde_json::{Value, json};

use crate::cluster::Cluster;

/// A pod of the built-in image; `extra` is merged into it as `kubectl patch --type merge` would.
fn pod(name: &str, extra: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 1},
    });
    merge(&mut pod, extra);
    if pod["spec"]["containers"].is_null() {
        pod["spec"]["containers"] = json!([container(&json!({}))]);
    }
    pod
}

fn container(extra: &Value) -> Value {
    let mut container =
        json!({"name": "c", "image": "kobune.local/web:latest", "imagePullPolicy": "IfNotPresent"});
    merge(&mut container, extra);
    container
}

/// A container that asks for as much as it may have.
fn limited(resources: &Value) -> Value {
    container(&json!({"resources": {"requests": resources, "limits": resources}}))
}

fn merge(value: &mut Value, extra: &Value) {
    match (value, extra) {
        (Value::Object(value), Value::Object(extra)) => {
            for (key, extra) in extra {
                merge(value.entry(key.clone()).or_insert(Value::Null), extra);
            }
        }
        (value, extra) => *value = extra.clone(),
    }
}

fn create(cluster: &Cluster, object: &Value) {
    cluster.feed(&["create"], &object.to_string());
}

fn get(cluster: &Cluster, name: &str) -> Value {
    cluster.json(&["get", "pod", name])
}

/// The names of the nodes.
fn nodes(cluster: &Cluster) -> Vec<String> {
    let names = cluster.kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"]);
    names.split(' ').map(str::to_owned).collect()
}

/// Binds a pod to a node through the scheduler.
fn on_node(node: &str) -> Value {
    json!({"kubernetes.io/hostname": node})
}

fn condition<'a>(pod: &'a Value, kind: &str) -> &'a Value {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

fn until_running(cluster: &Cluster, name: &str) {
    cluster.until(&format!("{name} runs"), |cluster| get(cluster, name)["status"]["phase"] == "Running");
}

/// Waits for the warning that a pod cannot be scheduled; returns its message.
fn until_refused(cluster: &Cluster, name: &str) -> String {
    let selector =
        format!("involvedObject.name={name},involvedObject.kind=Pod,reason=FailedScheduling,type=Warning");
    let mut message = String::new();
    cluster.until(&format!("{name} is refused"), |cluster| {
        let events = cluster.json(&["get", "events", "--field-selector", &selector]);
        message = events["items"][0]["message"].as_str().unwrap_or_default().to_owned();
        !message.is_empty()
    });
    let pod = get(cluster, name);
    assert_eq!(pod["spec"]["nodeName"], Value::Null);
    assert_eq!(condition(&pod, "PodScheduled")["reason"], "Unschedulable", "{pod:#}");
    message
}

fn delete(cluster: &Cluster, kind: &str, names: &[&str]) {
    cluster.kubectl(&[&["delete", kind, "--ignore-not-found"], names].concat());
}

// nodes: 1, 2, 5
fn on_nodes(count: usize) {
    let cluster = Cluster::with_nodes(count);
    limit_range::defaults_and_bounds(&cluster);
    limit_range::a_collection(&cluster);
    predicates::resource_limits(&cluster);
    predicates::a_node_selector_that_matches(&cluster);
    predicates::a_node_selector_that_does_not(&cluster);
    predicates::host_ports(&cluster);
    preemption::priority_classes(&cluster);
    preemption::basic(&cluster);
    preemption::critical(&cluster);
    preemption::disruption_condition(&cluster);
    preemption::replica_sets(&cluster);
}

#[test]
fn scheduling_on_one_node() {
    on_nodes(1);
}

#[test]
fn scheduling_on_two_nodes() {
    on_nodes(2);
}

#[test]
fn scheduling_on_five_nodes() {
    on_nodes(5);
}
