//! `[sig-auth]` behaviours that need pods which run.

use serde_json::{Value, json};

use crate::cluster::Cluster;

const DIRECTORY: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

fn container(name: &str) -> Value {
    json!({"name": name, "image": "test.local/busybox:1", "command": ["sleep", "3600"]})
}

fn run(cluster: &Cluster, pod: &Value) {
    cluster.feed(&["create"], &pod.to_string());
    let name = pod["metadata"]["name"].as_str().unwrap();
    cluster.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", &format!("pod/{name}")]);
}

fn read(cluster: &Cluster, pod: &str, container: &str, path: &str) -> String {
    cluster.kubectl(&["exec", pod, "-c", container, "--", "cat", path])
}

/// The user that a token stands for, by `TokenReview`.
fn reviewed(cluster: &Cluster, token: &str, audiences: &[&str]) -> Value {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": token, "audiences": audiences}});
    let answer = cluster.feed(&["create", "-o", "json"], &review.to_string());
    serde_json::from_str::<Value>(&answer).unwrap()["status"].clone()
}

// conformance: [sig-auth] ServiceAccounts should mount an API token into pods
fn api_token(cluster: &Cluster) {
    cluster.kubectl(&["create", "serviceaccount", "mount-test"]);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod-service-account"}, "spec": {
        "serviceAccountName": "mount-test", "terminationGracePeriodSeconds": 1,
        "containers": [container("token-test"), container("root-ca-test"), container("namespace-test")]}});
    run(cluster, &pod);
    let token = read(cluster, "pod-service-account", "token-test", &format!("{DIRECTORY}/token"));
    let status = reviewed(cluster, &token, &[]);
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:mount-test", "{status}");
    let pods = &status["user"]["extra"]["authentication.kubernetes.io/pod-name"];
    assert_eq!(pods, &json!(["pod-service-account"]));
    let root = read(cluster, "pod-service-account", "root-ca-test", &format!("{DIRECTORY}/ca.crt"));
    let published = cluster.json(&["get", "configmap", "kube-root-ca.crt"]);
    assert_eq!(published["data"]["ca.crt"], root);
    let namespace = read(cluster, "pod-service-account", "namespace-test", &format!("{DIRECTORY}/namespace"));
    assert_eq!(namespace, "default");
    cluster.kubectl(&["delete", "pod", "pod-service-account"]);
}

// conformance: [sig-auth] ServiceAccounts should mount projected service account token
fn projected_token(cluster: &Cluster) {
    let mut test = container("agnhost-container");
    test["volumeMounts"] = json!([{"name": "sa-token-vol", "mountPath": "/test/volume"}]);
    let source =
        json!({"serviceAccountToken": {"path": "token", "audience": "vault", "expirationSeconds": 3600}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "test-pod-token"}, "spec": {
        "terminationGracePeriodSeconds": 1, "containers": [test],
        "volumes": [{"name": "sa-token-vol", "projected": {"sources": [source]}}]}});
    run(cluster, &pod);
    let token = read(cluster, "test-pod-token", "agnhost-container", "/test/volume/token");
    assert!(!token.is_empty());
    let status = reviewed(cluster, &token, &["vault"]);
    assert_eq!(
        (&status["authenticated"], &status["audiences"]),
        (&json!(true), &json!(["vault"])),
        "{status}"
    );
    cluster.kubectl(&["delete", "pod", "test-pod-token"]);
}

#[test]
fn pods_have_identities() {
    let cluster = Cluster::up();
    crate::image::import_busybox(&cluster);
    api_token(&cluster);
    projected_token(&cluster);
}
