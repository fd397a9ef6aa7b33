//! What runs in a world.

use serde_json::{Value, json};

use crate::story::Story;

/// The Deployments, by number.
pub const DEPLOYMENTS: [&str; crate::story::WORKLOADS] = ["web", "important"];

fn template(name: &str, cpu: &str, more: Value) -> Value {
    let mut spec = json!({"containers": [{"name": "c", "image": "example.com/app:1",
        "resources": {"requests": {"cpu": cpu}}}]});
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    json!({"metadata": {"labels": {"app": name}}, "spec": spec})
}

fn workload(kind: &str, name: &str, replicas: Option<u32>, template: Value, more: Value) -> Value {
    let mut spec = json!({"selector": {"matchLabels": {"app": name}}, "template": template});
    if let Some(replicas) = replicas {
        spec["replicas"] = json!(replicas);
    }
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// The resource and the object of everything that is created at the start.
pub fn objects(story: &Story) -> Vec<(&'static str, Value)> {
    let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
        "metadata": {"name": "important"}, "value": 1000});
    let spread = json!([{"topologyKey": "kubernetes.io/hostname", "maxSkew": 2, "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app": "web"}}}]);
    let apart = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "db"}}}]}});
    let web = template("web", "400m", json!({"topologySpreadConstraints": spread}));
    let important = template("important", "500m", json!({"priorityClassName": "important"}));
    let db = template("db", "200m", json!({"affinity": apart}));
    let agent = template("agent", "100m", json!({}));
    vec![
        ("priorityclasses", class),
        ("deployments", workload("Deployment", "web", Some(story.replicas), web, json!({}))),
        ("deployments", workload("Deployment", "important", Some(2), important, json!({}))),
        ("statefulsets", workload("StatefulSet", "db", Some(3), db, json!({"serviceName": "db"}))),
        ("daemonsets", workload("DaemonSet", "agent", None, agent, json!({}))),
    ]
}
