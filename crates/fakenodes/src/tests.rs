use client::{DeleteOptions, Patch, Resources};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node};
use machinery::Key;
use serde_json::{Value, json};
use testkit::TestServer;

use super::*;

async fn until(cache: &Cache, key: &Key, is_so: impl Fn(Option<Value>) -> bool) {
    let mut changes = cache.subscribe();
    let wait = async {
        while !is_so(cache.get(key).map(|object| object.value())) {
            changes.recv().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("{key} never is so"));
}

async fn start(count: usize) -> (TestServer, Caches, Links) {
    let server = TestServer::start().await;
    for name in ["default", body::LEASE_NAMESPACE] {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        server.client().cluster::<Namespace>().create(&namespace).await.unwrap();
    }
    let caches = Caches::new(server.client(), server.shutdown().clone());
    let config = Config { lease_period: Duration::from_millis(100), ..Config::new(count) };
    let nodes = FakeNodes::build(config, server.client(), &caches, server.env.clone());
    let links = nodes.links();
    let (registered, all) = oneshot::channel();
    tokio::spawn(nodes.run(registered, server.shutdown().clone()));
    all.await.unwrap();
    (server, caches, links)
}

async fn pod_on(pods: &Resources, name: &str, node: &str) {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}});
    pods.create(&pod).await.unwrap();
}

#[tokio::test]
async fn they_register_and_say_that_their_pods_run() {
    let (server, caches, _links) = start(3).await;
    let nodes = server.client().cluster::<Node>().list(&client::ListOptions::default()).await.unwrap();
    let names: Vec<_> = nodes.items.iter().map(|node| node.meta().name.clone()).collect();
    assert_eq!(names, ["fake-0", "fake-1", "fake-2"]);
    let leases = server.client().namespaced::<Lease>(body::LEASE_NAMESPACE);
    leases.get("fake-2").await.unwrap();
    let pods = server.client().namespaced::<Pod>("default");
    pod_on(&pods, "ours", "fake-1").await;
    pod_on(&pods, "theirs", "real-1").await;
    let cache = caches.of::<Pod>();
    let runs = |pod: Option<Value>| pod.is_some_and(|pod| pod["status"]["phase"] == "Running");
    until(&cache, &Key::new("default", "ours"), runs).await;
    assert_ne!(pods.get("theirs").await.unwrap().value()["status"]["phase"], "Running");
    pods.delete("ours", &DeleteOptions::default()).await.unwrap();
    until(&cache, &Key::new("default", "ours"), |pod| pod.is_none()).await;
}

#[tokio::test]
async fn a_cut_link_passes_nothing_and_a_mended_one_catches_up() {
    let (server, caches, links) = start(1).await;
    links.set(0, Link::Cut);
    let pods = server.client().namespaced::<Pod>("default");
    pod_on(&pods, "p", "fake-0").await;
    let leases = caches.of::<Lease>();
    let key = Key::new(body::LEASE_NAMESPACE, "fake-0");
    let old = json!({"spec": {"renewTime": "2020-01-01T00:00:00.000000Z"}});
    server
        .client()
        .namespaced::<Lease>(body::LEASE_NAMESPACE)
        .patch("fake-0", Patch::Merge(old))
        .await
        .unwrap();
    let year = |lease: Option<Value>| {
        lease.and_then(|lease| lease["spec"]["renewTime"].as_str().map(|time| time[..4].to_owned()))
    };
    until(&leases, &key, |lease| year(lease).as_deref() == Some("2020")).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(year(leases.get(&key).map(|lease| lease.value())).as_deref(), Some("2020"));
    assert_ne!(pods.get("p").await.unwrap().value()["status"]["phase"], "Running");
    links.set(0, Link::Up);
    until(&leases, &key, |lease| year(lease).as_deref() != Some("2020")).await;
    let runs = |pod: Option<Value>| pod.is_some_and(|pod| pod["status"]["phase"] == "Running");
    until(&caches.of::<Pod>(), &Key::new("default", "p"), runs).await;
}
