//! Events in both of their groups.

use serde_json::{Value, json};

use super::wire::{MERGE, STRATEGIC, Wire};
use super::world::World;

const CORE: &str = "/api/v1/namespaces/default/events";
const MODERN: &str = "/apis/events.k8s.io/v1/namespaces/default/events";
const TIME: &str = "2026-01-01T00:00:00.123456Z";

fn core_event(name: &str, label: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"testevent-constant": label}},
        "message": "This is a test event", "reason": "Test", "type": "Normal", "count": 1,
        "involvedObject": {"namespace": "default"}})
}

fn modern_event(name: &str, label: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"testevent-constant": label}},
        "regarding": {"namespace": "default"}, "eventTime": TIME,
        "note": format!("This is {name}"), "action": "Do", "reason": "Test", "type": "Normal",
        "reportingController": "test-controller", "reportingInstance": "test-node"})
}

// conformance: [sig-instrumentation] Events should manage the lifecycle of an event
async fn core_lifecycle(wire: &Wire) {
    wire.post(CORE, &core_event("event-test", "static")).await.unwrap();
    let selected = "labelSelector=testevent-constant%3Dstatic";
    assert_eq!(wire.items(&format!("/api/v1/events?{selected}")).await.len(), 1);
    let path = format!("{CORE}/event-test");
    let patch = json!({"message": "This is a test event - patched"});
    wire.patch(&path, STRATEGIC, &patch).await.unwrap();
    let mut event = wire.get(&path).await.unwrap();
    assert_eq!(event["message"], "This is a test event - patched");
    event["series"] = json!({"count": 100, "lastObservedTime": TIME});
    wire.put(&path, &event).await.unwrap();
    let updated = wire.get(&path).await.unwrap();
    assert_eq!(updated["series"], event["series"]);
    wire.delete(&path).await.unwrap();
    assert!(wire.items(&format!("/api/v1/events?{selected}")).await.is_empty());
}

// conformance: [sig-instrumentation] Events API should ensure that an event can be fetched, patched, deleted, and listed
async fn modern_lifecycle(wire: &Wire) {
    let made = wire.post(MODERN, &modern_event("event-test", "fetched")).await.unwrap();
    let path = format!("{MODERN}/event-test");
    assert_eq!(wire.get(&path).await.unwrap(), made);
    assert_eq!(made["eventTime"], TIME);
    for list in ["/apis/events.k8s.io/v1/events".to_owned(), MODERN.to_owned()] {
        let found = wire.items(&format!("{list}?labelSelector=testevent-constant%3Dfetched")).await;
        assert_eq!(found.len(), 1, "{list}");
    }
    // The same event in the other group.
    let other = wire.get(&format!("{CORE}/event-test")).await.unwrap();
    assert_eq!(
        (&other["message"], &other["reportingComponent"]),
        (&json!("This is event-test"), &json!("test-controller"))
    );
    let patch = json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:05.000000Z"}});
    let patched = wire.patch(&path, STRATEGIC, &patch).await.unwrap();
    assert_eq!(patched["series"], patch["series"]);
    let mut update = patched;
    update["series"] = json!({"count": 100, "lastObservedTime": "2026-01-01T00:01:05.000000Z"});
    let updated = wire.put(&path, &update).await.unwrap();
    assert_eq!(updated["series"], update["series"]);
    assert_eq!(updated["note"], made["note"]);
    let patched = wire.patch(&path, MERGE, &json!({"note": "patched"})).await;
    assert!(patched.is_ok_and(|event| event["note"] == "patched"));
    wire.delete(&path).await.unwrap();
    assert!(wire.items(&format!("{MODERN}?labelSelector=testevent-constant%3Dfetched")).await.is_empty());
}

// conformance: [sig-instrumentation] Events should delete a collection of events
// conformance: [sig-instrumentation] Events API should delete a collection of events
async fn collections(wire: &Wire) {
    type Body = fn(&str, &str) -> Value;
    for (path, body, label) in
        [(CORE, core_event as Body, "core-set"), (MODERN, modern_event as Body, "modern-set")]
    {
        for index in 1..=3 {
            wire.post(path, &body(&format!("{label}-{index}"), label)).await.unwrap();
        }
        let selected = format!("{path}?labelSelector=testevent-constant%3D{label}");
        assert_eq!(wire.items(&selected).await.len(), 3);
        wire.delete(&selected).await.unwrap();
        assert!(wire.items(&selected).await.is_empty());
    }
}

#[tokio::test]
async fn events_live_and_go() {
    let world = World::without_controllers().await;
    core_lifecycle(&world.admin).await;
    modern_lifecycle(&world.admin).await;
    collections(&world.admin).await;
}
