//! Five thousand pods: everything still answers, and what lies idle costs nothing.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;

use crate::cluster::{Cluster, PATIENCE};

const PODS: usize = 5_000;
/// Over how long the idle process is observed.
const IDLE: Duration = Duration::from_secs(15);

/// The processor time that a process has used, in clock ticks of 10 ms.
fn ticks(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The second field is the command in parentheses and may hold spaces.
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// What the process uses while nobody asks anything of it.
fn idle_ticks(cluster: &Cluster) -> u64 {
    // What was begun before is finished when a whole second passes with next to nothing done.
    cluster.until("the process is at rest", |cluster| {
        let before = ticks(cluster.pid());
        std::thread::sleep(Duration::from_secs(1));
        ticks(cluster.pid()) - before < 15
    });
    let before = ticks(cluster.pid());
    std::thread::sleep(IDLE);
    ticks(cluster.pid()) - before
}

/// No machine has the label that it asks for, so it stays pending, and scheduler and controllers all know of it.
fn pod(index: usize) -> Pod {
    let pod = json!({
        "metadata": {"name": format!("many-{index}"), "labels": {"app": "many", "half": (index % 2).to_string()}},
        "spec": {"nodeSelector": {"no": "such-node"}, "containers": [{"name": "main", "image": "kobune.local/web:latest"}]},
    });
    serde_json::from_value(pod).unwrap()
}

/// Counts the events of a watch until one for `last` comes.
async fn count_events(pods: Api<Pod>, revision: String, last: &'static str) -> (usize, usize) {
    let mut version = revision;
    let (mut added, mut deleted) = (0, 0);
    loop {
        let mut events = pods.watch(&WatchParams::default(), &version).await.unwrap().boxed();
        while let Some(event) = events.try_next().await.unwrap() {
            let pod = match event {
                WatchEvent::Added(pod) => {
                    added += 1;
                    pod
                }
                WatchEvent::Deleted(pod) => {
                    deleted += 1;
                    pod
                }
                WatchEvent::Modified(pod) => pod,
                WatchEvent::Bookmark(bookmark) => {
                    version = bookmark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(status) => panic!("{status:?}"),
            };
            version = pod.metadata.resource_version.clone().unwrap();
            if pod.metadata.name.as_deref() == Some(last) {
                return (added, deleted);
            }
        }
    }
}

async fn create_all(pods: &Api<Pod>) {
    let creating = futures::stream::iter(0..PODS).map(|index| async move {
        pods.create(&PostParams::default(), &pod(index)).await.unwrap();
    });
    creating.buffer_unordered(16).collect::<Vec<_>>().await;
}

/// Every page of a list.
async fn paged(pods: &Api<Pod>, limit: u32) -> usize {
    let (mut count, mut token) = (0, String::new());
    loop {
        let page = pods
            .list(&ListParams {
                continue_token: Some(token.clone()).filter(|token| !token.is_empty()),
                ..ListParams::default().limit(limit)
            })
            .await
            .unwrap();
        count += page.items.len();
        token = page.metadata.continue_.unwrap_or_default();
        if token.is_empty() {
            return count;
        }
    }
}

async fn fill(cluster: &Cluster) {
    let client = cluster.kube().await;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let revision = pods.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let watching = tokio::spawn(count_events(pods.clone(), revision, "last"));
    create_all(&pods).await;
    assert_eq!(pods.list(&ListParams::default()).await.unwrap().items.len(), PODS);
    assert_eq!(pods.list(&ListParams::default().labels("half=1")).await.unwrap().items.len(), PODS / 2);
    assert_eq!(paged(&pods, 700).await, PODS);
    // The watch that saw them all is alive, and tells of one more.
    let mut last = pod(0);
    last.metadata.name = Some("last".to_owned());
    pods.create(&PostParams::default(), &last).await.unwrap();
    let (added, _) = tokio::time::timeout(PATIENCE, watching).await.unwrap().unwrap();
    assert_eq!(added, PODS + 1);
}

async fn empty(cluster: &Cluster) {
    let client = cluster.kube().await;
    let pods: Api<Pod> = Api::default_namespaced(client);
    pods.delete_collection(&DeleteParams::default(), &ListParams::default().labels("app=many"))
        .await
        .unwrap();
    let left = pods.list(&ListParams::default()).await.unwrap().items;
    assert!(left.is_empty(), "{} pods are left", left.len());
}

/// Whether the server is as well as it says: when it says that it is ready, it answers.
fn is_honest(cluster: &Cluster) {
    for endpoint in ["/readyz", "/healthz", "/livez"] {
        assert_eq!(cluster.kubectl(&["get", "--raw", endpoint]), "ok");
    }
    let started = Instant::now();
    cluster.kubectl(&["get", "namespace", "default"]);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[test]
fn five_thousand_pods_are_served_and_cost_nothing_when_idle() {
    let cluster = Cluster::start("server", &[], "");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let without = idle_ticks(&cluster);
    runtime.block_on(fill(&cluster));
    is_honest(&cluster);
    let listed = cluster.kubectl(&["get", "pods", "--no-headers"]);
    assert_eq!(listed.lines().count(), PODS + 1);
    let with = idle_ticks(&cluster);
    // The same, give or take half a second in fifteen.
    assert!(with <= 2 * without + 50, "{with} ticks with {PODS} pods, {without} without, in {IDLE:?}");
    runtime.block_on(empty(&cluster));
    is_honest(&cluster);
}
