//! PodDisruptionBudgets and evictions.

use serde_json::{Value, json};

use super::space::{SLEEP, Space, add_condition, has_condition, is_ready, name, script};

const POLICY: &str = "apis/policy/v1";

fn budget(name: &str, spec: Value) -> Value {
    let mut body = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": name, "labels": {"e2e": "pdb"}}, "spec": {"selector": {"matchLabels": {"foo": "bar"}}}});
    for (field, value) in spec.as_object().into_iter().flatten() {
        body["spec"][field] = value.clone();
    }
    body
}

fn pods(space: &Space<'_>, count: usize) {
    for at in 0..count {
        let body = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("pod-{at}"), "labels": {"foo": "bar"}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [script(SLEEP)]}});
        space.make(&body);
    }
    for at in 0..count {
        space.wait("pod", &format!("pod-{at}"), "is ready", is_ready);
    }
}

/// Waits until the controller has judged the budget as it is.
fn processed(space: &Space<'_>, name: &str) -> Value {
    space.wait("pdb", name, "is processed", |budget| {
        budget["status"]["observedGeneration"] == budget["metadata"]["generation"]
    })
}

// conformance: [sig-apps] DisruptionController should create a PodDisruptionBudget
pub fn create(space: &Space<'_>) {
    let made = space.make(&budget("made", json!({"minAvailable": 1})));
    assert_eq!(made["spec"]["minAvailable"], 1);
    processed(space, "made");
    let updated = space.update("pdb", "made", "", |budget| budget["spec"]["minAvailable"] = json!(2));
    assert_eq!(updated["spec"]["minAvailable"], 2);
    assert_eq!(processed(space, "made")["spec"]["minAvailable"], 2);
    let patched = space.patch("pdb", "made", &json!({"spec": {"minAvailable": "3%"}}));
    assert_eq!(patched["spec"]["minAvailable"], "3%");
    processed(space, "made");
    space.delete("pdb", "made");
    assert!(space.find("pdb", "made").is_none());
}

// conformance: [sig-apps] DisruptionController should observe PodDisruptionBudget status updated
pub fn observed(space: &Space<'_>) {
    space.make(&budget("seen", json!({"minAvailable": 1})));
    processed(space, "seen");
    pods(space, 3);
    let seen = space.wait("pdb", "seen", "allows disruptions", |budget| {
        budget["status"]["disruptionsAllowed"].as_i64() > Some(0) && budget["status"]["currentHealthy"] == 3
    });
    assert_eq!(seen["status"]["disruptionsAllowed"], 2);
    assert!(has_condition(&seen, "DisruptionAllowed"));
}

// conformance: [sig-apps] DisruptionController should update/patch PodDisruptionBudget status
pub fn status(space: &Space<'_>) {
    space.make(&budget("state", json!({"minAvailable": 1})));
    processed(space, "state");
    pods(space, 1);
    space.wait("pdb", "state", "counts the pod", |budget| budget["status"]["currentHealthy"] == 1);
    let updated = space.update("pdb", "state", "status", |budget| {
        add_condition(budget, "E2E");
        budget["status"]["conditions"][1]["lastTransitionTime"] = json!("2020-01-01T00:00:00Z");
    });
    assert!(has_condition(&updated, "E2E"), "{updated}");
    let patch = json!({"metadata": {"annotations": {"patched": "yes"}}, "status": {"disruptedPods": {"pod-0": "2030-01-01T00:00:00Z"}}});
    let patched = space.patch_sub("pdb", "state", "status", &patch);
    assert_eq!(patched["metadata"]["annotations"]["patched"], "yes");
    assert_eq!(patched["status"]["disruptedPods"]["pod-0"], "2030-01-01T00:00:00Z");
    processed(space, "state");
}

// conformance: [sig-apps] DisruptionController Listing PodDisruptionBudgets for all namespaces should list and delete a collection of PodDisruptionBudgets
pub fn collection(space: &Space<'_>) {
    let other = space.elsewhere("elsewhere");
    let elsewhere = Space::of(&other);
    for (space, name, label) in [(space, "one", "a"), (space, "two", "a"), (&elsewhere, "three", "a")] {
        let mut body = budget(name, json!({"minAvailable": 1}));
        body["metadata"]["labels"] = json!({"group": label});
        space.make(&body);
    }
    let all = space.raw(&format!("/{POLICY}/poddisruptionbudgets?labelSelector=group%3Da"));
    assert_eq!(all["items"].as_array().map(Vec::len), Some(3));
    space.delete_collection(&space.path(POLICY, "poddisruptionbudgets"), "group=a");
    let left = space.raw(&format!("/{POLICY}/poddisruptionbudgets?labelSelector=group%3Da"));
    let names: Vec<String> = left["items"].as_array().unwrap().iter().map(name).collect();
    assert_eq!(names, ["three"]);
    space.raw_delete("/api/v1/namespaces/elsewhere");
}

fn evict(space: &Space<'_>, pod: &str) -> Result<(), String> {
    let body = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": space.namespace}});
    let path = format!("{}/{pod}/eviction", space.path("api/v1", "pods"));
    let (code, answer) = space.post_raw(&path, &body);
    if code == 201 { Ok(()) } else { Err(format!("{code} {answer}")) }
}

// conformance: [sig-apps] DisruptionController should block an eviction until the PDB is updated to allow it
pub fn eviction(space: &Space<'_>) {
    space.make(&budget("guard", json!({"minAvailable": 3})));
    processed(space, "guard");
    pods(space, 3);
    space.wait("pdb", "guard", "counts the pods", |budget| budget["status"]["currentHealthy"] == 3);
    let refused = evict(space, "pod-0").unwrap_err();
    assert!(
        refused.starts_with("429") && refused.contains("violate the pod's disruption budget"),
        "{refused}"
    );
    space.patch("pdb", "guard", &json!({"spec": {"minAvailable": 2}}));
    processed(space, "guard");
    evict(space, "pod-0").unwrap();
    space.wait_gone("pod", "pod-0");
    // Now the budget is used up.
    space.wait("pdb", "guard", "is used up", |budget| budget["status"]["disruptionsAllowed"] == 0);
    assert!(evict(space, "pod-1").is_err());
    space.delete("pdb", "guard");
    evict(space, "pod-1").unwrap();
    space.wait_gone("pod", "pod-1");
}
