//! Watches of ConfigMaps on the wire.

use serde_json::{Value, json};

use super::wire::{Events, MERGE, Wire};
use super::world::World;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str, label: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"watch-this-configmap": label}}})
}

async fn mutate(wire: &Wire, name: &str, count: u32) -> Value {
    let patch = json!({"data": {"mutation": count.to_string()}});
    wire.patch(&format!("{MAPS}/{name}"), MERGE, &patch).await.unwrap()
}

async fn relabel(wire: &Wire, name: &str, label: &str) -> Value {
    let patch = json!({"metadata": {"labels": {"watch-this-configmap": label}}});
    wire.patch(&format!("{MAPS}/{name}"), MERGE, &patch).await.unwrap()
}

async fn watch(wire: &Wire, labels: &[&str], revision: &str) -> Events {
    let labels = labels.join("%2C");
    let selector = format!("watch-this-configmap+in+%28{labels}%29");
    wire.watch(&format!("{MAPS}?watch=true&labelSelector={selector}&resourceVersion={revision}")).await
}

fn revision(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap()
}

async fn expect(events: &mut Events, kind: &str, name: &str, mutation: u32) {
    let (found, object) = events.next().await;
    assert_eq!((found.as_str(), object["metadata"]["name"].as_str().unwrap()), (kind, name));
    let expected = if mutation == 0 { Value::Null } else { json!(mutation.to_string()) };
    assert_eq!(object["data"]["mutation"], expected, "{object}");
}

// conformance: [sig-api-machinery] Watchers should observe add, update, and delete watch notifications on configmaps
async fn several_watchers(wire: &Wire) {
    let (a, b) = ("multiple-watchers-A", "multiple-watchers-B");
    let mut only_a = watch(wire, &[a], "").await;
    let mut only_b = watch(wire, &[b], "").await;
    let mut both = watch(wire, &[a, b], "").await;
    wire.post(MAPS, &map("configmap-a", a)).await.unwrap();
    for events in [&mut only_a, &mut both] {
        expect(events, "ADDED", "configmap-a", 0).await;
    }
    for count in [1, 2] {
        mutate(wire, "configmap-a", count).await;
        for events in [&mut only_a, &mut both] {
            expect(events, "MODIFIED", "configmap-a", count).await;
        }
    }
    wire.delete(&format!("{MAPS}/configmap-a")).await.unwrap();
    for events in [&mut only_a, &mut both] {
        expect(events, "DELETED", "configmap-a", 2).await;
    }
    assert!(only_b.is_quiet().await);
    wire.post(MAPS, &map("configmap-b", b)).await.unwrap();
    wire.delete(&format!("{MAPS}/configmap-b")).await.unwrap();
    for events in [&mut only_b, &mut both] {
        expect(events, "ADDED", "configmap-b", 0).await;
        expect(events, "DELETED", "configmap-b", 0).await;
    }
    assert!(only_a.is_quiet().await);
}

// conformance: [sig-api-machinery] Watchers should be able to start watching from a specific resource version
async fn from_a_revision(wire: &Wire) {
    let label = "from-resource-version";
    wire.post(MAPS, &map("from-revision", label)).await.unwrap();
    let first = mutate(wire, "from-revision", 1).await;
    mutate(wire, "from-revision", 2).await;
    wire.delete(&format!("{MAPS}/from-revision")).await.unwrap();
    let mut events = watch(wire, &[label], revision(&first)).await;
    expect(&mut events, "MODIFIED", "from-revision", 2).await;
    expect(&mut events, "DELETED", "from-revision", 2).await;
}

// conformance: [sig-api-machinery] Watchers should be able to restart watching from the last resource version observed by the previous watch
async fn restarted(wire: &Wire) {
    let label = "watch-closed-and-restarted";
    let mut events = watch(wire, &[label], "").await;
    wire.post(MAPS, &map("restarted", label)).await.unwrap();
    mutate(wire, "restarted", 1).await;
    expect(&mut events, "ADDED", "restarted", 0).await;
    let (_, last) = events.next().await;
    drop(events);
    mutate(wire, "restarted", 2).await;
    let mut events = watch(wire, &[label], revision(&last)).await;
    wire.delete(&format!("{MAPS}/restarted")).await.unwrap();
    expect(&mut events, "MODIFIED", "restarted", 2).await;
    expect(&mut events, "DELETED", "restarted", 2).await;
}

// conformance: [sig-api-machinery] Watchers should observe an object deletion if it stops meeting the requirements of the selector
async fn out_of_the_selection(wire: &Wire) {
    let label = "label-changed-and-restored";
    let mut events = watch(wire, &[label], "").await;
    wire.post(MAPS, &map("label-changed", label)).await.unwrap();
    mutate(wire, "label-changed", 1).await;
    relabel(wire, "label-changed", "wrong-value").await;
    expect(&mut events, "ADDED", "label-changed", 0).await;
    expect(&mut events, "MODIFIED", "label-changed", 1).await;
    expect(&mut events, "DELETED", "label-changed", 1).await;
    mutate(wire, "label-changed", 2).await;
    assert!(events.is_quiet().await);
    relabel(wire, "label-changed", label).await;
    expect(&mut events, "ADDED", "label-changed", 2).await;
    mutate(wire, "label-changed", 3).await;
    expect(&mut events, "MODIFIED", "label-changed", 3).await;
    wire.delete(&format!("{MAPS}/label-changed")).await.unwrap();
    expect(&mut events, "DELETED", "label-changed", 3).await;
}

/// Writes in the background: creates, changes and deletes ConfigMaps without end.
async fn churn(wire: Wire) {
    let label = "churn";
    for round in 0u32.. {
        let name = format!("churn-{}", round % 5);
        if round >= 5 && round % 3 == 0 {
            wire.delete(&format!("{MAPS}/{name}")).await.ok();
        } else if wire.post(MAPS, &map(&name, label)).await.is_err() {
            mutate(&wire, &name, round + 1).await;
        }
        tokio::task::yield_now().await;
    }
}

// conformance: [sig-api-machinery] Watchers should receive events on concurrent watches in same order
async fn the_same_order_for_all(world: &World) {
    const WATCHES: usize = 20;
    let wire = &world.admin;
    let busy = tokio::spawn(churn(Wire(world.https.admin())));
    let mut watches = vec![watch(wire, &["churn"], "").await];
    for _ in 0..WATCHES {
        let (_, event) = watches[0].next().await;
        let at = revision(&event).to_owned();
        watches.push(watch(wire, &["churn"], &at).await);
        // All that were there before see the next event as the first one does.
        let (_, expected) = watches[0].next().await;
        let expected = revision(&expected).to_owned();
        for other in &mut watches[1..] {
            loop {
                let (_, event) = other.next().await;
                let seen: u64 = revision(&event).parse().unwrap();
                let wanted: u64 = expected.parse().unwrap();
                assert!(seen <= wanted, "{seen} came, but not {wanted}");
                if seen == wanted {
                    break;
                }
            }
        }
    }
    busy.abort();
}

#[tokio::test]
async fn watches_see_what_they_must() {
    let world = World::without_controllers().await;
    several_watchers(&world.admin).await;
    from_a_revision(&world.admin).await;
    restarted(&world.admin).await;
    out_of_the_selection(&world.admin).await;
    the_same_order_for_all(&world).await;
}
