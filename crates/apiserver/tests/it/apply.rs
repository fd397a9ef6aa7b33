//! Patches and server-side apply through the pipeline.

use client::{Patch, Target, WriteOptions};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};
use testkit::TestServer;

fn intent(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": data})
}

fn manager(name: &str, force: bool) -> WriteOptions {
    WriteOptions { field_manager: name.to_owned(), force, ..WriteOptions::default() }
}

#[tokio::test]
async fn an_apply_creates_merges_removes_and_conflicts() {
    let test = TestServer::start().await;
    let maps = test.client().namespaced::<ConfigMap>("default");
    let transport = test.client().transport().clone();
    let target = Target { name: "one".into(), ..maps.target().clone() };
    let apply = async |data: Value, who: &str, force: bool| {
        transport.patch(&target, Patch::Apply(intent(data)), &manager(who, force)).await
    };
    let created = apply(json!({"a": "1", "b": "1"}), "alice", false).await.unwrap();
    assert_eq!(created.value()["data"], json!({"a": "1", "b": "1"}));
    let again = apply(json!({"a": "1", "b": "1"}), "alice", false).await.unwrap();
    assert_eq!(again.revision(), created.revision(), "an apply that changes nothing writes nothing");
    let conflict = apply(json!({"a": "2"}), "bob", false).await.unwrap_err();
    assert_eq!(conflict.code, 409);
    assert_eq!(conflict.message, "Apply failed with 1 conflict: conflict with \"alice\": .data.a");
    let forced = apply(json!({"a": "2"}), "bob", true).await.unwrap();
    assert_eq!(forced.value()["data"], json!({"a": "2", "b": "1"}));
    let without_b = apply(json!({}), "alice", false).await.unwrap();
    assert_eq!(without_b.value()["data"], json!({"a": "2"}));
}

#[tokio::test]
async fn who_set_what_is_noted() {
    let test = TestServer::start().await;
    let maps = test.client().namespaced::<ConfigMap>("default");
    let made = maps.create(&json!({"metadata": {"name": "one"}, "data": {"a": "1"}})).await.unwrap();
    let entry = made.value()["metadata"]["managedFields"][0].clone();
    assert_eq!(entry["manager"], "admin");
    assert_eq!(entry["operation"], "Update");
    assert_eq!(entry["fieldsV1"]["f:data"]["f:a"], json!({}));
}

#[tokio::test]
async fn a_json_patch_and_a_strategic_merge() {
    let test = TestServer::start().await;
    let deployments = test.client().namespaced::<Deployment>("default");
    let body = json!({
        "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "a", "image": "one"}, {"name": "b", "image": "two"}]},
            },
        },
    });
    let made = deployments.create(&body).await.unwrap();
    assert_eq!(made.value()["spec"]["replicas"], 1, "defaults are filled in");
    assert_eq!(made.value()["metadata"]["generation"], 1);
    let strategic =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "b", "image": "three"}]}}}});
    let patched = deployments.patch("web", Patch::StrategicMerge(strategic)).await.unwrap().value();
    let images: Vec<_> = patched["spec"]["template"]["spec"]["containers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["image"])
        .collect();
    assert_eq!(images, ["one", "three"]);
    assert_eq!(patched["metadata"]["generation"], 2);
    let operations = json!([{"op": "replace", "path": "/spec/replicas", "value": 3}]);
    let patched = deployments.patch("web", Patch::Json(operations)).await.unwrap();
    assert_eq!(patched.value()["spec"]["replicas"], 3);
    let status = json!({"status": {"replicas": 2}, "spec": {"replicas": 9}});
    let patched = deployments.patch_status("web", Patch::Merge(status)).await.unwrap().value();
    assert_eq!((&patched["status"]["replicas"], &patched["spec"]["replicas"]), (&json!(2), &json!(3)));
    assert_eq!(patched["metadata"]["generation"], 3, "a status does not count as a change");
}

#[tokio::test]
async fn the_scale_is_a_view_of_the_object() {
    let test = TestServer::start().await;
    let deployments = test.client().namespaced::<Deployment>("default");
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "one"}]}});
    let body = json!({"metadata": {"name": "web"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template}});
    deployments.create(&body).await.unwrap();
    let transport = test.client().transport().clone();
    let target = Target { name: "web".into(), subresource: "scale".into(), ..deployments.target().clone() };
    let scale = transport.get(&target, &Default::default()).await.unwrap().value();
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(2)));
    assert_eq!(scale["status"]["selector"], "app=web");
    let patch = Patch::Merge(json!({"spec": {"replicas": 5}}));
    let scaled = transport.patch(&target, patch, &WriteOptions::default()).await.unwrap();
    assert_eq!(scaled.value()["spec"]["replicas"], 5);
    assert_eq!(deployments.get("web").await.unwrap().value()["spec"]["replicas"], 5);
    let mut replaced = scaled.value();
    replaced["spec"]["replicas"] = json!(-1);
    assert_eq!(transport.update(&target, replaced, &WriteOptions::default()).await.unwrap_err().code, 422);
}

#[tokio::test]
async fn an_apply_on_the_scale_owns_the_replicas() {
    let test = TestServer::start().await;
    let deployments = test.client().namespaced::<Deployment>("default");
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let body = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template}});
    let transport = test.client().transport().clone();
    let object = Target { name: "web".into(), ..deployments.target().clone() };
    transport.patch(&object, Patch::Apply(body.clone()), &manager("alice", false)).await.unwrap();
    let scale = Target { subresource: "scale".into(), ..object.clone() };
    let intent = |replicas: i64| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": replicas}});
    let conflict =
        transport.patch(&scale, Patch::Apply(intent(5)), &manager("scaler", false)).await.unwrap_err();
    assert_eq!(conflict.code, 409);
    assert!(conflict.message.contains("conflict with \"alice\": .spec.replicas"), "{conflict}");
    let scaled =
        transport.patch(&scale, Patch::Apply(intent(5)), &manager("scaler", true)).await.unwrap().value();
    assert_eq!((&scaled["kind"], &scaled["spec"]["replicas"]), (&json!("Scale"), &json!(5)));
    let live = transport.get(&object, &Default::default()).await.unwrap().value();
    assert_eq!(live["spec"]["replicas"], 5);
    let entries = live["metadata"]["managedFields"].as_array().unwrap();
    let own = entries.iter().find(|entry| entry["manager"] == "scaler").unwrap();
    assert_eq!((&own["subresource"], &own["operation"]), (&json!("scale"), &json!("Apply")));
    assert_eq!(own["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    // The replicas are the scaler's now: who applies the object with others is told.
    let refused = transport.patch(&object, Patch::Apply(body), &manager("alice", false)).await.unwrap_err();
    assert_eq!(refused.code, 409, "{refused}");
    let negative =
        transport.patch(&scale, Patch::Apply(intent(-1)), &manager("scaler", true)).await.unwrap_err();
    assert_eq!(negative.code, 422);
    let missing = Target { name: "none".into(), ..scale };
    let mut nobody = intent(1);
    nobody["metadata"]["name"] = json!("none");
    let absent = transport.patch(&missing, Patch::Apply(nobody), &manager("scaler", true)).await.unwrap_err();
    assert_eq!(absent.code, 404);
}
