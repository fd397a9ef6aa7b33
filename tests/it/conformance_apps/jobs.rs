//! Jobs without indexes, and what all jobs have in common.

use serde_json::{Value, json};

use super::space::{
    SLEEP, Space, condition, controller, has_condition, is_ready, name, script, status_condition, text,
};

const BATCH: &str = "apis/batch/v1";

/// A job named `job` whose pods run a script.
pub fn job(policy: &str, text: &str, spec: Value) -> Value {
    let template = json!({"spec": {"restartPolicy": policy, "terminationGracePeriodSeconds": 1, "containers": [script(text)]}});
    let mut body = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"},
        "spec": {"parallelism": 2, "completions": 4, "template": template}});
    for (field, value) in spec.as_object().into_iter().flatten() {
        body["spec"][field] = value.clone();
    }
    body
}

/// Waits until the job has failed and returns it.
pub fn failed(space: &Space<'_>, reason: &str) -> Value {
    let job = space.wait("job", "job", "fails", |job| has_condition(job, "Failed"));
    assert_eq!(condition(&job, "Failed").unwrap()["reason"], reason, "{job}");
    assert_eq!(condition(&job, "FailureTarget").unwrap()["reason"], reason, "{job}");
    job
}

/// Waits until the job is complete and returns it.
pub fn complete(space: &Space<'_>) -> Value {
    space.wait("job", "job", "completes", |job| has_condition(job, "Complete"))
}

fn active(space: &Space<'_>, count: usize) -> Vec<Value> {
    let mut pods = Vec::new();
    space.until(&format!("{count} pods are at work"), |space| {
        pods = space.list("pods", "job-name=job");
        pods.len() == count && pods.iter().all(is_ready)
    });
    pods
}

// conformance: [sig-apps] Job should run a job to completion when tasks sometimes fail and are locally restarted
pub fn local_restarts(space: &Space<'_>) {
    let once = "if [ -e /data/seen ]; then exit 0; fi; touch /data/seen; exit 1";
    let mut body = job("OnFailure", once, json!({}));
    let spec = &mut body["spec"]["template"]["spec"];
    spec["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    space.make(&body);
    let done = complete(space);
    assert_eq!((&done["status"]["succeeded"], &done["status"]["failed"]), (&json!(4), &Value::Null));
    assert!(done["status"]["completionTime"].is_string() && done["status"]["startTime"].is_string());
    assert_eq!(condition(&done, "Complete").unwrap()["reason"], "CompletionsReached");
    let pods = space.list("pods", "job-name=job");
    let succeeded = pods.iter().filter(|pod| pod["status"]["phase"] == "Succeeded");
    assert_eq!(succeeded.count(), 4);
    assert!(pods.iter().all(|pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1));
    space.until("nothing holds the pods", |space| {
        space.list("pods", "job-name=job").iter().all(|pod| pod["metadata"]["finalizers"].is_null())
    });
}

// conformance: [sig-apps] Job should adopt matching orphans and release non-matching pods
pub fn adopts_and_releases(space: &Space<'_>) {
    let uid = text(&space.make(&job("Never", SLEEP, json!({})))["metadata"]["uid"]);
    let pod = name(&active(space, 2)[0]);
    space.patch_json("pod", &pod, &json!([{"op": "remove", "path": "/metadata/ownerReferences"}]));
    space.wait("pod", &pod, "is adopted again", |pod| controller(pod).as_deref() == Some(&*uid));
    space.patch_json("pod", &pod, &json!([{"op": "remove", "path": "/metadata/labels"}]));
    space.wait("pod", &pod, "is released", |pod| controller(pod).is_none());
    active(space, 2);
}

// conformance: [sig-apps] Job should delete a job
pub fn deletion(space: &Space<'_>) {
    space.make(&job("Never", SLEEP, json!({})));
    active(space, 2);
    space.wait("job", "job", "counts its pods", |job| {
        job["status"]["active"] == 2 && job["status"]["ready"] == 2
    });
    space.kubectl(&["delete", "job", "job"]);
    assert!(space.find("job", "job").is_none());
    space.until("the pods are gone", |space| space.list("pods", "job-name=job").is_empty());
}

// conformance: [sig-apps] Job should apply changes to a job status
pub fn status(space: &Space<'_>) {
    space.make(&job("Never", SLEEP, json!({})));
    active(space, 2);
    space.wait("job", "job", "counts its pods", |job| job["status"]["ready"] == 2);
    let patch = json!({"metadata": {"annotations": {"patchedstatus": "true"}},
        "status": {"conditions": [status_condition("CustomConditionType")]}});
    let patched = space.patch_sub("job", "job", "status", &patch);
    assert_eq!(patched["metadata"]["annotations"]["patchedstatus"], "true");
    assert!(has_condition(&patched, "CustomConditionType"));
    space.update("job", "job", "status", |job| {
        let all = job["status"]["conditions"].as_array_mut().unwrap();
        let custom = all.iter_mut().find(|condition| condition["type"] == "CustomConditionType").unwrap();
        custom["status"] = json!("False");
    });
    let read = space.raw(&format!("{}/job/status", space.path(BATCH, "jobs")));
    assert_eq!(condition(&read, "CustomConditionType").unwrap()["status"], "False");
}

// conformance: [sig-apps] Job should manage the lifecycle of a job
pub fn lifecycle(space: &Space<'_>) {
    let watch = space.watch(&space.path(BATCH, "jobs"));
    space.make(&job("Never", "exit 0", json!({"suspend": true, "completions": 2})));
    watch.next("suspended", |event| has_condition(&event["object"], "Suspended"));
    assert!(space.list("pods", "job-name=job").is_empty());
    space.patch("job", "job", &json!({"metadata": {"labels": {"e2e": "patched"}}}));
    watch.next("patched", |event| event["object"]["metadata"]["labels"]["e2e"] == "patched");
    space.update("job", "job", "", |job| {
        job["metadata"]["annotations"] = json!({"updated": "true"});
        job["spec"]["suspend"] = json!(false);
    });
    watch.next("updated", |event| event["object"]["metadata"]["annotations"]["updated"] == "true");
    watch.next("complete", |event| has_condition(&event["object"], "Complete"));
    let all = space.raw(&format!("/{BATCH}/jobs?labelSelector=e2e%3Dpatched"));
    assert_eq!(all["items"].as_array().map(Vec::len), Some(1));
    space.delete_collection(&space.path(BATCH, "jobs"), "e2e=patched");
    watch.next("deleted", |event| event["type"] == "DELETED");
}

// conformance: [sig-apps] Job should allow to use the pod failure policy on exit code to fail the job early
pub fn fails_early_on_exit_code(space: &Space<'_>) {
    let rule =
        json!({"action": "FailJob", "onExitCodes": {"containerName": "c", "operator": "In", "values": [1]}});
    let policy = json!({"podFailurePolicy": {"rules": [rule]}, "backoffLimit": 6});
    // One pod fails, the others would go on for ever.
    let one = "mkdir /shared/first && exit 1; while true; do sleep 0.2; done";
    let mut body = job("Never", one, policy);
    shared_folder(space, &mut body);
    space.make(&body);
    let done = failed(space, "PodFailurePolicy");
    let message = text(&condition(&done, "Failed").unwrap()["message"]);
    assert!(message.contains("failed with exit code 1 matching FailJob rule at index 0"), "{message}");
}

/// Gives the job's pods a folder of the node in common.
fn shared_folder(space: &Space<'_>, body: &mut Value) {
    let path = space.cluster.dir.path().join(space.namespace);
    std::fs::create_dir_all(&path).unwrap();
    let spec = &mut body["spec"]["template"]["spec"];
    spec["volumes"] = json!([{"name": "shared", "hostPath": {"path": path}}]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "shared", "mountPath": "/shared"}]);
}

