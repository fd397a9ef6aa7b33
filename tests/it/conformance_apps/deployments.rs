//! Deployments.

use serde_json::{Value, json};

use super::space::{MISSING, Space, WEB, add_condition, condition, has_condition, name, template, text, web};

const APPS: &str = "apis/apps/v1";

fn deployment(name: &str, replicas: i32, spec: Value) -> Value {
    let labels = json!({"name": name});
    let mut body = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": labels},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template(&labels, web())}});
    for (field, value) in spec.as_object().into_iter().flatten() {
        body["spec"][field] = value.clone();
    }
    body
}

/// Changes the template by an environment variable.
fn recolour(space: &Space<'_>, name: &str, colour: &str) {
    let container = json!({"name": "web", "env": [{"name": "COLOUR", "value": colour}]});
    space.patch("deploy", name, &json!({"spec": {"template": {"spec": {"containers": [container]}}}}));
}

fn set_image(space: &Space<'_>, name: &str, image: &str) {
    let container = json!({"name": "web", "image": image});
    space.patch("deploy", name, &json!({"spec": {"template": {"spec": {"containers": [container]}}}}));
}

/// Waits until the rollout is through and returns the deployment.
fn complete(space: &Space<'_>, name: &str) -> Value {
    space.wait("deploy", name, "is complete", |deploy| {
        let (wanted, status) = (&deploy["spec"]["replicas"], &deploy["status"]);
        let counts = ["replicas", "updatedReplicas", "availableReplicas"];
        status["observedGeneration"] == deploy["metadata"]["generation"]
            && counts.iter().all(|count| status[count] == *wanted)
    })
}

fn sets(space: &Space<'_>, name: &str) -> Vec<Value> {
    let mut sets = space.list("rs", &format!("name={name}"));
    let revision = |set: &Value| {
        text(&set["metadata"]["annotations"]["deployment.kubernetes.io/revision"]).parse::<i64>().unwrap_or(0)
    };
    sets.sort_by_key(revision);
    sets
}

// conformance: [sig-apps] Deployment RollingUpdateDeployment should delete old pods and create new ones
pub fn rolling_update(space: &Space<'_>) {
    // A set that was there before becomes the deployment's past.
    let labels = json!({"name": "rolling"});
    let mut container = web();
    container["env"] = json!([{"name": "COLOUR", "value": "old"}]);
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "old", "labels": labels},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template(&labels, container)}});
    space.make(&set);
    space.wait_ready("name=rolling", 1);
    let uid = text(&space.make(&deployment("rolling", 1, json!({})))["metadata"]["uid"]);
    complete(space, "rolling");
    let sets = sets(space, "rolling");
    assert_eq!(sets.len(), 2);
    for set in &sets {
        assert_eq!(super::space::controller(set), Some(uid.clone()));
        let wanted = if name(set) == "old" { 0 } else { 1 };
        assert_eq!(set["spec"]["replicas"], wanted);
        assert_eq!(set["metadata"]["annotations"]["deployment.kubernetes.io/desired-replicas"], "1");
    }
}

// conformance: [sig-apps] Deployment RecreateDeployment should delete old pods and create new ones
pub fn recreate(space: &Space<'_>) {
    space.make(&deployment("recreate", 2, json!({"strategy": {"type": "Recreate"}})));
    complete(space, "recreate");
    let watch = space.watch(&space.path(APPS, "deployments"));
    recolour(space, "recreate", "blue");
    let through = watch.next("the rollout is through", |event| {
        let status = &event["object"]["status"];
        let updated = status["updatedReplicas"].as_i64().unwrap_or(0);
        let all = status["replicas"].as_i64().unwrap_or(0);
        let observed = status["observedGeneration"] == event["object"]["metadata"]["generation"];
        assert!(!observed || updated == 0 || updated == all, "old and new pods at the same time: {status}");
        observed && updated == 2 && status["availableReplicas"] == 2
    });
    assert_eq!(through["object"]["status"]["replicas"], 2);
}

