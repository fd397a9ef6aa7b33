use expect_test::expect;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::schema::builtin;

fn kind() -> Type<'static> {
    Type { schema: builtin(), node: builtin().named("io.k8s.api.apps.v1.Deployment").unwrap() }
}

fn writer(manager: &str) -> Writer<'_> {
    Writer { manager, api_version: "apps/v1", subresource: "", now: Timestamp::UNIX_EPOCH }
}

fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
}

fn containers(list: Value) -> Value {
    deployment(json!({"template": {"spec": {"containers": list}}}))
}

fn owned(object: &Value, manager: &str) -> Vec<String> {
    let managed = Managed::read(object);
    managed
        .entries
        .iter()
        .filter(|entry| entry.manager == manager)
        .flat_map(|entry| entry.fields.paths())
        .collect()
}

#[test]
fn a_field_set_survives_its_encoding() {
    let object = deployment(json!({"replicas": 2, "template": {
        "metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80}], "command": ["x"]}]},
    }}));
    let set = compare::fields(kind().schema, kind().node, &object);
    assert_eq!(FieldSet::decode(&set.encode()), set);
    let paths = set.paths();
    for wanted in [
        ".spec.replicas",
        ".spec.template.metadata.labels.a",
        ".spec.template.spec.containers[name=\"c\"]",
        ".spec.template.spec.containers[name=\"c\"].command",
        ".spec.template.spec.containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"].containerPort",
    ] {
        assert!(paths.iter().any(|path| path == wanted), "{wanted} is missing in {paths:#?}");
    }
}

#[test]
fn an_update_owns_what_it_changes() {
    let mut created = deployment(json!({"replicas": 1, "paused": false}));
    track_update(kind(), None, &mut created, &writer("creator"));
    assert_eq!(owned(&created, "creator"), [".spec.paused", ".spec.replicas"]);
    let mut scaled = created.clone();
    scaled["spec"]["replicas"] = json!(5);
    track_update(kind(), Some(&created), &mut scaled, &writer("scaler"));
    assert_eq!(owned(&scaled, "creator"), [".spec.paused"]);
    assert_eq!(owned(&scaled, "scaler"), [".spec.replicas"]);
    let mut unpaused = scaled.clone();
    unpaused["spec"].as_object_mut().unwrap().remove("paused");
    track_update(kind(), Some(&scaled), &mut unpaused, &writer("other"));
    assert_eq!(owned(&unpaused, "creator"), Vec::<String>::new());
    assert_eq!(owned(&unpaused, "other"), Vec::<String>::new());
}

#[test]
fn an_update_that_changes_nothing_keeps_the_ownership() {
    let mut created = deployment(json!({"replicas": 1}));
    track_update(kind(), None, &mut created, &writer("a"));
    let mut same = created.clone();
    same["metadata"].as_object_mut().unwrap().remove("managedFields");
    track_update(kind(), Some(&created), &mut same, &writer("b"));
    assert_eq!(same, created);
}

#[test]
fn applying_twice_changes_nothing() {
    let intent = containers(json!([{"name": "a", "image": "x"}]));
    let first = apply(kind(), None, &intent, &writer("me"), false).unwrap();
    let later = Writer { now: Timestamp::from_second(99).unwrap(), ..writer("me") };
    assert_eq!(apply(kind(), Some(&first), &intent, &later, false).unwrap(), first);
}

