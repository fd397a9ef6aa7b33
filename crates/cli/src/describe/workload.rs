//! Deployments, replica sets and replication controllers.

use serde_json::Value;

use super::page::{Page, items, or, text, time};
use super::pod;
use crate::output::table::labels;

fn selector(object: &Value) -> String {
    let selector = &object["spec"]["selector"];
    labels(if selector["matchLabels"].is_object() { &selector["matchLabels"] } else { selector })
}

pub fn deployment(page: &mut Page, object: &Value, sets: &[Value]) {
    let (spec, status) = (&object["spec"], &object["status"]);
    let number = |field: &str| status[field].as_u64().unwrap_or(0);
    page.name(object);
    page.field(0, "CreationTimestamp", time(&object["metadata"]["creationTimestamp"]));
    page.labels(object);
    page.field(0, "Selector", selector(object));
    page.field(
        0,
        "Replicas",
        format!(
            "{} desired | {} updated | {} total | {} available | {} unavailable",
            spec["replicas"].as_u64().unwrap_or(1),
            number("updatedReplicas"),
            number("replicas"),
            number("availableReplicas"),
            number("unavailableReplicas"),
        ),
    );
    page.field(0, "StrategyType", text(&spec["strategy"]["type"]));
    page.field(0, "MinReadySeconds", spec["minReadySeconds"].as_u64().unwrap_or(0).to_string());
    let rolling = &spec["strategy"]["rollingUpdate"];
    if rolling.is_object() {
        let (unavailable, surge) = (text(&rolling["maxUnavailable"]), text(&rolling["maxSurge"]));
        page.field(0, "RollingUpdateStrategy", format!("{unavailable} max unavailable, {surge} max surge"));
    }
    page.line(0, "Pod Template:");
    pod::template(page, 1, &spec["template"]);
    page.conditions(object, &[("Type", "type"), ("Status", "status"), ("Reason", "reason")]);
    replica_sets(page, object, sets);
}

fn replica_sets(page: &mut Page, object: &Value, sets: &[Value]) {
    let uid = &object["metadata"]["uid"];
    let revision =
        |object: &Value| object["metadata"]["annotations"]["deployment.kubernetes.io/revision"].clone();
    let owned = |set: &&Value| items(&set["metadata"]["ownerReferences"]).any(|owner| &owner["uid"] == uid);
    let (new, old): (Vec<_>, Vec<_>) =
        sets.iter().filter(owned).partition(|set| revision(set) == revision(object));
    let show = |sets: &[&Value]| {
        let shown = sets
            .iter()
            .filter(|set| set["spec"]["replicas"].as_u64() != Some(0) || revision(set) == revision(object));
        let texts: Vec<_> = shown
            .map(|set| {
                let (wanted, made) = (set["spec"]["replicas"].as_u64(), set["status"]["replicas"].as_u64());
                let counts = format!("{}/{} replicas created", made.unwrap_or(0), wanted.unwrap_or(0));
                format!("{} ({counts})", text(&set["metadata"]["name"]))
            })
            .collect();
        if texts.is_empty() { "<none>".to_owned() } else { texts.join(", ") }
    };
    page.field(0, "OldReplicaSets", show(&old));
    page.field(0, "NewReplicaSet", show(&new));
}

/// Replica sets and replication controllers.
pub fn replicas(page: &mut Page, object: &Value, pods: &[Value]) {
    let (spec, status) = (&object["spec"], &object["status"]);
    page.name(object);
    page.field(0, "Selector", selector(object));
    page.labels(object);
    let owners = &object["metadata"]["ownerReferences"];
    if let Some(owner) = items(owners).find(|owner| owner["controller"] == true) {
        page.field(0, "Controlled By", format!("{}/{}", text(&owner["kind"]), text(&owner["name"])));
    }
    let (current, desired) =
        (status["replicas"].as_u64().unwrap_or(0), spec["replicas"].as_u64().unwrap_or(1));
    page.field(0, "Replicas", format!("{current} current / {desired} desired"));
    let uid = &object["metadata"]["uid"];
    let own = pods.iter().filter(|pod| {
        items(&pod["metadata"]["ownerReferences"])
            .any(|owner| owner["controller"] == true && &owner["uid"] == uid)
    });
    let phases: Vec<_> = own.map(|pod| or(&pod["status"]["phase"], "Pending")).collect();
    let count = |phase: &str| phases.iter().filter(|other| **other == phase).count();
    page.field(
        0,
        "Pods Status",
        format!(
            "{} Running / {} Waiting / {} Succeeded / {} Failed",
            count("Running"),
            count("Pending"),
            count("Succeeded"),
            count("Failed")
        ),
    );
    page.line(0, "Pod Template:");
    pod::template(page, 1, &spec["template"]);
    page.conditions(object, &[("Type", "type"), ("Status", "status"), ("Reason", "reason")]);
}