// conformance: [sig-apps] Job should allow to use a pod failure policy to ignore failure matching on DisruptionTarget condition
pub fn ignores_disruption(space: &Space<'_>) {
    let rule = json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]});
    let policy = json!({"podFailurePolicy": {"rules": [rule]}, "backoffLimit": 0, "completionMode": "Indexed",
        "parallelism": 2, "completions": 2});
    let script = "if [ -e /shared/$JOB_COMPLETION_INDEX ]; then exit 0; fi; touch /shared/$JOB_COMPLETION_INDEX; \
                  trap 'exit 1' TERM; while true; do sleep 0.2; done";
    let mut body = job("Never", script, policy);
    shared_folder(space, &mut body);
    space.make(&body);
    for pod in active(space, 2) {
        let name = name(&pod);
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
        let index = text(&pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"]);
        let marker = space.cluster.dir.path().join(space.namespace).join(index);
        space.until("the marker is there", |_| marker.exists());
        let path = format!("{}/{name}/eviction", space.path("api/v1", "pods"));
        let (code, answer) = space.post_raw(&path, &eviction);
        assert_eq!(code, 201, "{answer}");
    }
    let done = complete(space);
    assert_eq!((&done["status"]["succeeded"], &done["status"]["failed"]), (&json!(2), &Value::Null));
}

/// A finished job with a time to live removes itself.
pub fn goes_when_its_time_is_over(space: &Space<'_>) {
    space.make(&job("Never", "exit 0", json!({"ttlSecondsAfterFinished": 1, "completions": 1})));
    space.wait_gone("job", "job");
    space.until("the pods are gone", |space| space.list("pods", "job-name=job").is_empty());
}

/// A suspended job gives up its pods, which do not count as failed, and goes on later.
pub fn is_suspended_and_resumed(space: &Space<'_>) {
    space.make(&job("Never", SLEEP, json!({"backoffLimit": 0})));
    active(space, 2);
    space.patch("job", "job", &json!({"spec": {"suspend": true}}));
    space.until("the pods are gone", |space| space.list("pods", "job-name=job").is_empty());
    let suspended = space.wait("job", "job", "is suspended", |job| has_condition(job, "Suspended"));
    assert_eq!(suspended["status"]["failed"], Value::Null);
    space.patch("job", "job", &json!({"spec": {"suspend": false}}));
    active(space, 2);
    space.wait("job", "job", "goes on", |job| condition(job, "Suspended").unwrap()["status"] == "False");
}