// conformance: [sig-apps] Deployment deployment should support rollover
pub fn rollover(space: &Space<'_>) {
    let strategy = json!({"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}});
    space.make(&deployment("rollover", 1, json!({"strategy": strategy})));
    complete(space, "rollover");
    set_image(space, "rollover", MISSING);
    space.until("the rollout has begun", |space| sets(space, "rollover").len() == 2);
    // The rollout cannot end by itself; the next change takes over.
    recolour(space, "rollover", "green");
    set_image(space, "rollover", WEB);
    complete(space, "rollover");
    let sets = sets(space, "rollover");
    let sizes: Vec<i64> = sets.iter().map(|set| set["spec"]["replicas"].as_i64().unwrap()).collect();
    assert!(sizes.len() >= 3 && sizes.iter().sum::<i64>() == 1 && *sizes.last().unwrap() == 1, "{sizes:?}");
}

// conformance: [sig-apps] Deployment deployment should delete old replica sets
pub fn old_replica_sets(space: &Space<'_>) {
    space.make(&deployment("history", 1, json!({"revisionHistoryLimit": 0})));
    complete(space, "history");
    recolour(space, "history", "red");
    complete(space, "history");
    space.until("only one set is left", |space| sets(space, "history").len() == 1);
    space.wait_ready("name=history", 1);
}

// conformance: [sig-apps] Deployment deployment should support proportional scaling
pub fn proportional_scaling(space: &Space<'_>) {
    let strategy = json!({"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}});
    space.make(&deployment("share", 10, json!({"strategy": strategy})));
    complete(space, "share");
    set_image(space, "share", MISSING);
    let sizes = |space: &Space<'_>| -> Vec<i64> {
        sets(space, "share").iter().map(|set| set["spec"]["replicas"].as_i64().unwrap_or(0)).collect()
    };
    space.until("the rollout stands", |space| sizes(space) == [8, 5]);
    space.wait("deploy", "share", "has eight available", |deploy| {
        deploy["status"]["availableReplicas"] == 8
            && deploy["status"]["observedGeneration"] == deploy["metadata"]["generation"]
    });
    space.patch_sub("deploy", "share", "scale", &json!({"spec": {"replicas": 30}}));
    space.until("both sets grow in proportion", |space| sizes(space) == [20, 13]);
}

// conformance: [sig-apps] Deployment Deployment should have a working scale subresource
pub fn scale(space: &Space<'_>) {
    space.make(&deployment("scale", 1, json!({})));
    complete(space, "scale");
    let path = format!("{}/scale/scale", space.path(APPS, "deployments"));
    let mut scale = space.raw(&path);
    assert_eq!(scale["spec"]["replicas"], 1);
    scale["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    scale["spec"]["replicas"] = json!(2);
    assert_eq!(space.put_raw(&path, &scale)["spec"]["replicas"], 2);
    assert_eq!(space.get("deploy", "scale")["spec"]["replicas"], 2);
    space.patch_sub("deploy", "scale", "scale", &json!({"spec": {"replicas": 4}}));
    assert_eq!(space.get("deploy", "scale")["spec"]["replicas"], 4);
    complete(space, "scale");
}

// conformance: [sig-apps] Deployment should run the lifecycle of a Deployment
pub fn lifecycle(space: &Space<'_>) {
    let mut body = deployment("life", 2, json!({}));
    body["metadata"]["labels"]["test-deployment-static"] = json!("true");
    let watch = space.watch(&space.path(APPS, "deployments"));
    space.make(&body);
    watch.next("created", |event| event["type"] == "ADDED");
    watch.next("ready", |event| event["object"]["status"]["readyReplicas"] == 2);
    let patch = json!({"metadata": {"labels": {"test-deployment": "patched"}},
        "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "web", "env": [{"name": "A", "value": "b"}]}]}}}});
    space.patch("deploy", "life", &patch);
    watch.next("patched", |event| event["object"]["metadata"]["labels"]["test-deployment"] == "patched");
    watch.next("scaled", |event| event["object"]["status"]["readyReplicas"] == 1);
    let all = space.raw(&format!("/{APPS}/deployments?labelSelector=test-deployment-static%3Dtrue"));
    assert_eq!(all["items"].as_array().map(Vec::len), Some(1));
    complete(space, "life");
    space.update("deploy", "life", "", |deploy| {
        deploy["metadata"]["labels"]["test-deployment"] = json!("updated")
    });
    watch.next("updated", |event| event["object"]["metadata"]["labels"]["test-deployment"] == "updated");
    let path = format!("{}/life/status", space.path(APPS, "deployments"));
    assert_eq!(space.raw(&path)["status"]["readyReplicas"], 1);
    space.patch_sub("deploy", "life", "status", &json!({"status": {"readyReplicas": 0}}));
    watch.next("status patched", |event| {
        event["object"]["status"]["readyReplicas"].as_i64().unwrap_or(0) == 0
    });
    space.delete_collection(&space.path(APPS, "deployments"), "test-deployment-static=true");
    watch.next("deleted", |event| event["type"] == "DELETED");
}

// conformance: [sig-apps] Deployment should validate Deployment Status endpoints
pub fn status(space: &Space<'_>) {
    space.make(&deployment("state", 1, json!({})));
    complete(space, "state");
    let path = format!("{}/state/status", space.path(APPS, "deployments"));
    assert!(condition(&space.raw(&path), "Available").is_some());
    space.update("deploy", "state", "status", |deploy| add_condition(deploy, "StatusUpdate"));
    space.wait("deploy", "state", "shows the condition", |deploy| has_condition(deploy, "StatusUpdate"));
    let patch = json!({"status": {"conditions": [{"type": "StatusPatched", "status": "True"}]}});
    space.patch_sub("deploy", "state", "status", &patch);
    space.wait("deploy", "state", "shows the patched condition", |deploy| {
        has_condition(deploy, "StatusPatched")
    });
}
