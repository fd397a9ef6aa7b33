//! Bad input gets a clear error.

use std::net::TcpListener;
use std::process::Command;

use crate::cluster::{Cluster, binary};

fn fails(arguments: &[&str]) -> String {
    let output = Command::new(binary()).args(arguments).output().unwrap();
    assert!(!output.status.success(), "{arguments:?} succeeded");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_taken_port_and_a_wrong_field_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = fails(&["up", "--data-dir", data, "--listen", &address]);
    assert!(error.contains(&address) && error.contains("--listen"), "{error}");
    let config = folder.path().join("config.yaml");
    std::fs::write(&config, "nodeName: a\nclusterCidr: 10.0.0.0/16\n").unwrap();
    let error = fails(&["up", "--data-dir", data, "--config", config.to_str().unwrap()]);
    assert!(error.contains("clusterCidr") && error.contains("line 2"), "{error}");
}

#[test]
fn the_api_names_the_fault() {
    let cluster = Cluster::up();
    let apply = |text: &str| {
        let path = cluster.dir.path().join("bad.yaml");
        std::fs::write(&path, text).unwrap();
        cluster.kubectl_fails(&["apply", "-f", path.to_str().unwrap()])
    };
    let error = apply("{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containerz: []}}");
    assert!(error.contains("unknown field \"spec.containerz\""), "{error}");
    let error =
        apply("{apiVersion: v1, kind: Pod, metadata: {name: A}, spec: {containers: [{name: a, image: b}]}}");
    assert!(error.contains("metadata.name: Invalid value: \"A\""), "{error}");
    let error = cluster.kubectl_fails(&[
        "get",
        "pods",
        "--token=nonsense",
        "--kubeconfig=/dev/null",
        "--insecure-skip-tls-verify",
        &format!("--server=https://127.0.0.1:{}", cluster.port),
    ]);
    assert!(error.contains("Unauthorized") || error.contains("logged in"), "{error}");
    let anonymous = cluster.kubectl_fails(&["get", "pods", "--as=nobody"]);
    assert!(anonymous.contains("User \"nobody\" cannot list resource \"pods\""), "{anonymous}");
    cluster.kubectl(&["run", "lost", "--image=localhost:1/none:1"]);
    cluster.until("the pod says that its image cannot be pulled", |cluster| {
        let reason = "jsonpath={.status.containerStatuses[0].state.waiting.reason}";
        ["ErrImagePull", "ImagePullBackOff"]
            .contains(&cluster.kubectl(&["get", "pod", "lost", "-o", reason]).as_str())
    });
}
