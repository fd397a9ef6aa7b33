use std::sync::Arc;

use k8s_openapi::api::core::v1::ServiceSpec;
use reconcile::Action;
use serde_json::{Value, json};

use super::*;
use crate::shared::testing::{now, object};

fn service(spec: Value) -> (Arc<Object>, ServiceSpec) {
    let service = object(&json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "s", "namespace": "n", "uid": "u", "labels": {"a": "b"}}, "spec": spec}));
    let view = typed::<Service>(&service).unwrap();
    (service, view.spec.clone().unwrap())
}

fn backend(name: &str, address: &str, ready: bool) -> Backend {
    let port = Port { name: "web".to_owned(), port: 80, protocol: "TCP".to_owned(), app_protocol: None };
    Backend {
        addresses: vec![address.parse().unwrap()],
        ports: vec![port],
        ready,
        serving: ready,
        terminating: false,
        node: Some("x".to_owned()),
        zone: None,
        hostname: None,
        target: json!({"kind": "Pod", "name": name, "uid": name}),
    }
}

/// A slice that holds these pods.
fn slice(name: &str, backends: &[Backend]) -> Arc<Object> {
    let (service, spec) = service(json!({}));
    let actions = slices::plan(&service, &spec, backends, &[]);
    let [Action::Create { body, .. }] = actions.as_slice() else { panic!("{actions:?}") };
    let mut body = body.clone();
    body["metadata"]["name"] = json!(name);
    object(&body)
}

/// What is done, and to which pods: `create a b`, `update a`, `delete`.
fn planned(spec: Value, backends: &[Backend], stored: &[Arc<Object>]) -> Vec<String> {
    let (service, spec) = service(spec);
    let pods = |body: &Value| {
        let all = body["endpoints"].as_array().unwrap().iter();
        all.map(|endpoint| endpoint["targetRef"]["uid"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let word = |action: &Action| match action {
        Action::Create { body, .. } => format!("create {}", pods(body)),
        Action::Update { body, .. } => format!("update {}", pods(body)),
        Action::Delete { target, .. } => format!("delete {}", target.name),
        other => format!("{other:?}"),
    };
    slices::plan(&service, &spec, backends, stored).iter().map(word).collect()
}

#[test]
fn slices_change_as_little_as_possible() {
    let (a, b) = (backend("a", "10.0.0.1", true), backend("b", "10.0.0.2", true));
    let both = [a.clone(), b.clone()];
    assert_eq!(planned(json!({}), &[], &[]), ["create "], "a Service without pods has an empty slice");
    assert_eq!(planned(json!({}), &both, &[]), ["create a b"]);
    let stored = slice("one", &both);
    assert!(planned(json!({}), &both, std::slice::from_ref(&stored)).is_empty());
    assert_eq!(planned(json!({}), std::slice::from_ref(&b), std::slice::from_ref(&stored)), ["update b"]);
    assert_eq!(planned(json!({}), &[], std::slice::from_ref(&stored)), ["update "]);
    let third = backend("c", "10.0.0.3", true);
    assert_eq!(planned(json!({}), &[a.clone(), b, third], &[stored]), ["update a b c"]);
    let six = backend("six", "fd00::1", true);
    assert_eq!(planned(json!({"ipFamilies": ["IPv4"]}), &[a.clone(), six.clone()], &[]), ["create a"]);
    assert_eq!(
        planned(json!({"ipFamilies": ["IPv4", "IPv6"]}), &[a.clone(), six], &[]),
        ["create a", "create six"]
    );
    let mut other_port = backend("d", "10.0.0.4", true);
    other_port.ports[0].port = 81;
    assert_eq!(planned(json!({}), &[a, other_port], &[]), ["create a", "create d"]);
}

#[test]
fn a_slice_holds_a_hundred() {
    let many: Vec<Backend> =
        (0..150).map(|at| backend(&format!("p{at:03}"), &format!("10.0.0.{at}"), true)).collect();
    let sizes: Vec<usize> =
        planned(json!({}), &many, &[]).iter().map(|text| text.split(' ').count() - 1).collect();
    assert_eq!(sizes, [100, 50]);
}

#[test]
fn the_older_form_groups_by_ports() {
    let plan = |backends: &[Backend], stored: Option<&Object>| {
        let (service, spec) = service(json!({"clusterIP": "None"}));
        match legacy::plan(&service, &spec, backends, stored, now()) {
            Some(Action::Create { body, .. } | Action::Update { body, .. }) => body,
            _ => Value::Null,
        }
    };
    let body = plan(&[backend("a", "10.0.0.1", true), backend("b", "10.0.0.2", false)], None);
    assert_eq!(body["subsets"].as_array().map(Vec::len), Some(1));
    assert_eq!(body["subsets"][0]["addresses"][0]["ip"], "10.0.0.1");
    assert_eq!(body["subsets"][0]["notReadyAddresses"][0]["ip"], "10.0.0.2");
    assert_eq!(body["subsets"][0]["ports"], json!([{"name": "web", "port": 80, "protocol": "TCP"}]));
    assert_eq!(body["metadata"]["labels"]["service.kubernetes.io/headless"], "");
    let stored = object(&body);
    let same = [backend("a", "10.0.0.1", true), backend("b", "10.0.0.2", false)];
    assert_eq!(plan(&same, Some(&stored)), Value::Null);
    let many: Vec<Backend> = (0..1001)
        .map(|at| backend(&format!("p{at}"), &format!("10.0.{}.{}", at / 250, at % 250), true))
        .collect();
    let over = plan(&many, None);
    assert_eq!(over["metadata"]["annotations"]["endpoints.kubernetes.io/over-capacity"], "truncated");
    assert_eq!(over["subsets"][0]["addresses"].as_array().map(Vec::len), Some(1000));
    let foreign = object(&json!({"metadata": {"name": "s", "namespace": "n"}}));
    assert!(legacy::remove(Some(&foreign)).is_none(), "what people wrote stays");
    assert!(legacy::remove(Some(&stored)).is_some());
}
