//! The node beyond the conformance list: static pods, eviction for the disk.

use serde_json::json;

use crate::cluster::Cluster;
use crate::image::import_busybox;
use crate::space::{IDLE, Rest, Space, condition, container, shell, with};

fn manifest(script: &str) -> String {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "fixed", "namespace": "default"},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [shell("main", script)]}});
    pod.to_string()
}

#[test]
fn manifests_in_a_directory_are_pods() {
    let manifests = tempfile::tempdir().unwrap();
    let config = format!("podManifestPath: {}\n", manifests.path().display());
    let cluster = Cluster::start("up", &[], &config);
    import_busybox(&cluster);
    let rest = Rest::of(&cluster);
    let space = Space { cluster: &cluster, rest: &rest, name: "default".to_owned() };
    let node = rest.get("/api/v1/nodes")["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    let name = format!("fixed-{node}");
    let file = manifests.path().join("fixed.yaml");
    std::fs::write(&file, manifest(&format!("echo first; {IDLE}"))).unwrap();
    let first = space.ready(&name);
    assert_eq!(first["metadata"]["annotations"]["kubernetes.io/config.source"], "file");
    space.logged(&name, "main", &["first"]);
    // Who deletes it sees it come back; a changed manifest replaces it; without its manifest it ends.
    space.delete(&format!("pods/{name}"));
    let uid = first["metadata"]["uid"].clone();
    space.until(&name, "made anew", |pod| pod["metadata"]["uid"] != uid && condition(pod, "Ready") == "True");
    std::fs::write(&file, manifest(&format!("echo second; {IDLE}"))).unwrap();
    space.wait("the changed one", || space.logs(&name, "main").contains("second").then_some(()));
    std::fs::remove_file(&file).unwrap();
    let path = space.path(&format!("pods/{name}"));
    space.wait("it is gone", || (rest.call("GET", &path, None).0 == 404).then_some(()));
}

#[test]
fn pods_that_fill_the_disk_are_evicted() {
    let cluster = Cluster::up();
    import_busybox(&cluster);
    let rest = Rest::of(&cluster);
    let space = Space::new(&cluster, &rest, "disk");
    let script = |file: &str| format!("dd if=/dev/zero of={file} bs=1M count=3; {IDLE}");
    let volume = json!({"name": "v", "emptyDir": {"sizeLimit": "1Mi"}});
    let mounts = json!({"volumeMounts": [{"name": "v", "mountPath": "/volume"}]});
    space.pod(
        "volume",
        json!({"containers": [with(shell("main", &script("/volume/x")), mounts.clone())], "volumes": [volume]}),
    );
    let limit = json!({"resources": {"limits": {"ephemeral-storage": "1Mi"}}});
    let free = shell("other", IDLE);
    space.pod("container", json!({"containers": [with(shell("main", &script("/x")), limit), free]}));
    space.pod(
        "small",
        json!({"containers": [with(shell("main", IDLE), mounts)], "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}]}),
    );
    for (pod, message) in [
        ("volume", "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". "),
        ("container", "Container main exceeded its local ephemeral storage limit \"1Mi\". "),
    ] {
        let pod = space.until(pod, "evicted", |pod| pod["status"]["reason"] == "Evicted");
        assert_eq!(pod["status"]["message"], message);
        assert_eq!(
            (&pod["status"]["phase"], condition(&pod, "DisruptionTarget")),
            (&json!("Failed"), "True")
        );
    }
    let small = space.get("pods/small");
    assert_eq!(
        (&small["status"]["phase"], &container(&small, "main")["restartCount"]),
        (&json!("Running"), &json!(0))
    );
}
