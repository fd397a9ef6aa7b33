//! Images as volumes, and what a pod says whose image is not to be had.

use serde_json::{Value, json};

use crate::space::{IDLE, Space, container, shell, with};

// conformance: [sig-node] ImageVolume should succeed with pod and pull policy of Always [LinuxOnly] [MinimumKubeletVersion:1.35]
pub fn image_volumes(space: &Space<'_>) {
    let main = with(
        shell("main", IDLE),
        json!({"volumeMounts": [{"name": "image", "mountPath": "/image"},
        {"name": "image", "mountPath": "/part", "subPath": "etc"}]}),
    );
    let volume = json!({"name": "image", "image": {"reference": super::PULLED, "pullPolicy": "Always"}});
    space.pod("mounting", json!({"containers": [main], "volumes": [volume]}));
    space.ready("mounting");
    assert!(space.exec("mounting", "main", &["cat", "/image/etc/passwd"]).starts_with("root:"));
    assert!(space.exec("mounting", "main", &["cat", "/part/passwd"]).starts_with("root:"));
    let said = space.exec("mounting", "main", &["sh", "-c", "touch /image/x 2>&1 || true"]);
    assert!(said.contains("Read-only file system"), "{said}");
}

/// Beyond the list.
pub fn an_image_volume_that_is_missing(space: &Space<'_>) {
    let main = with(shell("main", IDLE), json!({"volumeMounts": [{"name": "image", "mountPath": "/image"}]}));
    let volume = json!({"name": "image", "image": {"reference": "127.0.0.1:1/none:1"}});
    space.pod("mounting", json!({"containers": [main], "volumes": [volume]}));
    waits(space, "mounting", &["ErrImagePull", "ImagePullBackOff"]);
}

fn waits(space: &Space<'_>, pod: &str, reasons: &[&str]) -> String {
    let waiting = |pod: &Value| container(pod, "main")["state"]["waiting"].clone();
    let pod = space.until(pod, &format!("waiting for {reasons:?}"), |pod| {
        reasons.iter().any(|reason| waiting(pod)["reason"] == *reason)
    });
    waiting(&pod)["message"].as_str().unwrap_or_default().to_owned()
}

/// Beyond the list: policies and reasons.
pub fn reasons_of_images(space: &Space<'_>) {
    let run = |name: &str, image: &str, policy: &str| {
        let main = with(shell("main", IDLE), json!({"image": image, "imagePullPolicy": policy}));
        space.pod(name, json!({"containers": [main]}));
    };
    run("never", "127.0.0.1:1/none:1", "Never");
    run("refused", "127.0.0.1:1/none:1", "IfNotPresent");
    run("invalid", "Not/A:Valid:Name", "IfNotPresent");
    let main = with(
        shell("main", IDLE),
        json!({"env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k"}}}]}),
    );
    space.pod("unconfigured", json!({"containers": [main]}));
    let missing = with(shell("main", IDLE), json!({"command": ["/no/such/program"]}));
    space.pod("unstartable", json!({"restartPolicy": "Always", "containers": [missing]}));
    waits(space, "never", &["ErrImageNeverPull"]);
    waits(space, "refused", &["ErrImagePull"]);
    let said = waits(space, "refused", &["ImagePullBackOff"]);
    assert!(said.to_lowercase().contains("connection refused"), "{said}");
    waits(space, "invalid", &["InvalidImageName"]);
    assert_eq!(waits(space, "unconfigured", &["CreateContainerConfigError"]), "configmap \"none\" not found");
    waits(space, "unstartable", &["RunContainerError", "CrashLoopBackOff"]);
    space.until("unstartable", "backing off", |pod| {
        container(pod, "main")["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    });
    assert!(!space.events("refused", "Failed").is_empty());
    space.create("configmaps", &json!({"metadata": {"name": "none"}, "data": {"k": "v"}}));
    space.ready("unconfigured");
}

/// What has broken others: two pods of one name in two namespaces share nothing.
pub fn one_name_in_two_namespaces(space: &Space<'_>) {
    let other = Space::new(space.cluster, space.rest, &format!("{}-2", space.name));
    for (number, one) in [space, &other].into_iter().enumerate() {
        let script = format!("echo {number} > /tmp/who; {IDLE}");
        one.pod("twin", json!({"containers": [shell("main", &script)]}));
    }
    let [first, second] = [space.ready("twin"), other.ready("twin")];
    let id = |pod: &Value| container(pod, "main")["containerID"].clone();
    assert_ne!(id(&first), id(&second));
    assert_ne!(first["status"]["podIP"], second["status"]["podIP"]);
    assert_eq!(space.exec("twin", "main", &["cat", "/tmp/who"]), "0\n");
    assert_eq!(other.exec("twin", "main", &["cat", "/tmp/who"]), "1\n");
    space.delete("pods/twin?gracePeriodSeconds=0");
    assert_eq!(other.exec("twin", "main", &["cat", "/tmp/who"]), "1\n");
    assert_eq!(container(&other.get("pods/twin"), "main")["restartCount"], 0);
    other.rest.ok("DELETE", &format!("/api/v1/namespaces/{}", other.name), None);
}
