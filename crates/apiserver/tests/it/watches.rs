//! Watches and lists at revisions: resume, selectors, initial events, history that is gone.

use client::{DeleteOptions, ListOptions, Patch, Resources, WatchEvent, WatchOptions};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};
use testkit::TestServer;

fn labelled(name: &str, label: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"l": label}}})
}

fn show(event: &WatchEvent) -> String {
    match event {
        WatchEvent::Added(object) => format!("added {}", object.meta().name),
        WatchEvent::Modified(object) => format!("modified {}", object.meta().name),
        WatchEvent::Deleted(object) => format!("deleted {}", object.meta().name),
        WatchEvent::Bookmark { initial_events_end, .. } => format!("bookmark {initial_events_end}"),
    }
}

async fn take(maps: &Resources, options: &WatchOptions, count: usize) -> Vec<String> {
    let watch = maps.watch(options).await.unwrap();
    watch.take(count).map(|event| show(&event.unwrap())).collect().await
}

#[tokio::test]
async fn an_object_that_leaves_the_selection_is_deleted_for_the_watcher() {
    let test = TestServer::start().await;
    let maps = test.client().namespaced::<ConfigMap>("default");
    let first = maps.create(&labelled("one", "in")).await.unwrap();
    for label in ["out", "in"] {
        maps.patch("one", Patch::Merge(json!({"metadata": {"labels": {"l": label}}}))).await.unwrap();
    }
    let options = WatchOptions {
        label_selector: "l=in".into(),
        resource_version: first.revision().to_string(),
        ..WatchOptions::default()
    };
    assert_eq!(take(&maps, &options, 2).await, ["deleted one", "added one"]);
}

#[tokio::test]
async fn initial_events_end_with_a_marked_bookmark() {
    let test = TestServer::start().await;
    let maps = test.client().namespaced::<ConfigMap>("default");
    for name in ["a", "b"] {
        maps.create(&labelled(name, "x")).await.unwrap();
    }
    let options = WatchOptions { bookmarks: true, send_initial_events: true, ..WatchOptions::default() };
    assert_eq!(take(&maps, &options, 3).await, ["added a", "added b", "bookmark true"]);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_watch_is_told_how_far_it_is_and_ends() {
    let test = TestServer::start().await;
    let maps = test.client().namespaced::<ConfigMap>("default");
    let made = maps.create(&labelled("a", "x")).await.unwrap();
    let options = WatchOptions {
        resource_version: made.revision().to_string(),
        bookmarks: true,
        timeout_seconds: 90,
        ..WatchOptions::default()
    };
    let events: Vec<_> = maps.watch(&options).await.unwrap().collect().await;
    assert_eq!(events.len(), 1);
    assert!(matches!(events[0], Ok(WatchEvent::Bookmark { revision, .. }) if revision >= made.revision()));
}

#[tokio::test]
async fn compacted_history_is_expired_but_live_objects_stay() {
    let test = TestServer::start().await;
    let maps = test.client().namespaced::<ConfigMap>("default");
    let first = maps.create(&labelled("a", "x")).await.unwrap();
    maps.create(&labelled("b", "x")).await.unwrap();
    let page = maps.list(&ListOptions { limit: 1, ..ListOptions::default() }).await.unwrap();
    let last = maps.create(&labelled("c", "x")).await.unwrap();
    // The cache has seen the last write, so the first page's revision can only be read from history.
    maps.list(&ListOptions::default()).await.unwrap();
    test.server.compact(last.revision()).await.unwrap();

    let old = WatchOptions { resource_version: first.revision().to_string(), ..WatchOptions::default() };
    let Err(expired) = maps.watch(&old).await else { panic!("the history is gone") };
    assert_eq!((expired.code, expired.reason.as_str()), (410, "Expired"));
    assert!(expired.message.starts_with("too old resource version:"), "{expired}");
    let exact = ListOptions {
        resource_version: first.revision().to_string(),
        resource_version_match: "Exact".into(),
        ..ListOptions::default()
    };
    assert_eq!(maps.list(&exact).await.unwrap_err().code, 410);

    let next = ListOptions { limit: 1, continue_token: page.continue_token, ..ListOptions::default() };
    let expired = maps.list(&next).await.unwrap_err();
    assert_eq!(expired.code, 410);
    let on = ListOptions {
        limit: 0,
        continue_token: expired.metadata.continue_token.clone(),
        ..ListOptions::default()
    };
    let rest = maps.list(&on).await.unwrap();
    assert_eq!(rest.items.iter().map(|item| item.meta().name.as_str()).collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(maps.list(&ListOptions::default()).await.unwrap().items.len(), 3);
}

#[tokio::test]
async fn old_states_can_be_read_exactly() {
    let test = TestServer::start().await;
    let maps = test.client().namespaced::<ConfigMap>("default");
    let first = maps.create(&labelled("a", "x")).await.unwrap();
    maps.delete("a", &DeleteOptions::default()).await.unwrap();
    let exact = ListOptions {
        resource_version: first.revision().to_string(),
        resource_version_match: "Exact".into(),
        ..ListOptions::default()
    };
    assert_eq!(maps.list(&exact).await.unwrap().items.len(), 1);
    assert_eq!(maps.list(&ListOptions::default()).await.unwrap().items.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_future_is_a_timeout() {
    let test = TestServer::start().await;
    let maps = test.client().namespaced::<ConfigMap>("default");
    let future = ListOptions { resource_version: "1000000".into(), ..ListOptions::default() };
    let status = maps.list(&future).await.unwrap_err();
    assert_eq!((status.code, status.reason.as_str()), (504, "Timeout"));
    assert!(status.message.starts_with("Too large resource version: 1000000, current: "), "{status}");
    assert_eq!(status.details.as_ref().unwrap().causes[0].reason, "ResourceVersionTooLarge");
}

#[tokio::test]
async fn selectors_choose_and_unknown_fields_are_refused() {
    let test = TestServer::start().await;
    let maps = test.client().namespaced::<ConfigMap>("default");
    for (name, label) in [("a", "x"), ("b", "y"), ("c", "z")] {
        maps.create(&labelled(name, label)).await.unwrap();
    }
    let names = async |labels: &str, fields: &str| {
        let options = ListOptions {
            label_selector: labels.into(),
            field_selector: fields.into(),
            ..ListOptions::default()
        };
        maps.list(&options)
            .await
            .map(|list| list.items.iter().map(|item| item.meta().name.clone()).collect::<String>())
    };
    assert_eq!(names("l in (x,y)", "").await.unwrap(), "ab");
    assert_eq!(names("l!=x", "").await.unwrap(), "bc");
    assert_eq!(names("", "metadata.name=c").await.unwrap(), "c");
    assert_eq!(names("", "metadata.name!=c").await.unwrap(), "ab");
    let refused = names("", "spec.foo=c").await.unwrap_err();
    assert_eq!(refused.code, 400);
    assert!(refused.message.contains("field label not supported: spec.foo"), "{refused}");
    assert_eq!(names("l in (", "").await.unwrap_err().code, 400);
}
