//! Deletes: grace, finalizers, propagation, preconditions.

use client::{DeleteOptions, Deleted, ListOptions, Patch, Preconditions, Propagation};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use serde_json::{Value, json};
use testkit::TestServer;

fn config_map(name: &str, finalizers: &[&str]) -> Value {
    json!({"metadata": {"name": name, "finalizers": finalizers, "labels": {"group": "a"}}})
}

fn policy(propagation: Propagation) -> DeleteOptions {
    DeleteOptions { propagation_policy: Some(propagation), ..DeleteOptions::default() }
}

#[tokio::test]
async fn a_finalizer_holds_the_object_until_it_is_removed() {
    let test = TestServer::start().await;
    let maps = test.client().namespaced::<ConfigMap>("default");
    maps.create(&config_map("held", &["example.com/a"])).await.unwrap();
    let Deleted::Later(marked) = maps.delete("held", &DeleteOptions::default()).await.unwrap() else {
        panic!("it has a finalizer")
    };
    assert!(marked.meta().deletion_timestamp.is_some());
    // A second delete changes nothing.
    let again = maps.delete("held", &DeleteOptions::default()).await.unwrap();
    assert!(matches!(&again, Deleted::Later(object) if object.revision() == marked.revision()));
    let added = maps
        .patch("held", Patch::Merge(json!({"metadata": {"finalizers": ["example.com/a", "example.com/b"]}})))
        .await;
    let refused = added.unwrap_err();
    assert_eq!(refused.code, 422);
    assert!(
        refused.message.contains("no new finalizers can be added if the object is being deleted"),
        "{refused}"
    );
    maps.patch("held", Patch::Merge(json!({"metadata": {"finalizers": null}}))).await.unwrap();
    assert!(maps.find("held").await.unwrap().is_none());
}

#[tokio::test]
async fn propagation_becomes_a_finalizer() {
    let test = TestServer::start().await;
    let maps = test.client().namespaced::<ConfigMap>("default");
    for (name, propagation, finalizer) in
        [("f", Propagation::Foreground, "foregroundDeletion"), ("o", Propagation::Orphan, "orphan")]
    {
        maps.create(&config_map(name, &[])).await.unwrap();
        let Deleted::Later(object) = maps.delete(name, &policy(propagation)).await.unwrap() else {
            panic!("{name}")
        };
        assert_eq!(object.meta().finalizers, [finalizer]);
    }
    maps.create(&config_map("b", &[])).await.unwrap();
    let deleted = maps.delete("b", &policy(Propagation::Background)).await.unwrap();
    assert!(matches!(deleted, Deleted::Now(_)));
}

#[tokio::test]
async fn preconditions_are_checked() {
    let test = TestServer::start().await;
    let maps = test.client().namespaced::<ConfigMap>("default");
    let made = maps.create(&config_map("one", &[])).await.unwrap();
    let with = |uid: Option<&str>, version: Option<String>| DeleteOptions {
        preconditions: Some(Preconditions { uid: uid.map(str::to_owned), resource_version: version }),
        ..DeleteOptions::default()
    };
    let refused = maps.delete("one", &with(Some("other"), None)).await.unwrap_err();
    assert_eq!(refused.code, 409);
    assert!(refused.message.contains("Precondition failed: UID in precondition: other"), "{refused}");
    assert!(maps.delete("one", &with(None, Some("1".to_owned()))).await.unwrap_err().is_conflict());
    let right = with(Some(&made.meta().uid), Some(made.revision().to_string()));
    assert!(matches!(maps.delete("one", &right).await.unwrap(), Deleted::Now(_)));
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let test = TestServer::start().await;
    let maps = test.client().namespaced::<ConfigMap>("default");
    for index in 0..3 {
        maps.create(&config_map(&format!("m{index}"), &[])).await.unwrap();
    }
    maps.create(&json!({"metadata": {"name": "other"}})).await.unwrap();
    let selected = ListOptions { label_selector: "group=a".to_owned(), ..ListOptions::default() };
    let transport = test.client().transport().clone();
    transport.delete_collection(maps.target(), &selected, &DeleteOptions::default()).await.unwrap();
    let left = maps.list(&ListOptions::default()).await.unwrap();
    assert_eq!(left.items.iter().map(|item| item.meta().name.as_str()).collect::<Vec<_>>(), ["other"]);
}

#[tokio::test]
async fn a_scheduled_pod_waits_for_its_kubelet() {
    let test = TestServer::start().await;
    let pods = test.client().namespaced::<Pod>("default");
    let body = json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    pods.create(&body).await.unwrap();
    let binding = json!({"metadata": {"name": "web"}, "target": {"kind": "Node", "name": "n1"}});
    pods.create_sub("web", "binding", &binding).await.unwrap();
    let Deleted::Later(marked) = pods.delete("web", &DeleteOptions::default()).await.unwrap() else {
        panic!("a running pod has a grace period")
    };
    assert_eq!(marked.value()["metadata"]["deletionGracePeriodSeconds"], 30);
    let shorter = DeleteOptions { grace_period_seconds: Some(5), ..DeleteOptions::default() };
    let Deleted::Later(shortened) = pods.delete("web", &shorter).await.unwrap() else {
        panic!("5 s are left")
    };
    assert_eq!(shortened.value()["metadata"]["deletionGracePeriodSeconds"], 5);
    let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    assert!(matches!(pods.delete("web", &now).await.unwrap(), Deleted::Now(_)));
    assert!(pods.find("web").await.unwrap().is_none());
}
