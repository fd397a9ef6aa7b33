use std::time::Duration;

use client::{DeleteOptions, Resources};
use k8s_openapi::api::core::v1::Event;
use machinery::Object;
use serde_json::{Value, json};
use testkit::TestServer;

use super::*;

/// A server with a scheduler.
struct World {
    server: TestServer,
    caches: Caches,
}

impl World {
    async fn start() -> Self {
        let server = TestServer::start().await;
        let client = server.client();
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}});
        client.cluster::<Namespace>().create(&namespace).await.unwrap();
        let caches = Caches::new(client.clone(), server.shutdown().clone());
        let recorder =
            reconcile::events::spawn(client.clone(), server.env.clone(), NAME, "", server.shutdown().clone());
        let scheduler = Scheduler::build(&caches, client, recorder, server.env.clone());
        tokio::spawn(scheduler.run(server.shutdown().clone()));
        Self { server, caches }
    }

    fn pods(&self) -> Resources {
        self.server.client().namespaced::<Pod>("default")
    }

    async fn node(&self, name: &str, cpu: &str) {
        let nodes = self.server.client().cluster::<Node>();
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name,
            "labels": {"kubernetes.io/hostname": name}}});
        nodes.create(&node).await.unwrap();
        let status = json!({"status": {"allocatable": {"cpu": cpu, "memory": "4Gi", "pods": "110"}}});
        nodes.patch_status(name, client::Patch::Merge(status)).await.unwrap();
    }

    async fn pod(&self, name: &str, cpu: &str, spec: Value) {
        let container = json!({"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"containers": [container]}});
        let pod = machinery::patch::merge_patch(&pod, &json!({"spec": spec}));
        self.pods().create(&pod).await.unwrap();
    }

    /// Waits until the pod is as wanted.
    async fn until(&self, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let cache = self.caches.of::<Pod>();
        until(&cache, &Key::new("default", name), is_so).await
    }

    async fn on(&self, name: &str, node: &str) {
        self.until(name, |pod| pod["spec"]["nodeName"] == node).await;
    }
}

async fn until(cache: &Cache, key: &Key, is_so: impl Fn(&Value) -> bool) -> Value {
    let mut changes = cache.subscribe();
    let wait = async {
        loop {
            if let Some(value) = cache.get(key).map(|object| object.value()).filter(&is_so) {
                return value;
            }
            changes.recv().await.unwrap();
        }
    };
    let last = || cache.get(key).map(|object| object.value());
    tokio::time::timeout(Duration::from_secs(30), wait)
        .await
        .unwrap_or_else(|_| panic!("{key}: {:?}", last()))
}

fn scheduled(pod: &Value) -> Value {
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == "PodScheduled").unwrap_or_default()
}

fn events_of(object: &Object) -> (String, String) {
    let value = object.value();
    let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
    (text("reason"), text("message"))
}

#[tokio::test]
async fn pods_wait_for_room_and_get_it() {
    let world = World::start().await;
    world.pod("p", "1", json!({})).await;
    let pod = world.until("p", |pod| scheduled(pod)["status"] == "False").await;
    assert_eq!(scheduled(&pod)["message"], "no nodes available to schedule pods");
    assert_eq!(scheduled(&pod)["reason"], "Unschedulable");
    world.node("small", "500m").await;
    world.until("p", |pod| scheduled(pod)["message"].as_str().unwrap().contains("1 Insufficient cpu")).await;
    world.node("large", "2").await;
    world.on("p", "large").await;
    let events = world.caches.of::<Event>();
    let mut changes = events.subscribe();
    let expected = ("Scheduled".to_owned(), "Successfully assigned default/p to large".to_owned());
    while !events.all().iter().any(|event| events_of(event) == expected) {
        changes.recv().await.unwrap();
    }
}

