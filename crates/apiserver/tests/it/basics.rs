//! Objects come and go, and everybody hears of it.

use client::{DeleteOptions, Deleted, ListOptions, Patch, WatchEvent, WatchOptions};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use serde_json::json;
use testkit::TestServer;

fn config_map(name: &str) -> serde_json::Value {
    json!({"metadata": {"name": name}, "data": {"a": "1"}})
}

#[tokio::test]
async fn an_object_is_created_read_changed_and_deleted() {
    let test = TestServer::start().await;
    let maps = test.client().namespaced::<ConfigMap>("default");
    let created = maps.create(&config_map("one")).await.unwrap();
    let value = created.value();
    assert_eq!(value["kind"], "ConfigMap");
    assert_eq!(value["metadata"]["namespace"], "default");
    assert!(!created.meta().uid.is_empty());
    assert!(created.revision() > 1);
    assert_eq!(maps.get("one").await.unwrap().value(), value);
    assert!(maps.create(&config_map("one")).await.unwrap_err().is_already_exists());

    let same = maps.update("one", &value).await.unwrap();
    assert_eq!(same.revision(), created.revision(), "an update that changes nothing writes nothing");
    let mut changed = value.clone();
    changed["data"]["a"] = json!("2");
    let updated = maps.update("one", &changed).await.unwrap();
    assert!(updated.revision() > created.revision());
    assert!(maps.update("one", &changed).await.unwrap_err().is_conflict());

    let patched = maps.patch("one", Patch::Merge(json!({"data": {"b": "3"}}))).await.unwrap();
    assert_eq!(patched.value()["data"], json!({"a": "2", "b": "3"}));
    let deleted = maps.delete("one", &DeleteOptions::default()).await.unwrap();
    assert!(matches!(deleted, Deleted::Now(_)));
    let missing = maps.get("one").await.unwrap_err();
    assert_eq!((missing.code, missing.message.as_str()), (404, "configmaps \"one\" not found"));
}

#[tokio::test]
async fn generated_names_differ() {
    let test = TestServer::start().await;
    let maps = test.client().namespaced::<ConfigMap>("default");
    let body = json!({"metadata": {"generateName": "x-"}});
    let (a, b) = (maps.create(&body).await.unwrap(), maps.create(&body).await.unwrap());
    assert_ne!(a.meta().name, b.meta().name);
    assert_eq!(a.meta().name.len(), "x-".len() + 5);
}

#[tokio::test]
async fn a_watch_sees_every_change_in_order() {
    let test = TestServer::start().await;
    let maps = test.client().namespaced::<ConfigMap>("default");
    let first = maps.create(&config_map("one")).await.unwrap();
    let options = WatchOptions { resource_version: first.revision().to_string(), ..WatchOptions::default() };
    let mut watch = maps.watch(&options).await.unwrap();
    maps.create(&config_map("two")).await.unwrap();
    maps.patch("two", Patch::Merge(json!({"metadata": {"labels": {"l": "v"}}}))).await.unwrap();
    maps.delete("one", &DeleteOptions::default()).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(match watch.next().await.unwrap().unwrap() {
            WatchEvent::Added(object) => format!("added {}", object.meta().name),
            WatchEvent::Modified(object) => format!("modified {}", object.meta().name),
            WatchEvent::Deleted(object) => {
                assert!(object.revision() > first.revision());
                format!("deleted {}", object.meta().name)
            }
            WatchEvent::Bookmark { .. } => "bookmark".to_owned(),
        });
    }
    assert_eq!(seen, ["added two", "modified two", "deleted one"]);
}

#[tokio::test]
async fn pages_are_of_one_revision() {
    let test = TestServer::start().await;
    let maps = test.client().namespaced::<ConfigMap>("default");
    for index in 0..5 {
        maps.create(&config_map(&format!("m{index}"))).await.unwrap();
    }
    let mut options = ListOptions { limit: 2, ..ListOptions::default() };
    let first = maps.list(&options).await.unwrap();
    assert_eq!((first.items.len(), first.remaining_items), (2, Some(3)));
    // What happens between the pages does not show.
    maps.delete("m3", &DeleteOptions::default()).await.unwrap();
    maps.create(&config_map("m9")).await.unwrap();
    let mut names = Vec::new();
    options.continue_token = first.continue_token;
    while !options.continue_token.is_empty() {
        let page = maps.list(&options).await.unwrap();
        assert_eq!(page.revision, first.revision);
        names.extend(page.items.iter().map(|item| item.meta().name.clone()));
        options.continue_token = page.continue_token;
    }
    assert_eq!(names, ["m2", "m3", "m4"]);
}

#[tokio::test]
async fn a_pod_is_deleted_in_two_steps() {
    let test = TestServer::start().await;
    let pods = test.client().namespaced::<Pod>("default");
    let body = json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    pods.create(&body).await.unwrap();
    let bound = json!({"target": {"kind": "Node", "name": "n1"}, "metadata": {"name": "web"}});
    let answer = pods.create_sub("web", "binding", &bound).await.unwrap();
    assert_eq!(answer.value()["status"], "Success");
    assert_eq!(pods.get("web").await.unwrap().value()["spec"]["nodeName"], "n1");
}
