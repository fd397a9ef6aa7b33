//! The `kube` crate as a client.

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{
    Api, AttachParams, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams, WatchEvent,
    WatchParams,
};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cluster::Cluster;

fn config_map(value: serde_json::Value) -> ConfigMap {
    serde_json::from_value(value).unwrap()
}

async fn lists_watches_and_patches(client: Client) {
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let start = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let map = config_map(json!({"metadata": {"name": "one", "labels": {"team": "a"}}, "data": {"a": "1"}}));
    let made = maps.create(&PostParams::default(), &map).await.unwrap();
    let exists = maps.create(&PostParams::default(), &map).await.unwrap_err();
    assert!(matches!(&exists, kube::Error::Api(status) if status.reason == "AlreadyExists"), "{exists}");
    for patch in [
        Patch::Merge(json!({"data": {"b": "2"}})),
        Patch::Strategic(json!({"data": {"c": "3"}, "metadata": {"labels": {"team": null}}})),
    ] {
        maps.patch("one", &PatchParams::default(), &patch).await.unwrap();
    }
    let stale = maps.replace("one", &PostParams::default(), &made).await.unwrap_err();
    assert!(matches!(&stale, kube::Error::Api(status) if status.code == 409), "{stale}");
    maps.delete("one", &DeleteParams::default()).await.unwrap();
    let params = WatchParams::default().fields("metadata.name=one");
    let mut events = maps.watch(&params, &start).await.unwrap().boxed();
    let mut seen = Vec::new();
    while let Some(event) = events.try_next().await.unwrap() {
        let (kind, map) = match event {
            WatchEvent::Added(map) => ("added", map),
            WatchEvent::Modified(map) => ("modified", map),
            WatchEvent::Deleted(map) => ("deleted", map),
            WatchEvent::Bookmark(_) => continue,
            WatchEvent::Error(status) => panic!("{status:?}"),
        };
        seen.push((kind, map.data.unwrap().len(), map.metadata.labels.is_some()));
        if kind == "deleted" {
            break;
        }
    }
    assert_eq!(
        seen,
        [("added", 1, true), ("modified", 2, true), ("modified", 3, false), ("deleted", 3, false)]
    );
}

async fn applies_server_side(client: Client) {
    let deployments: Api<Deployment> = Api::default_namespaced(client);
    let intent = |replicas: Option<i32>| {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"terminationGracePeriodSeconds": 1, "containers": [
                        {"name": "web", "image": "kobune.local/web:latest", "imagePullPolicy": "IfNotPresent"}]},
                },
            },
        })
    };
    let apply = |manager: &'static str, replicas, force| {
        let params = PatchParams { force, ..PatchParams::apply(manager) };
        let (deployments, intent) = (deployments.clone(), intent(replicas));
        async move { deployments.patch("web", &params, &Patch::Apply(&intent)).await }
    };
    let made = apply("one", Some(1), false).await.unwrap();
    let again = apply("one", Some(1), false).await.unwrap();
    assert_eq!(made.spec, again.spec);
    let conflict = apply("two", Some(2), false).await.unwrap_err();
    let text = conflict.to_string();
    assert!(text.contains("conflict with \"one\"") && text.contains(".spec.replicas"), "{text}");
    let forced = apply("two", Some(2), true).await.unwrap();
    assert_eq!(forced.spec.unwrap().replicas, Some(2));
    let managers: Vec<_> =
        forced.metadata.managed_fields.unwrap().into_iter().map(|f| f.manager.unwrap()).collect();
    assert!(["one", "two"].iter().all(|name| managers.iter().any(|found| found == name)), "{managers:?}");
    let scale = deployments.get_scale("web").await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(2));
}

async fn talks_to_containers(client: Client, name: &str) {
    let pods: Api<Pod> = Api::default_namespaced(client);
    let mut logs = futures::io::BufReader::new(
        pods.log_stream(name, &LogParams { follow: true, ..LogParams::default() }).await.unwrap(),
    );
    let mut line = String::new();
    futures::AsyncBufReadExt::read_line(&mut logs, &mut line).await.unwrap();
    assert!(line.contains(&format!("{name} listens on port 80")), "{line}");
    // The image has one program and no shell.
    let mut version = pods.exec(name, ["/kobune", "version"], &AttachParams::default()).await.unwrap();
    let mut text = String::new();
    version.stdout().unwrap().read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("kobune "), "{text}");
    let status = version.take_status().unwrap().await.unwrap();
    assert_eq!(status.status.as_deref(), Some("Success"));
    let mut wrong = pods.exec(name, ["/kobune", "--wrong"], &AttachParams::default()).await.unwrap();
    let mut text = String::new();
    wrong.stderr().unwrap().read_to_string(&mut text).await.unwrap();
    assert!(text.contains("--wrong"), "{text}");
    let status = wrong.take_status().unwrap().await.unwrap();
    assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"), "{status:?}");
    let mut forward = pods.portforward(name, &[80]).await.unwrap();
    let mut stream = forward.take_stream(80).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(name), "{answer}");
}

#[test]
fn the_kube_crate_does_its_work() {
    let cluster = Cluster::up();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let client = runtime.block_on(cluster.kube());
    runtime.block_on(lists_watches_and_patches(client.clone()));
    runtime.block_on(applies_server_side(client.clone()));
    let pods = cluster.wait_for_pods("app=web", 2);
    runtime.block_on(talks_to_containers(client.clone(), &pods[0].0));
    let pods: Vec<String> = runtime.block_on(async {
        let list = Api::<Pod>::all(client).list(&ListParams::default().labels("app=web")).await.unwrap();
        list.iter().map(ResourceExt::name_any).collect()
    });
    assert_eq!(pods.len(), 2);
}
