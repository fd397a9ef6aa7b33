//! `metrics.k8s.io`: what kubelets tell becomes objects, and is asked for only when somebody reads.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use auth::pki::{Authority, CurrentIdentity, Profile, client_config, server_config};
use bytes::Bytes;
use client::{ListOptions, Patch, Target};
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Node, Pod};
use machinery::quantity::Quantity;
use serde_json::{Value, json};
use testkit::{AllowAll, TestServer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Half a processor is used in `web`, none in `idle`; a second passes between two looks.
fn page(look: usize) -> String {
    let at = 1_000_000 + look * 1000;
    let container = |pod: &str, cpu: f64| {
        let labels = format!("{{container=\"c\",namespace=\"default\",pod=\"{pod}\"}}");
        format!(
            "container_cpu_usage_seconds_total{labels} {cpu} {at}\n\
             container_memory_working_set_bytes{labels} 2048 {at}\n\
             container_start_time_seconds{labels} 1\n"
        )
    };
    let late = match look {
        0 | 1 => String::new(),
        _ => container("late", 1.0)
            .replace("pod=\"late\"} 1\n", &format!("pod=\"late\"}} {}\n", at / 1000 - 2)),
    };
    let node = 100.0 + look as f64;
    format!(
        "node_cpu_usage_seconds_total {node} {at}\nnode_memory_working_set_bytes 4096 {at}\n{}{}{late}",
        container("web", 7.0 + look as f64 / 2.0),
        container("idle", 3.0)
    )
}

async fn kubelet(listener: TcpListener, tls: TlsAcceptor, looks: Arc<AtomicUsize>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let Ok(stream) = tls.accept(stream).await else { continue };
        let looks = looks.clone();
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            assert_eq!(request.uri().path(), "/metrics/resource");
            let body = page(looks.fetch_add(1, Ordering::Relaxed));
            async move { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(body)))) }
        });
        tokio::spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
        );
    }
}

/// A server with a node that answers, one that does not, and pods on both.
async fn start(looks: Arc<AtomicUsize>) -> TestServer {
    let env = env::Env::system();
    let authority = Authority::ephemeral("test", &env).unwrap();
    let authorities = [authority.certificate().clone()];
    let client = CurrentIdentity::new(&authority.issue(&Profile::kubelet_client(), &env).unwrap()).unwrap();
    let serving = Profile::kubelet_serving("n1", &["127.0.0.1".parse().unwrap()]);
    let serving = CurrentIdentity::new(&authority.issue(&serving, &env).unwrap()).unwrap();
    let mut tls = (*server_config(serving, &authorities).unwrap()).clone();
    tls.alpn_protocols.clear();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(kubelet(listener, TlsAcceptor::from(Arc::new(tls)), looks));
    let trusted = Arc::new(client_config(&authorities, Some(client)).unwrap());
    let test = TestServer::with_config(Arc::new(AllowAll), |config| config.kubelet_tls = Some(trusted)).await;
    for (name, port) in [("n1", port), ("n2", 1)] {
        node(&test, name, port).await;
        let number = &name[1..];
        let pods = [("web", "n1"), ("idle", "n1"), ("far", "n2")].into_iter();
        for (pod, node) in pods.filter(|(_, node)| node.ends_with(number)) {
            running(&test, pod, node).await;
        }
    }
    test
}

async fn node(test: &TestServer, name: &str, port: u16) {
    let nodes = test.client().cluster::<Node>();
    nodes.create(&json!({"metadata": {"name": name, "labels": {"zone": name}}})).await.unwrap();
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "conditions": [{"type": "Ready", "status": "True"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }});
    nodes.patch_status(name, Patch::Merge(status)).await.unwrap();
}

async fn running(test: &TestServer, name: &str, node: &str) {
    let pods = test.client().namespaced::<Pod>("default");
    let spec = json!({"nodeName": node, "containers": [{"name": "c", "image": "i"}]});
    pods.create(&json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec})).await.unwrap();
    pods.patch_status(name, Patch::Merge(json!({"status": {"phase": "Running"}}))).await.unwrap();
}

fn target(resource: &str, namespace: &str, name: &str) -> Target {
    Target {
        group: "metrics.k8s.io".to_owned(),
        version: "v1beta1".to_owned(),
        resource: resource.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ..Target::default()
    }
}

fn milli(usage: &Value) -> i64 {
    Quantity::read(&usage["cpu"]).unwrap().milli_value()
}

