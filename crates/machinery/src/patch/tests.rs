use serde_json::{Value, json};

use super::*;
use crate::schema::{Node, Schema, builtin};

fn deployment() -> (&'static Schema, &'static Node) {
    (builtin(), builtin().named("io.k8s.api.apps.v1.Deployment").unwrap())
}

fn pod(spec: Value) -> Value {
    json!({"spec": {"template": {"spec": spec}}})
}

/// Applies `patch` to a deployment's pod spec.
fn check(original: Value, patch: Value, wanted: Value) {
    let (schema, node) = deployment();
    let result = strategic(schema, node, &pod(original), &pod(patch)).unwrap();
    assert_eq!(result["spec"]["template"]["spec"], wanted);
}

#[test]
fn lists_merge_by_their_key() {
    check(
        json!({"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]}),
        json!({"containers": [{"name": "b", "image": "z"}, {"name": "c", "image": "w"}]}),
        json!({"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "z"}, {"name": "c", "image": "w"}]}),
    );
}

#[test]
fn what_is_new_goes_before_what_only_the_server_has() {
    check(
        json!({"containers": [{"name": "a"}, {"name": "b"}]}),
        json!({"containers": [{"name": "n"}]}),
        json!({"containers": [{"name": "n"}, {"name": "a"}, {"name": "b"}]}),
    );
    check(
        json!({"containers": [{"name": "a"}, {"name": "b"}]}),
        json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}),
        json!({"containers": [{"name": "b"}, {"name": "a"}]}),
    );
    check(
        json!({}),
        json!({"containers": [{"name": "x", "$patch": "delete"}, {"name": "y", "image": null}]}),
        json!({"containers": [{"name": "y"}]}),
    );
}

#[test]
fn a_dollar_alone_makes_no_instruction() {
    let (schema, node) = deployment();
    let patch = json!({"metadata": {"annotations": {"$ref": "kept", "$patch": "merge"}}});
    let result = strategic(schema, node, &json!({}), &patch).unwrap();
    assert_eq!(result, json!({"metadata": {"annotations": {"$ref": "kept"}}}));
}

#[test]
fn directives_delete_and_replace() {
    check(
        json!({"containers": [{"name": "a", "image": "x"}, {"name": "b"}]}),
        json!({"containers": [{"name": "b", "$patch": "delete"}]}),
        json!({"containers": [{"name": "a", "image": "x"}]}),
    );
    check(
        json!({"containers": [{"name": "a", "image": "x"}]}),
        json!({"containers": [{"$patch": "replace"}, {"name": "n"}]}),
        json!({"containers": [{"name": "n"}]}),
    );
    check(
        json!({"securityContext": {"runAsUser": 1, "fsGroup": 2}}),
        json!({"securityContext": {"$patch": "replace", "fsGroup": 3}}),
        json!({"securityContext": {"fsGroup": 3}}),
    );
    check(json!({"nodeName": "a", "hostname": "h"}), json!({"nodeName": null}), json!({"hostname": "h"}));
}

#[test]
fn retain_keys_clears_the_other_members_of_a_union() {
    let (schema, node) = deployment();
    let original = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    let result = strategic(schema, node, &original, &patch).unwrap();
    assert_eq!(result, json!({"spec": {"strategy": {"type": "Recreate"}}}));
}

#[test]
fn primitive_lists_merge_as_sets_and_atomic_lists_are_replaced() {
    let (schema, node) = deployment();
    let original = json!({"metadata": {"finalizers": ["a", "b"]}});
    let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}});
    let result = strategic(schema, node, &original, &patch).unwrap();
    assert_eq!(result["metadata"]["finalizers"], json!(["c", "b"]));
    check(
        json!({"containers": [{"name": "a", "command": ["x", "y"]}]}),
        json!({"containers": [{"name": "a", "command": ["z"]}]}),
        json!({"containers": [{"name": "a", "command": ["z"]}]}),
    );
}

#[test]
fn element_order_is_obeyed() {
    check(
        json!({"containers": [{"name": "a"}, {"name": "server-only"}, {"name": "b"}]}),
        json!({
            "$setElementOrder/containers": [{"name": "b"}, {"name": "n"}, {"name": "a"}],
            "containers": [{"name": "n", "image": "i"}],
        }),
        json!({"containers": [{"name": "server-only"}, {"name": "b"}, {"name": "n", "image": "i"}, {"name": "a"}]}),
    );
}

#[test]
fn a_list_element_without_its_key_is_a_bad_request() {
    let (schema, node) = deployment();
    let error =
        strategic(schema, node, &pod(json!({})), &pod(json!({"containers": [{"image": "x"}]}))).unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (400, "BadRequest"));
    assert!(error.message.contains("does not contain declared merge key: name"), "{error}");
}

#[test]
fn three_way_keeps_what_others_changed_and_deletes_what_the_user_dropped() {
    let (schema, node) = deployment();
    let original = pod(json!({"containers": [{"name": "a", "image": "1"}, {"name": "b"}], "hostname": "h"}));
    let modified = pod(json!({"containers": [{"name": "a", "image": "2"}]}));
    let mut current = original.clone();
    current["spec"]["replicas"] = json!(7);
    current["spec"]["template"]["spec"]["containers"][0]["tty"] = json!(true);
    let patch = three_way_strategic(schema, node, &original, &modified, &current).unwrap();
    let result = strategic(schema, node, &current, &patch).unwrap();
    assert_eq!(
        result,
        json!({"spec": {"replicas": 7, "template": {"spec": {"containers": [{"name": "a", "image": "2", "tty": true}]}}}})
    );
    let merged = merge_patch(
        &json!({"a": 1, "server": 2}),
        &three_way_merge(&json!({"a": 1, "old": 1}), &json!({"a": 3}), &json!({"a": 1, "server": 2})),
    );
    assert_eq!(merged, json!({"a": 3, "server": 2}));
}

#[test]
fn json_patches_apply_or_say_why_not() {
    let original = json!({"a": [1, 2]});
    let patch =
        json!([{"op": "test", "path": "/a/0", "value": 1}, {"op": "add", "path": "/a/-", "value": 3}]);
    assert_eq!(json_patch(&original, &patch).unwrap(), json!({"a": [1, 2, 3]}));
    let failed = json_patch(&original, &json!([{"op": "test", "path": "/a/0", "value": 9}])).unwrap_err();
    assert_eq!(failed.code, 422);
    assert_eq!(json_patch(&original, &json!([{"op": "dance"}])).unwrap_err().code, 400);
    let many: Vec<_> = (0..10_001).map(|_| json!({"op": "remove", "path": "/a"})).collect();
    assert_eq!(json_patch(&original, &Value::Array(many)).unwrap_err().code, 413);
}

#[test]
fn three_way_tells_unions_what_to_keep() {
    let (schema, node) = deployment();
    let original = json!({"spec": {"strategy": {"type": "RollingUpdate"}}});
    let modified = json!({"spec": {"strategy": {"type": "Recreate"}, "template": {"spec": {
        "volumes": [{"name": "v", "hostPath": {"path": "/"}}]}}}});
    let current = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
        "template": {"spec": {"volumes": [{"name": "v", "emptyDir": {}}, {"name": "injected"}]}}}});
    let patch = three_way_strategic(schema, node, &original, &modified, &current).unwrap();
    let mut wanted = modified.clone();
    wanted["spec"]["template"]["spec"]["volumes"].as_array_mut().unwrap().push(json!({"name": "injected"}));
    assert_eq!(strategic(schema, node, &current, &patch).unwrap(), wanted, "{patch:#}");
}
