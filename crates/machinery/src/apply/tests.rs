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
        "Apply failed with 1 conflict: conflict with \"kubectl\" using apps/v1 at 1970-01-01T00:00:00Z: .spec.replicas"
    );
    assert_eq!(status.details.unwrap().causes[0].field, ".spec.replicas");
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
    for index in 0..15 {
        let old = object.clone();
        object["spec"]["template"]["metadata"]["labels"][format!("l{index:02}")] = json!("x");
        let name = format!("m{index}");
        let now = Timestamp::from_second(index).unwrap();
        track_update(kind(), Some(&old), &mut object, &Writer { now, ..writer(&name) });
    }
    assert_eq!(Managed::read(&object).entries.len(), 11);
    assert_eq!(owned(&object, "ancient-changes").len(), 5);
}

#[test]
fn the_default_manager_is_the_program() {
    assert_eq!(default_manager("kubectl/v1.36 (linux)"), "kubectl");
    assert_eq!(default_manager(""), "unknown");
    assert_eq!(default_manager(&"é".repeat(100)).len(), 128);
}
