//! StatefulSets: rollouts, canaries, storage.

use serde_json::{Value, json};

use super::space::{Space, name, text};
use super::stateful_sets::stateful_set;

const REVISION: &str = "controller-revision-hash";

/// The revision of each pod, by ordinal.
fn revisions(space: &Space<'_>) -> Vec<String> {
    let mut pods = space.list("pods", "name=ss");
    pods.sort_by_key(name);
    pods.iter().map(|pod| text(&pod["metadata"]["labels"][REVISION])).collect()
}

fn recolour(space: &Space<'_>, colour: &str) {
    let container = json!({"name": "c", "env": [{"name": "COLOUR", "value": colour}]});
    space.patch("sts", "ss", &json!({"spec": {"template": {"spec": {"containers": [container]}}}}));
}

fn partition(space: &Space<'_>, first: i32) {
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": first}});
    space.patch("sts", "ss", &json!({"spec": {"updateStrategy": strategy}}));
}

/// Waits until every replica is ready and at the update revision, which is the current one now.
fn through(space: &Space<'_>) -> String {
    let set = space.wait("sts", "ss", "is rolled out", |set| {
        let status = &set["status"];
        status["observedGeneration"] == set["metadata"]["generation"]
            && status["currentRevision"] == status["updateRevision"]
            && ["readyReplicas", "updatedReplicas", "currentReplicas"].iter().all(|count| status[count] == 3)
    });
    let revision = text(&set["status"]["updateRevision"]);
    assert_eq!(revisions(space), vec![revision.clone(); 3]);
    revision
}

// conformance: [sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should perform rolling updates and roll backs of template modifications
pub fn rolling_update_and_back(space: &Space<'_>) {
    space.make(&stateful_set("ss", 3, json!({})));
    space.wait_ready("name=ss", 3);
    let first = through(space);
    let watch = space.watch(&space.path("api/v1", "pods"));
    recolour(space, "blue");
    let second = through(space);
    assert_ne!(first, second);
    assert_eq!(watch.names("ADDED", 3), ["ss-2", "ss-1", "ss-0"]);
    recolour(space, "");
    let remove = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "env": null}]}}}});
    space.patch("sts", "ss", &remove);
    assert_eq!(through(space), first, "the first template's revision is used again");
    assert!(space.get("controllerrevision", &first)["revision"].as_i64() > Some(2));
}

// conformance: [sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should perform canary updates and phased rolling updates of template modifications
pub fn canary_and_phases(space: &Space<'_>) {
    space.make(&stateful_set("ss", 3, json!({})));
    space.wait_ready("name=ss", 3);
    let old = through(space);
    // Nothing is replaced while the partition is beyond the last replica.
    partition(space, 3);
    recolour(space, "blue");
    let set = space.wait("sts", "ss", "has seen the template", |set| {
        set["status"]["currentRevision"] != set["status"]["updateRevision"]
    });
    let new = text(&set["status"]["updateRevision"]);
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(revisions(space), vec![old.clone(); 3]);
    // A canary.
    partition(space, 2);
    let canary = [old.clone(), old.clone(), new.clone()];
    space.until("the canary is there", |space| revisions(space) == canary);
    space.wait_ready("name=ss", 3);
    // Pods that are lost come back as they were.
    space.delete("pod", "ss-0");
    space.delete("pod", "ss-2");
    space.wait_ready("name=ss", 3);
    assert_eq!(revisions(space), canary);
    // In phases.
    partition(space, 1);
    space.until("the next phase", |space| revisions(space) == [old.clone(), new.clone(), new.clone()]);
    partition(space, 0);
    assert_eq!(through(space), new);
}

/// Each pod has a claim of its own, which is bound and outlives it.
pub fn claims_are_bound_and_kept(space: &Space<'_>) {
    let volume = |at: usize| {
        let path = space.cluster.dir.path().join(format!("volume-{at}"));
        std::fs::create_dir_all(&path).unwrap();
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": format!("sts-{at}")},
            "spec": {"capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "sts",
                "hostPath": {"path": path}}})
    };
    space.make(&volume(0));
    space.make(&volume(1));
    let template = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "storageClassName": "sts", "resources": {"requests": {"storage": "1Mi"}}}});
    let mut set = stateful_set("ss", 2, json!({"volumeClaimTemplates": [template]}));
    set["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "data", "mountPath": "/data"}]);
    space.make(&set);
    space.wait_ready("name=ss", 2);
    space.kubectl(&["exec", "ss-0", "--", "sh", "-c", "echo kept > /data/file"]);
    space.delete("pod", "ss-0");
    space.wait_ready("name=ss", 2);
    assert_eq!(space.kubectl(&["exec", "ss-0", "--", "cat", "/data/file"]).trim(), "kept");
    // A claim that is used stays until its pod is gone.
    space.delete("pvc", "data-ss-1");
    assert!(space.get("pvc", "data-ss-1")["metadata"]["deletionTimestamp"].is_string());
    space.delete("sts", "ss");
    space.wait_gone("pvc", "data-ss-1");
    assert_eq!(space.get("pvc", "data-ss-0")["status"]["phase"], "Bound");
    let released = |volume: &Value| volume["status"]["phase"] == "Released";
    let volumes = ["sts-0", "sts-1"];
    space
        .until("the volume is released", |space| volumes.iter().any(|name| released(&space.get("pv", name))));
    space.kubectl(&["delete", "pvc", "--all"]);
    space.kubectl(&["delete", "pv", "sts-0", "sts-1"]);
}
