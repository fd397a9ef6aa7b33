//! Strict, warning and ignoring field validation of typed objects.

use http::{Method, header};
use serde_json::json;

use super::wire::{APPLY, JSON, MERGE, Wire};
use super::world::World;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn deployment(metadata: &str, spec: &str) -> String {
    format!(
        r#"{{"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {{"name": "my-dep", {metadata} "labels": {{"app": "nginx"}}}},
            "spec": {{ {spec} "selector": {{"matchLabels": {{"app": "nginx"}}}},
                "template": {{"metadata": {{"labels": {{"app": "nginx"}}}},
                    "spec": {{"containers": [{{"name": "nginx", "image": "nginx:latest",
                        "unknownNested": "val1", "imagePullPolicy": "Always", "imagePullPolicy": "Never"}}]}}}}}}}}"#
    )
}

async fn refusal(wire: &Wire, method: Method, path: &str, content_type: &str, body: &str) -> String {
    let refused = wire.send(method, path, content_type, body.to_owned()).await.unwrap_err();
    assert_eq!(refused.code, 400, "{refused}");
    refused.message.clone()
}

// conformance: [sig-api-machinery] FieldValidation should detect unknown and duplicate fields of a typed object
async fn unknown_and_duplicate(wire: &Wire) {
    let body = deployment(
        "",
        r#""unknown1": "val1", "unknownDupe": "valDupe", "unknownDupe": "valDupe2", "paused": true, "paused": false,"#,
    );
    let strict = "fieldManager=test&fieldValidation=Strict";
    let created = refusal(wire, Method::POST, &format!("{DEPLOYMENTS}?{strict}"), JSON, &body).await;
    assert!(
        created.contains(
            r#"strict decoding error: unknown field "spec.unknown1", unknown field "spec.unknownDupe", duplicate field "spec.paused", unknown field "spec.template.spec.containers[0].unknownNested", duplicate field "spec.template.spec.containers[0].imagePullPolicy""#
        ),
        "{created}"
    );
    let path = format!("{DEPLOYMENTS}/my-dep?{strict}");
    let applied = refusal(wire, Method::PATCH, &path, APPLY, &body).await;
    for part in
        ["strict decoding error", r#"unknown field "spec.unknown1""#, r#"key "paused" already set in map"#]
    {
        assert!(applied.contains(part), "{part}: {applied}");
    }
    assert!(wire.get(&format!("{DEPLOYMENTS}/my-dep")).await.unwrap_err().is_not_found());
    // Other modes take the object; only `Ignore` says nothing.
    for (mode, warns) in [("Warn", true), ("", true), ("Ignore", false)] {
        let path = format!("{DEPLOYMENTS}?fieldValidation={mode}");
        let headers = [(header::CONTENT_TYPE, JSON)];
        let answer = wire.0.send(Method::POST, &path, &headers, body.clone().into()).await.unwrap();
        assert_eq!(answer.headers().contains_key(header::WARNING), warns, "{mode}");
        wire.delete(&format!("{DEPLOYMENTS}/my-dep")).await.unwrap();
    }
    let unknown = format!("{DEPLOYMENTS}?fieldValidation=Sometimes");
    let refused = wire.send(Method::POST, &unknown, JSON, body).await.unwrap_err();
    assert_eq!(refused.code, 422, "{refused}");
}

// conformance: [sig-api-machinery] FieldValidation should detect unknown metadata fields of a typed object
async fn unknown_metadata(wire: &Wire) {
    let body = deployment(r#""unknownMeta": "unknown","#, "").replace(r#""unknownNested": "val1","#, "");
    let strict = "fieldManager=test&fieldValidation=Strict";
    for (method, path, content_type) in [
        (Method::POST, format!("{DEPLOYMENTS}?{strict}"), JSON),
        (Method::PATCH, format!("{DEPLOYMENTS}/my-dep?{strict}"), APPLY),
    ] {
        let refused = refusal(wire, method, &path, content_type, &body).await;
        assert!(refused.contains("strict decoding error"), "{refused}");
        assert!(refused.contains(r#"unknown field "metadata.unknownMeta""#), "{refused}");
    }
}

/// Patches are checked as well, and never leave what is unknown behind.
async fn patches(wire: &Wire) {
    let maps = "/api/v1/namespaces/default/configmaps";
    wire.post(maps, &json!({"metadata": {"name": "patched"}})).await.unwrap();
    let strict = format!("{maps}/patched?fieldValidation=Strict");
    let refused = refusal(wire, Method::PATCH, &strict, MERGE, r#"{"foo": 1}"#).await;
    assert!(refused.contains(r#"unknown field "foo""#), "{refused}");
    let kept =
        wire.patch(&format!("{maps}/patched"), MERGE, &json!({"foo": 1, "data": {"a": "b"}})).await.unwrap();
    assert_eq!((kept.get("foo"), &kept["data"]), (None, &json!({"a": "b"})));
}

#[tokio::test]
async fn fields_are_validated_as_asked() {
    let world = World::without_controllers().await;
    unknown_and_duplicate(&world.admin).await;
    unknown_metadata(&world.admin).await;
    patches(&world.admin).await;
}