#[test]
fn fields_that_are_no_longer_applied_go_unless_somebody_else_owns_them() {
    let both = containers(json!([{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]));
    let first = apply(kind(), None, &both, &writer("me"), false).unwrap();
    let only_a = containers(json!([{"name": "a", "image": "x"}]));
    let second = apply(kind(), Some(&first), &only_a, &writer("me"), false).unwrap();
    assert_eq!(second["spec"]["template"]["spec"]["containers"], json!([{"name": "a", "image": "x"}]));
    let shared = containers(json!([{"name": "b", "image": "y"}]));
    let with_other = apply(kind(), Some(&first), &shared, &writer("you"), false).unwrap();
    let kept = apply(kind(), Some(&with_other), &only_a, &writer("me"), false).unwrap();
    assert_eq!(kept["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 2);
}

#[test]
fn a_conflict_names_the_owner_and_force_takes_over() {
    let mut live = deployment(json!({"replicas": 1}));
    track_update(kind(), None, &mut live, &writer("kubectl"));
    let intent = deployment(json!({"replicas": 3}));
    let conflicts = apply(kind(), Some(&live), &intent, &writer("me"), false).unwrap_err();
    let status = conflict_status(&conflicts);
    assert_eq!(
        status.message,
        "Apply failed with 1 conflict: conflict with \"kubectl\" using apps/v1: .spec.replicas"
    );
    assert_eq!(status.details.as_ref().unwrap().causes[0].field, ".spec.replicas");
    let forced = apply(kind(), Some(&live), &intent, &writer("me"), true).unwrap();
    assert_eq!(forced["spec"]["replicas"], 3);
    assert_eq!(
        (owned(&forced, "kubectl"), owned(&forced, "me")),
        (vec![], vec![".spec.replicas".to_owned()])
    );
    let same = deployment(json!({"replicas": 1}));
    let shared = apply(kind(), Some(&live), &same, &writer("me"), false).unwrap();
    assert_eq!(owned(&shared, "kubectl"), owned(&shared, "me"));
}

#[test]
fn an_empty_list_resets_ownership() {
    let mut live = deployment(json!({"replicas": 1}));
    track_update(kind(), None, &mut live, &writer("a"));
    let mut reset = live.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    track_update(kind(), Some(&live), &mut reset, &writer("b"));
    assert_eq!(reset["metadata"].get("managedFields"), None);
}

#[test]
fn many_updaters_become_ancient() {
    let mut object = deployment(json!({"template": {"metadata": {"labels": {}}}}));
    track_update(kind(), None, &mut object, &writer("creator"));
    for index in 0..15 {
        let old = object.clone();
        object["spec"]["template"]["metadata"]["labels"][format!("l{index:02}")] = json!("x");
        let name = format!("m{index}");
        let now = Timestamp::from_second(index + 1).unwrap();
        track_update(kind(), Some(&old), &mut object, &Writer { now, ..writer(&name) });
    }
    assert_eq!(Managed::read(&object).entries.len(), 11);
    assert_eq!(owned(&object, "ancient-changes").len(), 6);
}

#[test]
fn the_default_manager_is_the_program() {
    assert_eq!(default_manager("kubectl/v1.36 (linux)"), "kubectl");
    assert_eq!(default_manager(""), "unknown");
    assert_eq!(default_manager(&"é".repeat(100)).len(), 128);
}

#[test]
fn several_conflicts_are_listed_by_owner() {
    let mut live = deployment(json!({"replicas": 1, "paused": true}));
    track_update(kind(), None, &mut live, &writer("a"));
    let old = live.clone();
    live["spec"]["minReadySeconds"] = json!(5);
    track_update(kind(), Some(&old), &mut live, &Writer { subresource: "scale", ..writer("b") });
    let intent = deployment(json!({"replicas": 3, "paused": false, "minReadySeconds": 6}));
    let status = conflict_status(&apply(kind(), Some(&live), &intent, &writer("me"), false).unwrap_err());
    expect![[r#"
        Apply failed with 3 conflicts: conflicts with "a" using apps/v1:
        - .spec.paused
        - .spec.replicas
        conflicts with "b" with subresource "scale" using apps/v1:
        - .spec.minReadySeconds"#]]
    .assert_eq(&status.message);
}

#[test]
fn what_nobody_owned_belongs_to_before_first_apply() {
    let live = deployment(json!({"replicas": 1, "paused": true}));
    let mut touched = live.clone();
    touched["spec"]["replicas"] = json!(2);
    track_update(kind(), Some(&live), &mut touched, &writer("updater"));
    assert_eq!(touched["metadata"].get("managedFields"), None, "an object without owners stays so");
    let same = deployment(json!({"replicas": 2}));
    let applied = apply(kind(), Some(&touched), &same, &writer("me"), false).unwrap();
    assert_eq!(owned(&applied, "before-first-apply"), [".spec.paused", ".spec.replicas"]);
    assert_eq!(owned(&applied, "me"), [".spec.replicas"]);
    let other = deployment(json!({"replicas": 3}));
    assert_eq!(apply(kind(), Some(&touched), &other, &writer("me"), false).unwrap_err().len(), 1);
}

#[test]
fn a_request_may_state_the_ownership() {
    let mut live = deployment(json!({"replicas": 1}));
    track_update(kind(), None, &mut live, &writer("a"));
    let mut renamed = live.clone();
    renamed["metadata"]["managedFields"][0]["manager"] = json!("b");
    renamed["spec"]["paused"] = json!(true);
    track_update(kind(), Some(&live), &mut renamed, &writer("c"));
    assert_eq!(owned(&renamed, "a"), Vec::<String>::new());
    assert_eq!(owned(&renamed, "b"), [".spec.replicas"]);
    assert_eq!(owned(&renamed, "c"), [".spec.paused"]);
}

#[test]
fn kubectl_takes_over_what_its_annotation_says_it_set() {
    let key = "kubectl.kubernetes.io/last-applied-configuration";
    let last = deployment(json!({"replicas": 1}));
    let mut live = last.clone();
    live["metadata"]["annotations"] = json!({key: last.to_string()});
    track_update(kind(), None, &mut live, &writer("kubectl-client-side-apply"));
    let intent = deployment(json!({"replicas": 4}));
    assert!(apply(kind(), Some(&live), &intent, &writer("me"), false).is_err());
    let applied = apply(kind(), Some(&live), &intent, &writer("kubectl"), false).unwrap();
    assert_eq!(applied["spec"]["replicas"], 4);
    let renewed: Value =
        serde_json::from_str(applied["metadata"]["annotations"][key].as_str().unwrap()).unwrap();
    assert_eq!(renewed["spec"]["replicas"], 4);
}

/// The quick path must not be seen: the same write, told as a stranger's first and the owner's then.
#[test]
fn a_write_of_ones_own_fields_keeps_the_entries_as_they_are() {
    let status = |ready: i64, time: &str| {
        json!({"readyReplicas": ready,
        "conditions": [{"type": "Available", "status": "True", "lastUpdateTime": time}]})
    };
    let mut live = deployment(json!({"replicas": 1}));
    track_update(kind(), None, &mut live, &writer("creator"));
    let by = Writer { subresource: "status", ..writer("controller") };
    let mut first = live.clone();
    first["status"] = status(1, "a");
    track_update(kind(), Some(&live), &mut first, &by);
    let mut second = first.clone();
    second["status"] = status(2, "b");
    let later = Writer { now: Timestamp::from_second(100).unwrap(), ..by };
    track_update(kind(), Some(&first), &mut second, &later);
    assert_eq!(second["metadata"], first["metadata"]);
    let mut removed = second.clone();
    removed["status"]["conditions"] = json!([]);
    track_update(kind(), Some(&second), &mut removed, &later);
    assert_eq!(owned(&removed, "controller"), [".status.conditions", ".status.readyReplicas"]);
    let mut stolen = second.clone();
    stolen["status"]["readyReplicas"] = json!(7);
    track_update(kind(), Some(&second), &mut stolen, &writer("thief"));
    assert_eq!(owned(&stolen, "thief"), [".status.readyReplicas"]);
    assert!(!owned(&stolen, "controller").contains(&".status.readyReplicas".to_owned()));
}

mod laws {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    /// Deployments that share enough names to collide.
    fn deployments() -> impl Strategy<Value = Value> {
        let port = (1..4u16, prop::bool::ANY).prop_map(|(port, named)| {
            if named {
                json!({"containerPort": port, "protocol": "UDP"})
            } else {
                json!({"containerPort": port})
            }
        });
        let container =
            ("[xyz]", vec(port, 0..3), vec("[pq]", 0..3)).prop_map(|(image, mut ports, command)| {
                ports.sort_by_key(|port| port["containerPort"].as_u64());
                ports.dedup_by_key(|port| port["containerPort"].clone());
                json!({"image": image, "ports": ports, "command": command})
            });
        let containers = btree_map("[abc]", container, 1..3).prop_map(|containers| {
            let named = containers.into_iter().map(|(name, mut container)| {
                container["name"] = json!(name);
                container
            });
            Value::Array(named.collect())
        });
        let labels = btree_map("[abc]", "[xyz]", 0..3);
        (0..3i64, labels, containers).prop_map(|(replicas, labels, containers)| {
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": labels},
                "spec": {"replicas": replicas, "template": {"spec": {"containers": containers}}}})
        })
    }

    proptest! {
        #[test]
        fn apply_is_idempotent(live in deployments(), intent in deployments()) {
            let mut live = live;
            track_update(kind(), None, &mut live, &writer("other"));
            let once = apply(kind(), Some(&live), &intent, &writer("me"), true).unwrap();
            let later = Writer { now: Timestamp::from_second(9).unwrap(), ..writer("me") };
            let twice = apply(kind(), Some(&once), &intent, &later, false).unwrap();
            prop_assert_eq!(twice, once);
        }

        #[test]
        fn the_last_intent_of_the_only_manager_is_the_object(first in deployments(), last in deployments()) {
            let live = apply(kind(), None, &first, &writer("me"), false).unwrap();
            let mut live = apply(kind(), Some(&live), &last, &writer("me"), false).unwrap();
            live["metadata"].as_object_mut().unwrap().remove("managedFields");
            let fields = |value| compare::fields(kind().schema, kind().node, value);
            prop_assert_eq!(fields(&live), fields(&last));
        }

        #[test]
        fn the_quick_path_gives_what_the_slow_one_gives(
            first in deployments(), second in deployments(), third in deployments(), own in prop::bool::ANY,
        ) {
            let mut live = first;
            track_update(kind(), None, &mut live, &writer("a"));
            let mut next = second;
            track_update(kind(), Some(&live), &mut next, &writer("b"));
            let by = writer(if own { "b" } else { "a" });
            let mut last = third.clone();
            track_update(kind(), Some(&next), &mut last, &by);
            // An entry of nobody's, which keeps the list from being the stored one, forces the slow path.
            let mut slow = third;
            let mut list = next["metadata"]["managedFields"].as_array().unwrap().clone();
            list.push(json!({"manager": "nobody", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {"f:x": {"f:y": {}}}}));
            slow["metadata"]["managedFields"] = Value::Array(list);
            track_update(kind(), Some(&next), &mut slow, &by);
            let of = |object: &Value| {
                let mut entries = Managed::read(object).entries;
                entries.retain(|entry| entry.manager != "nobody");
                entries
            };
            prop_assert_eq!(of(&last), of(&slow));
        }

        #[test]
        fn a_three_way_patch_takes_current_to_modified(a in deployments(), b in deployments()) {
            let patch = crate::patch::three_way_strategic(kind().schema, kind().node, &a, &b, &a).unwrap();
            let result = crate::patch::strategic(kind().schema, kind().node, &a, &patch).unwrap();
            let fields = |value| compare::fields(kind().schema, kind().node, value);
            prop_assert_eq!(fields(&result), fields(&b), "{}", patch);
            let rest = compare::difference(kind().schema, kind().node, &result, &b);
            prop_assert!(rest.changed.is_empty() && rest.removed.is_empty());
        }

        #[test]
        fn a_three_way_merge_patch_takes_current_to_modified(a in deployments(), b in deployments()) {
            let patch = crate::patch::three_way_merge(&a, &b, &a);
            let result = crate::patch::merge_patch(&a, &patch);
            prop_assert_eq!(&result, &b);
            prop_assert_eq!(crate::patch::merge_patch(&result, &patch), b, "twice is once");
        }
    }
}

#[test]
fn an_update_owns_what_holds_the_fields_it_adds() {
    let mut created = deployment(
        json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}, "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80}], "resources": {}}]},
        }}),
    );
    track_update(kind(), None, &mut created, &writer("me"));
    let fields = &created["metadata"]["managedFields"][0]["fieldsV1"];
    expect![[r#"
        {
          "f:spec": {
            "f:strategy": {
              "f:rollingUpdate": {
                ".": {},
                "f:maxSurge": {}
              },
              "f:type": {}
            },
            "f:template": {
              "f:metadata": {
                "f:labels": {
                  ".": {},
                  "f:a": {}
                }
              },
              "f:spec": {
                "f:containers": {
                  "k:{\"name\":\"c\"}": {
                    ".": {},
                    "f:name": {},
                    "f:ports": {
                      ".": {},
                      "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {
                        ".": {},
                        "f:containerPort": {}
                      }
                    },
                    "f:resources": {}
                  }
                }
              }
            }
          }
        }"#]]
    .assert_eq(&format!("{fields:#}"));
    let mut gone = created.clone();
    gone["spec"]["template"].as_object_mut().unwrap().remove("metadata");
    gone["spec"].as_object_mut().unwrap().remove("strategy");
    track_update(kind(), Some(&created), &mut gone, &writer("other"));
    assert!(
        owned(&gone, "me").iter().all(|path| path.starts_with(".spec.template.spec")),
        "{:?}",
        owned(&gone, "me")
    );
}
