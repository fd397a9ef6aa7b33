//! Many objects, a server that starts again, a server that has enough to do.

use std::sync::Arc;

use bytes::Bytes;
use client::{Http, WatchOptions, WriteOptions};
use futures::StreamExt;
use http::{Method, header};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use serde_json::{Value, json};
use testkit::{AllowAll, TestServer};

const PODS: usize = 5000;

async fn fill(test: &TestServer) {
    let pods = test.client().namespaced::<Pod>("default");
    let make = |index: usize| {
        let pods = pods.clone();
        async move {
            let body = json!({"metadata": {"name": format!("pod-{index:05}")},
                "spec": {"containers": [{"name": "c", "image": "i"}]}});
            pods.create(&body).await.unwrap();
        }
    };
    futures::stream::iter(0..PODS).map(make).buffer_unordered(64).collect::<Vec<()>>().await;
}

async fn get(http: &Http, path: &str, accept: &str) -> Bytes {
    http.fetch(Method::GET, path, &[(header::ACCEPT, accept)], Bytes::new()).await.unwrap()
}

/// Names of the objects of a watch that starts with what is there, up to the bookmark behind them.
async fn streamed(http: &Http) -> Vec<String> {
    let path = "/api/v1/pods?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let answer = http.send(Method::GET, path, &[], Bytes::new()).await.unwrap();
    let mut chunks = answer.into_body().into_data_stream();
    let (mut names, mut rest) = (Vec::new(), Vec::new());
    loop {
        rest.extend_from_slice(&chunks.next().await.expect("the watch goes on").unwrap());
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line).unwrap();
            if event["type"] == "BOOKMARK" {
                assert_eq!(event["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
                return names;
            }
            names.push(event["object"]["metadata"]["name"].as_str().unwrap().to_owned());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_pods_are_listed_whole_and_the_server_says_it_is_well() {
    let test = TestServer::start().await;
    let https = test.https().await;
    let admin = https.admin();
    let probing = https.admin();
    // Connected before there is much to do.
    for http in [&admin, &probing] {
        get(http, "/readyz", "").await;
    }
    let busy = async {
        fill(&test).await;
        let list: Value =
            serde_json::from_slice(&get(&admin, "/api/v1/pods", "application/json").await).unwrap();
        let names: Vec<&str> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pod| pod["metadata"]["name"].as_str().unwrap())
            .collect();
        let expected: Vec<String> = (0..PODS).map(|index| format!("pod-{index:05}")).collect();
        assert_eq!(names, expected);
        assert!(list["metadata"]["continue"].is_null());
        assert_eq!(streamed(&admin).await, expected);
        let binary = get(&admin, "/api/v1/pods", "application/vnd.kubernetes.protobuf").await;
        let count = binary.windows(9).filter(|bytes| *bytes == b"pod-04999").count();
        assert!(count >= 1, "the last pod is in the protobuf list");
    };
    tokio::pin!(busy);
    let mut asked = 0;
    loop {
        tokio::select! {
            () = &mut busy => break,
            answer = get(&probing, "/readyz?verbose", "") => {
                assert!(answer.ends_with(b"readyz check passed\n"));
                asked += 1;
            }
        }
    }
    assert!(asked > 0);
    assert_eq!(&get(&admin, "/healthz", "").await[..], b"ok");
}

#[tokio::test]
async fn after_a_restart_an_old_watch_is_told_to_list_again() {
    let first = TestServer::start().await;
    let maps = first.client().namespaced::<ConfigMap>("default");
    let map = |name: &str| json!({"metadata": {"name": name}});
    let seen = maps.create(&map("a")).await.unwrap();
    let last = maps.create(&map("b")).await.unwrap();
    let store = first.store.clone();
    drop(first);
    let second = TestServer::with_config(Arc::new(AllowAll), |config| config.store = store).await;
    let https = second.https().await;
    let path = "/api/v1/namespaces/default/configmaps";
    // What happened before the start is not remembered: the client lists again, as after any 410.
    let from = format!("{path}?watch=1&resourceVersion={}", seen.revision());
    let event: Value = serde_json::from_slice(&get(&https.admin(), &from, "").await).unwrap();
    assert_eq!((&event["type"], &event["object"]["reason"]), (&json!("ERROR"), &json!("Expired")));
    assert!(
        event["object"]["message"].as_str().unwrap().starts_with("too old resource version: "),
        "{event}"
    );
    let listed: Value = serde_json::from_slice(&get(&https.admin(), path, "").await).unwrap();
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    // From the newest state on nothing is missed.
    let maps = second.client().namespaced::<ConfigMap>("default");
    let newest = WatchOptions { resource_version: last.revision().to_string(), ..WatchOptions::default() };
    let mut watch = maps.watch(&newest).await.unwrap();
    let third = maps.create(&map("c")).await.unwrap();
    match watch.next().await.unwrap().unwrap() {
        client::WatchEvent::Added(object) => assert_eq!(object.revision(), third.revision()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_invalid_object_is_refused_with_every_cause() {
    let test = TestServer::start().await;
    let pods = test.client().namespaced::<Pod>("default");
    let body = json!({"metadata": {"name": "Not A Name"}, "spec": {"restartPolicy": "Sometimes",
        "containers": [{"name": "c"}, {"name": "c", "image": "i"}]}});
    let refused =
        test.client().transport().create(pods.target(), body, &WriteOptions::default()).await.unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (422, "Invalid"));
    let causes = &refused.details.as_ref().unwrap().causes;
    let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
    for field in
        ["metadata.name", "spec.containers[0].image", "spec.containers[1].name", "spec.restartPolicy"]
    {
        assert!(fields.contains(&field), "{field}: {fields:?}");
    }
}