#[tokio::test]
async fn what_kubelets_tell_is_served() {
    let looks = Arc::new(AtomicUsize::new(0));
    let test = start(looks.clone()).await;
    let client = test.client().transport().clone();
    assert_eq!(looks.load(Ordering::Relaxed), 0, "nobody asked yet");
    let all = ListOptions::default();
    let list = client.list(&target("pods", "", ""), &all).await.unwrap();
    let names: Vec<_> = list.items.iter().map(|object| object.meta().name.clone()).collect();
    assert_eq!(names, ["idle", "web"], "the node that does not answer is left out");
    let web = list.items[1].value();
    assert_eq!((&web["kind"], &web["apiVersion"]), (&json!("PodMetrics"), &json!("metrics.k8s.io/v1beta1")));
    assert_eq!((&web["metadata"]["labels"]["app"], &web["window"]), (&json!("web"), &json!("1s")));
    assert_eq!((&web["containers"][0]["name"], milli(&web["containers"][0]["usage"])), (&json!("c"), 500));
    assert_eq!(web["containers"][0]["usage"]["memory"], "2Ki");
    let selected = ListOptions { label_selector: "app=idle".to_owned(), ..ListOptions::default() };
    let list = client.list(&target("pods", "default", ""), &selected).await.unwrap();
    assert_eq!(list.items.len(), 1);
    assert_eq!(list.items[0].value()["containers"][0]["usage"]["cpu"], "0");
    let node = client.get(&target("nodes", "", "n1"), &all).await.unwrap().value();
    assert_eq!((milli(&node["usage"]), &node["usage"]["memory"]), (1000, &json!("4Ki")));
    assert_eq!(client.list(&target("nodes", "", ""), &all).await.unwrap().items.len(), 1);
    let missing = client.get(&target("pods", "default", "far"), &all).await.unwrap_err();
    assert_eq!(
        (missing.code, missing.message.as_str()),
        (404, "pods.metrics.k8s.io \"default/far\" not found")
    );
    assert_eq!(client.get(&target("nodes", "", "n2"), &all).await.unwrap_err().code, 404);
    assert_eq!(looks.load(Ordering::Relaxed), 2, "an answer is good for a while");
}

#[tokio::test]
async fn a_pod_that_runs_only_now_is_not_missing_for_long() {
    let looks = Arc::new(AtomicUsize::new(0));
    let test = start(looks.clone()).await;
    let client = test.client().transport().clone();
    client.list(&target("pods", "", ""), &ListOptions::default()).await.unwrap();
    assert_eq!(looks.load(Ordering::Relaxed), 2);
    running(&test, "late", "n1").await;
    let late = async {
        loop {
            match client.get(&target("pods", "default", "late"), &ListOptions::default()).await {
                Ok(found) => return found.value(),
                Err(status) => assert_eq!(status.code, 404),
            }
            tokio::task::yield_now().await;
        }
    };
    let late = tokio::time::timeout(std::time::Duration::from_secs(10), late).await.unwrap();
    assert_eq!((milli(&late["containers"][0]["usage"]), &late["window"]), (500, &json!("2s")));
    assert_eq!(looks.load(Ordering::Relaxed), 3, "an answer that lacks a pod is still good for a second");
}

#[tokio::test]
async fn metrics_have_all_forms_and_can_only_be_read() {
    let test = start(Arc::new(AtomicUsize::new(0))).await;
    let https = test.https().await;
    let admin = https.admin();
    let path = "/apis/metrics.k8s.io/v1beta1/nodes";
    let fetch = async |method: Method, path: &str, accept: &str| {
        admin.fetch(method, path, &[(http::header::ACCEPT, accept)], Bytes::new()).await
    };
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let table: Value = serde_json::from_slice(&fetch(Method::GET, path, table).await.unwrap()).unwrap();
    assert_eq!(table["rows"][0]["cells"], json!(["n1", "1", "4Ki", "1s"]));
    let protobuf = fetch(Method::GET, path, "application/vnd.kubernetes.protobuf").await.unwrap();
    assert!(protobuf.starts_with(b"k8s\0"));
    let json: Value =
        serde_json::from_slice(&fetch(Method::GET, path, "application/json").await.unwrap()).unwrap();
    assert_eq!(
        (&json["kind"], &json["items"][0]["metadata"]["name"]),
        (&json!("NodeMetricsList"), &json!("n1"))
    );
    assert_eq!(fetch(Method::GET, &format!("{path}?watch=true"), "").await.unwrap_err().code, 405);
    assert_eq!(fetch(Method::DELETE, &format!("{path}/n1"), "").await.unwrap_err().code, 405);
    let discovery = fetch(Method::GET, "/apis/metrics.k8s.io/v1beta1", "application/json").await.unwrap();
    let discovery: Value = serde_json::from_slice(&discovery).unwrap();
    assert_eq!(discovery["resources"][1]["kind"], "PodMetrics");
}
