//! Addresses and node ports of Services.

use std::collections::BTreeSet;

use client::{DeleteOptions, Patch};
use serde_json::{Value, json};

use super::{create, start, target};

fn service(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    if spec.get("ports").is_none() {
        spec["ports"] = json!([{"port": 80}]);
    }
    json!({"metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn a_service_is_completed() {
    let test = start().await;
    let made = create(&test, "services", "default", service("a", json!({"type": "NodePort"}))).await.unwrap();
    let spec = &made["spec"];
    assert!(spec["clusterIP"].as_str().unwrap().starts_with("10.96."));
    assert_eq!(spec["clusterIPs"], json!([spec["clusterIP"]]));
    assert_eq!(spec["ipFamilies"], json!(["IPv4"]));
    assert_eq!(spec["ipFamilyPolicy"], "SingleStack");
    assert_eq!(spec["internalTrafficPolicy"], "Cluster");
    assert_eq!(spec["externalTrafficPolicy"], "Cluster");
    assert_eq!(spec["ports"][0]["targetPort"], 80);
    assert!((30_086..=32_767).contains(&spec["ports"][0]["nodePort"].as_i64().unwrap()));
}

#[tokio::test]
async fn an_address_has_one_holder_until_it_is_deleted() {
    let test = start().await;
    let fixed = |name: &str| service(name, json!({"clusterIP": "10.96.0.10"}));
    create(&test, "services", "default", fixed("a")).await.unwrap();
    let refused = create(&test, "services", "default", fixed("b")).await.unwrap_err();
    assert_eq!(
        refused.message,
        "Service \"b\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.0.10\"]: failed to allocate IP 10.96.0.10: provided IP is already allocated"
    );
    let services = test.client().target(target("services", "default"));
    services.delete("a", &DeleteOptions::default()).await.unwrap();
    create(&test, "services", "default", fixed("b")).await.unwrap();
}

#[tokio::test]
async fn a_refused_service_gives_back_what_it_took() {
    let test = start().await;
    let body = service("a", json!({"clusterIP": "10.96.0.10", "sessionAffinity": "Sometimes"}));
    assert_eq!(create(&test, "services", "default", body).await.unwrap_err().reason, "Invalid");
    create(&test, "services", "default", service("a", json!({"clusterIP": "10.96.0.10"}))).await.unwrap();
}

#[tokio::test]
async fn an_update_keeps_the_address_and_a_change_of_type_moves_the_port() {
    let test = start().await;
    let made = create(&test, "services", "default", service("a", json!({"type": "NodePort"}))).await.unwrap();
    let services = test.client().target(target("services", "default"));
    let bare = service("a", json!({"type": "NodePort"}));
    let kept = services.update("a", &bare).await.unwrap().value();
    assert_eq!(kept["spec"]["clusterIP"], made["spec"]["clusterIP"]);
    assert_eq!(kept["spec"]["ports"], made["spec"]["ports"]);
    let changed =
        services.patch("a", Patch::Merge(json!({"spec": {"type": "ClusterIP"}}))).await.unwrap().value();
    assert!(changed["spec"]["ports"][0].get("nodePort").is_none());
    let port = made["spec"]["ports"][0]["nodePort"].clone();
    let other = service("b", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}));
    create(&test, "services", "default", other).await.unwrap();
    let moved = services
        .patch("a", Patch::Merge(json!({"spec": {"clusterIP": "10.96.0.77", "clusterIPs": ["10.96.0.77"]}})))
        .await;
    assert_eq!(moved.unwrap_err().reason, "Invalid");
    // The refused move took nothing.
    create(&test, "services", "default", service("c", json!({"clusterIP": "10.96.0.77"}))).await.unwrap();
}

#[tokio::test]
async fn many_at_once_get_different_addresses() {
    let test = start().await;
    let names: Vec<_> = (0..40).map(|index| format!("s{index}")).collect();
    let made = futures::future::join_all(
        names
            .iter()
            .map(|name| create(&test, "services", "default", service(name, json!({"type": "NodePort"})))),
    );
    let made: Vec<_> = made.await.into_iter().map(Result::unwrap).collect();
    let distinct =
        |pointer: &str| made.iter().map(|s| s.pointer(pointer).unwrap().to_string()).collect::<BTreeSet<_>>();
    assert_eq!(distinct("/spec/clusterIP").len(), 40);
    assert_eq!(distinct("/spec/ports/0/nodePort").len(), 40);
}

#[tokio::test]
async fn headless_and_external_services_have_no_address() {
    let test = start().await;
    let headless = service("a", json!({"clusterIP": "None", "selector": {"a": "b"}}));
    let made = create(&test, "services", "default", headless).await.unwrap();
    assert_eq!(made["spec"]["clusterIPs"], json!(["None"]));
    let external =
        json!({"metadata": {"name": "b"}, "spec": {"type": "ExternalName", "externalName": "example.com"}});
    let made = create(&test, "services", "default", external).await.unwrap();
    assert!(made["spec"].get("clusterIP").is_none());
}
