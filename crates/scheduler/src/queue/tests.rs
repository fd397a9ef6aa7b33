use serde_json::json;

use super::*;
use crate::fixture::*;

fn info(name: &str, priority: i32) -> Arc<PodInfo> {
    Arc::new(pod(name, json!({"spec": {"priority": priority}})))
}

fn names(pending: &mut Pending) -> Vec<String> {
    std::iter::from_fn(|| pending.pop(Instant::now())).map(|info| info.key.name.clone()).collect()
}

fn only(plugin: Plugin) -> Plugins {
    let mut plugins = Plugins::default();
    plugins.insert(plugin);
    plugins
}

#[tokio::test(start_paused = true)]
async fn the_important_come_first() {
    let mut pending = Pending::default();
    for (name, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", 9)] {
        pending.add(info(name, priority));
    }
    assert_eq!(names(&mut pending), ["d", "b", "a", "c"]);
}

#[tokio::test(start_paused = true)]
async fn only_events_that_may_help_wake() {
    let mut pending = Pending::default();
    let stuck = |pending: &mut Pending, plugin| {
        pending.add(info("a", 0));
        let taken = pending.pop(Instant::now()).unwrap();
        pending.stick(&taken.key, only(plugin), Instant::now());
        assert!(pending.pop(Instant::now()).is_none());
    };
    let gone = placed("x", "n", json!({}));
    let bigger = node("n", json!({"status": {"allocatable": {"cpu": "9"}}}));
    let plain = node("n", json!({}));
    stuck(&mut pending, Plugin::NodeResourcesFit);
    pending.wake(Event::PodPlaced(&gone));
    pending.wake(Event::NodeChanged(&plain, &plain));
    pending.wake(Event::Storage);
    assert!(pending.pop(Instant::now()).is_none());
    pending.wake(Event::NodeChanged(&plain, &bigger));
    assert_eq!(names(&mut pending), ["a"]);
    stuck(&mut pending, Plugin::NodeResourcesFit);
    pending.wake(Event::PodGone(&gone));
    assert_eq!(names(&mut pending), ["a"]);
    stuck(&mut pending, Plugin::NodeAffinity);
    pending.wake(Event::PodGone(&gone));
    assert!(pending.pop(Instant::now()).is_none());
    pending.wake(Event::NodeAdded(&plain));
    assert_eq!(names(&mut pending), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn woken_pods_back_off_while_others_are_ready() {
    let mut pending = Pending::default();
    pending.add(info("a", 9));
    let a = pending.pop(Instant::now()).unwrap();
    pending.stick(&a.key, only(Plugin::NodeResourcesFit), Instant::now());
    pending.add(info("b", 0));
    let gone = placed("x", "n", json!({}));
    pending.wake(Event::PodGone(&gone));
    assert_eq!(names(&mut pending), ["b", "a"], "a is more important but backs off");
    pending.stick(&a.key, only(Plugin::NodeResourcesFit), Instant::now());
    pending.wake(Event::PodGone(&gone));
    pending.add(info("c", 0));
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(names(&mut pending), ["a", "c"]);
}

#[tokio::test(start_paused = true)]
async fn errors_back_off_in_any_case() {
    let mut pending = Pending::default();
    pending.add(info("a", 0));
    let mut waits = Vec::new();
    for _ in 0..6 {
        let taken = pending.pop(Instant::now()).unwrap();
        pending.fail(&taken.key, Instant::now());
        assert!(pending.pop(Instant::now()).is_none());
        let next = pending.next().unwrap();
        waits.push((next - Instant::now()).as_secs());
        tokio::time::advance(next - Instant::now()).await;
    }
    assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
    pending.remove(&info("a", 0).key);
    assert!(pending.pop(Instant::now()).is_none() && pending.is_empty());
}