#[tokio::test]
async fn a_more_important_pod_gets_the_room() {
    let world = World::start().await;
    world.node("n", "2").await;
    world.pod("low", "2", json!({"priority": 1})).await;
    world.on("low", "n").await;
    world.pod("high", "2", json!({"priority": 5})).await;
    let high = world.until("high", |pod| pod["status"]["nominatedNodeName"] == "n").await;
    assert_eq!(scheduled(&high)["message"], "0/1 nodes are available: 1 Insufficient cpu.");
    let low = world.until("low", |pod| !pod["metadata"]["deletionTimestamp"].is_null()).await;
    let conditions = low["status"]["conditions"].as_array().unwrap();
    let target = conditions.iter().find(|condition| condition["type"] == "DisruptionTarget").unwrap();
    assert_eq!((&target["status"], &target["reason"]), (&json!("True"), &json!("PreemptionByScheduler")));
    assert_eq!(target["message"], "default-scheduler: preempting to accommodate a higher priority pod");
    // Another one of low priority does not get the promised room.
    world.pod("other", "1", json!({})).await;
    let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    world.pods().delete("low", &options).await.unwrap();
    world.on("high", "n").await;
    world.until("other", |pod| scheduled(pod)["status"] == "False").await;
}

#[tokio::test]
async fn gates_and_other_schedulers_are_respected() {
    let world = World::start().await;
    world.node("n", "2").await;
    world.pod("gated", "1", json!({"schedulingGates": [{"name": "g"}]})).await;
    world.pod("theirs", "1", json!({"schedulerName": "mine"})).await;
    world.pod("ours", "1", json!({})).await;
    world.on("ours", "n").await;
    let gated = world.pods().get("gated").await.unwrap().value();
    assert_eq!(scheduled(&gated)["reason"], "SchedulingGated");
    let open = client::Patch::Merge(json!({"spec": {"schedulingGates": []}}));
    world.pods().patch("gated", open).await.unwrap();
    world.on("gated", "n").await;
    assert!(world.pods().get("theirs").await.unwrap().value()["spec"]["nodeName"].is_null());
}

#[tokio::test]
async fn claims_are_bound_where_the_pod_runs() {
    let world = World::start().await;
    let client = world.server.client();
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "local"},
        "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"});
    client.cluster::<StorageClass>().create(&class).await.unwrap();
    let claims = client.namespaced::<PersistentVolumeClaim>("default");
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
        "spec": {"storageClassName": "local", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}});
    let volume = json!({"name": "v", "persistentVolumeClaim": {"claimName": "data"}});
    world.node("a", "2").await;
    world.node("b", "2").await;
    world.pod("p", "1", json!({"volumes": [volume]})).await;
    let message = |pod: &Value| scheduled(pod)["message"].as_str().unwrap_or_default().to_owned();
    world.until("p", |pod| message(pod).contains("persistentvolumeclaim \"data\" not found.")).await;
    claims.create(&claim).await.unwrap();
    world
        .until("p", |pod| message(pod).contains("2 node(s) didn't find available persistent volumes to bind"))
        .await;

    let on_b =
        json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["b"]}]});
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "disk"},
        "spec": {"storageClassName": "local", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"},
            "local": {"path": "/disk"}, "nodeAffinity": {"required": {"nodeSelectorTerms": [on_b]}}}});
    let volumes = client.cluster::<PersistentVolume>();
    volumes.create(&volume).await.unwrap();
    let available = json!({"status": {"phase": "Available"}});
    volumes.patch_status("disk", client::Patch::Merge(available)).await.unwrap();
    // The volume controller's part.
    let cache = world.caches.of::<PersistentVolume>();
    let chosen = |volume: &Value| volume["spec"]["claimRef"]["name"] == "data";
    until(&cache, &Key::new("", "disk"), chosen).await;
    let bound = json!({"spec": {"volumeName": "disk"},
        "metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}});
    claims.patch("data", client::Patch::Merge(bound)).await.unwrap();
    claims.patch_status("data", client::Patch::Merge(json!({"status": {"phase": "Bound"}}))).await.unwrap();
    world.on("p", "b").await;
}

#[tokio::test]
async fn many_pods_are_spread() {
    let world = World::start().await;
    for index in 0..5 {
        world.node(&format!("n{index}"), "100").await;
    }
    for index in 0..50 {
        world.pod(&format!("p{index}"), "100m", json!({})).await;
    }
    let cache = world.caches.of::<Pod>();
    for index in 0..50 {
        let key = Key::new("default", format!("p{index}"));
        until(&cache, &key, |pod| !pod["spec"]["nodeName"].is_null()).await;
    }
    let on_first = cache.all().iter().filter(|pod| pod.value()["spec"]["nodeName"] == "n0").count();
    assert!((8..=12).contains(&on_first), "{on_first}");
}
