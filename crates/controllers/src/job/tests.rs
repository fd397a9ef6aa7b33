use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::shared::testing::{
    ago, describe, describe_actions, now, object, phase, pod, ready, status_of, with,
};

struct Case {
    job: Value,
    pods: Vec<ObservedPod>,
}

fn job(spec: Value) -> Case {
    let mut job = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "j", "namespace": "n", "uid": "u"},
        "spec": {"parallelism": 2, "completions": 3, "backoffLimit": 6,
            "selector": {"matchLabels": {"uid": "u"}},
            "template": {"metadata": {"labels": {"uid": "u"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}},
        "status": {"startTime": ago(200), "ready": 0, "terminating": 0, "uncountedTerminatedPods": {}},
    });
    for (field, value) in spec.as_object().into_iter().flatten() {
        job["spec"][field] = value.clone();
    }
    Case { job, pods: Vec::new() }
}

fn indexed(spec: Value) -> Case {
    let mut case = job(json!({"completionMode": "Indexed"}));
    for (field, value) in spec.as_object().into_iter().flatten() {
        case.job["spec"][field] = value.clone();
    }
    case
}

/// The status of a pod that failed so many seconds ago.
fn failed(code: i32, seconds: i64) -> Value {
    json!({"phase": "Failed", "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false,
        "restartCount": 0, "state": {"terminated": {"exitCode": code, "finishedAt": ago(seconds)}}}]})
}

impl Case {
    fn pod(mut self, name: &str, status: Value) -> Self {
        let pod = pod(name, "u", json!({"uid": "u"}), json!({}), status);
        self.pods.push(with(&pod, |pod| pod["metadata"]["finalizers"] = json!([TRACKING])));
        self
    }

    /// Changes the pod that was added last.
    fn but(mut self, change: impl FnOnce(&mut Value)) -> Self {
        let last = self.pods.pop().unwrap();
        self.pods.push(with(&last, change));
        self
    }

    fn index(self, index: i32, failures: i32) -> Self {
        self.but(|pod| {
            pod["metadata"]["annotations"] =
                json!({INDEX: index.to_string(), INDEX_FAILURES: failures.to_string()});
        })
    }

    fn untracked(self) -> Self {
        self.but(|pod| pod["metadata"]["finalizers"] = json!([]))
    }

    fn deleting(self) -> Self {
        self.but(|pod| pod["metadata"]["deletionTimestamp"] = json!(ago(1)))
    }

    fn status(mut self, field: &str, value: Value) -> Self {
        self.job["status"][field] = value;
        self
    }

    fn plan(&self) -> Plan {
        let object = object(&self.job);
        let view = typed::<Job>(&object).unwrap();
        plan(&Observed::new(object, &view, self.pods.clone()).unwrap(), now())
    }

    #[track_caller]
    fn check(&self, wanted: &Expect) {
        wanted.assert_eq(&describe_actions(&self.plan()));
    }

    /// The conditions that the plan writes.
    fn conditions(&self) -> String {
        let status = status_of(&self.plan());
        let all = status["conditions"].as_array().cloned().unwrap_or_default();
        let line = |c: &Value| {
            let text = |field: &str| c[field].as_str().unwrap_or_default().to_owned();
            format!("{}={} {}: {}", text("type"), text("status"), text("reason"), text("message"))
        };
        all.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

#[test]
fn as_many_pods_as_asked_for() {
    job(json!({})).check(&expect![[r#"
        create pods j-
        create pods j-"#]]);
    job(json!({})).pod("a", ready()).check(&expect!["create pods j-"]);
    job(json!({})).pod("a", ready()).pod("b", ready()).check(&expect![""]);
    // Two of three are done, so one is enough.
    let nearly = || job(json!({})).status("succeeded", json!(2)).pod("a", ready());
    nearly().check(&expect![""]);
    nearly().pod("b", phase("Pending")).check(&expect![[r#"
        patch pods b: {"metadata":{"$deleteFromPrimitiveList/finalizers":["batch.kubernetes.io/job-tracking"],"uid":"uid-b"}}
        delete pods b"#]]);
    // Without a number of completions one success ends the work.
    let queue = || job(json!({"completions": null})).status("succeeded", json!(1));
    queue().pod("a", ready()).check(&expect![""]);
    expect!["SuccessCriteriaMet=True CompletionsReached: Reached expected number of succeeded pods\nComplete=True CompletionsReached: Reached expected number of succeeded pods"]
        .assert_eq(&queue().conditions());
    job(json!({"managedBy": "example.com/other"})).check(&expect![""]);
}

#[test]
fn an_end_is_counted_in_three_steps() {
    let first = job(json!({})).pod("a", phase("Succeeded")).pod("b", ready());
    first.check(&expect!["create pods j-"]);
    assert_eq!(
        status_of(&first.plan())["uncountedTerminatedPods"],
        json!({"succeeded": ["uid-a"], "failed": []})
    );
    let second =
        first.status("uncountedTerminatedPods", json!({"succeeded": ["uid-a"]})).status("active", json!(1));
    second.check(&expect![[r#"
        patch pods a: {"metadata":{"$deleteFromPrimitiveList/finalizers":["batch.kubernetes.io/job-tracking"],"uid":"uid-a"}}
        create pods j-"#]]);
    let mut third = second;
    third.pods.remove(0);
    let status = status_of(&third.plan());
    assert_eq!(
        (&status["succeeded"], &status["uncountedTerminatedPods"]["succeeded"]),
        (&json!(1), &json!([]))
    );
}

#[test]
fn a_job_completes_when_all_is_counted() {
    let done = || job(json!({})).status("succeeded", json!(3));
    done().check(&expect!["event Completed: Job completed"]);
    assert!(status_of(&done().plan())["completionTime"].is_string());
    let waiting = job(json!({})).status("succeeded", json!(2)).pod("a", phase("Succeeded"));
    expect!["SuccessCriteriaMet=True CompletionsReached: Reached expected number of succeeded pods"]
        .assert_eq(&waiting.conditions());
    let over = done().status("conditions", json!([{"type": "Complete", "status": "True"}]));
    assert_eq!(describe(&over.plan()), "");
}

#[test]
fn failures_are_tried_again_after_a_while() {
    let once = |seconds: i64| job(json!({"parallelism": 1})).pod("a", failed(1, seconds));
    once(3).check(&expect![""]);
    assert_eq!(once(3).plan().next.map(|next| next.as_secs()), Some(7));
    once(10).check(&expect!["create pods j-"]);
    let twice = once(30).pod("b", failed(1, 11));
    assert_eq!(twice.plan().next.map(|next| next.as_secs()), Some(9));
    let recovered = once(3)
        .pod("b", json!({"phase": "Succeeded", "containerStatuses": failed(0, 1)["containerStatuses"]}));
    recovered.check(&expect!["create pods j-"]);
}

#[test]
fn too_many_failures_end_the_job() {
    let limited = || job(json!({"backoffLimit": 0})).pod("a", failed(1, 1)).pod("b", ready());
    limited().check(&expect!["delete pods b"]);
    expect!["FailureTarget=True BackoffLimitExceeded: Job has reached the specified backoff limit"]
        .assert_eq(&limited().conditions());
    let target = json!([{"type": "FailureTarget", "status": "True", "reason": "BackoffLimitExceeded",
        "message": "Job has reached the specified backoff limit"}]);
    let mut ended = job(json!({"backoffLimit": 0})).status("failed", json!(2)).status("conditions", target);
    expect!["FailureTarget=True BackoffLimitExceeded: Job has reached the specified backoff limit\nFailed=True BackoffLimitExceeded: Job has reached the specified backoff limit"]
        .assert_eq(&ended.conditions());
    ended = ended.pod("b", ready()).deleting();
    assert_eq!(ended.conditions(), "", "a pod is still on its way out");
    let restarting = json!({"phase": "Running", "containerStatuses": [{"name": "c", "image": "", "imageID": "",
        "ready": true, "restartCount": 2}]});
    let template = json!({"metadata": {"labels": {"uid": "u"}}, "spec": {"restartPolicy": "OnFailure", "containers": []}});
    let in_place = job(json!({"backoffLimit": 2, "template": template})).pod("a", restarting);
    assert!(in_place.conditions().starts_with("FailureTarget=True BackoffLimitExceeded"));
}

#[test]
fn a_deadline() {
    let late = job(json!({"activeDeadlineSeconds": 200})).pod("a", ready());
    late.check(&expect!["delete pods a"]);
    expect!["FailureTarget=True DeadlineExceeded: Job was active longer than specified deadline"]
        .assert_eq(&late.conditions());
    let early = job(json!({"activeDeadlineSeconds": 230})).pod("a", ready()).pod("b", ready());
    assert_eq!(early.plan().next.map(|next| next.as_secs()), Some(30));
}

#[test]
fn suspension() {
    let mut suspended = job(json!({"suspend": true})).pod("a", ready());
    suspended.job["status"] = json!({});
    suspended.check(&expect![[r#"
        patch pods a: {"metadata":{"$deleteFromPrimitiveList/finalizers":["batch.kubernetes.io/job-tracking"],"uid":"uid-a"}}
        delete pods a
        event Suspended: Job suspended"#]]);
    assert_eq!(suspended.conditions(), "Suspended=True JobSuspended: Job suspended");
    assert!(status_of(&suspended.plan()).get("startTime").is_none());
    let shown = json!([{"type": "Suspended", "status": "True"}]);
    let resumed = job(json!({})).status("conditions", shown);
    assert_eq!(resumed.conditions(), "Suspended=False JobResumed: Job resumed");
    assert_eq!(status_of(&resumed.plan())["startTime"], json!(ago(0)));
}

#[test]
fn deleted_pods_fail_at_once_or_when_they_end() {
    let at_once = job(json!({"parallelism": 1})).pod("a", ready()).deleting();
    assert_eq!(status_of(&at_once.plan())["uncountedTerminatedPods"]["failed"], json!(["uid-a"]));
    let later = job(json!({"parallelism": 1, "podReplacementPolicy": "Failed"})).pod("a", ready()).deleting();
    assert_eq!(status_of(&later.plan())["uncountedTerminatedPods"]["failed"], json!([]));
    later.check(&expect![""]);
}

#[test]
fn indexes() {
    let name = |action: &Action| match action {
        Action::Create { body, .. } => body["metadata"]["generateName"].as_str().unwrap().to_owned(),
        other => format!("{other:?}"),
    };
    let created = |case: Case| case.plan().actions.iter().map(name).collect::<Vec<_>>();
    assert_eq!(created(indexed(json!({}))), ["j-0-", "j-1-"]);
    let later = indexed(json!({})).status("completedIndexes", json!("0"));
    assert_eq!(created(later.pod("a", ready()).index(2, 0)), ["j-1-"]);
    let twice = indexed(json!({})).pod("a", ready()).index(0, 0).pod("b", phase("Pending")).index(0, 0);
    let text = describe_actions(&twice.plan());
    assert!(text.ends_with("delete pods b"), "{text}");
    let done =
        indexed(json!({})).status("completedIndexes", json!("0")).pod("a", phase("Succeeded")).index(1, 0);
    assert_eq!(status_of(&done.plan())["completedIndexes"], "0,1");
    assert_eq!(status_of(&done.plan())["succeeded"], 2);
    let Some(Action::Create { body, .. }) = indexed(json!({})).plan().actions.into_iter().next() else {
        panic!()
    };
    expect![[r#"{"containers":[{"env":[{"name":"JOB_COMPLETION_INDEX","valueFrom":{"fieldRef":{"fieldPath":"metadata.labels['batch.kubernetes.io/job-completion-index']"}}}],"name":"c"}],"hostname":"j-0","restartPolicy":"Never"}"#]]
        .assert_eq(&body["spec"].to_string());
}

#[test]
fn each_index_has_its_own_retries() {
    let case = || indexed(json!({"backoffLimitPerIndex": 1, "backoffLimit": i32::MAX}));
    let others = |case: Case| case.pod("x", ready()).index(2, 0);
    // The last failed pod of an index stays uncounted until its replacement is there.
    let young = others(case().pod("a", failed(1, 2)).index(0, 0));
    young.check(&expect!["create pods j-1-"]);
    assert_eq!(status_of(&young.plan())["uncountedTerminatedPods"]["failed"], json!([]));
    let due = others(case().pod("a", failed(1, 10)).index(0, 0));
    let Some(Action::Create { body, .. }) = due.plan().actions.into_iter().next() else { panic!() };
    assert_eq!(body["metadata"]["annotations"][INDEX_FAILURES], "1");
    let replaced = due.pod("b", ready()).index(0, 1);
    assert_eq!(status_of(&replaced.plan())["uncountedTerminatedPods"]["failed"], json!(["uid-a"]));
    let again = others(case().pod("b", failed(1, 1)).index(0, 1));
    let status = status_of(&again.plan());
    assert_eq!(
        (&status["failedIndexes"], &status["uncountedTerminatedPods"]["failed"]),
        (&json!("0"), &json!(["uid-b"]))
    );
    let all = case()
        .status("completedIndexes", json!("0,2"))
        .status("failedIndexes", json!("1"))
        .status("failed", json!(2));
    assert!(
        all.conditions().starts_with("FailureTarget=True FailedIndexes: Job has failed indexes\nFailed=True")
    );
    let strict =
        indexed(json!({"backoffLimitPerIndex": 0, "maxFailedIndexes": 0})).pod("a", failed(1, 1)).index(0, 0);
    assert!(strict.conditions().starts_with("FailureTarget=True MaxFailedIndexesExceeded"));
}

#[test]
fn policies() {
    let rules = |action: &str| {
        json!({"podReplacementPolicy": "Failed", "backoffLimit": 0, "podFailurePolicy": {"rules": [
            {"action": action, "onExitCodes": {"operator": "In", "values": [42]}}]}})
    };
    let fatal = job(rules("FailJob")).pod("a", failed(42, 1)).pod("b", ready());
    fatal.check(&expect!["delete pods b"]);
    expect!["FailureTarget=True PodFailurePolicy: Container c for pod n/a failed with exit code 42 matching FailJob rule at index 0"]
        .assert_eq(&fatal.conditions());
    let ignored = job(rules("Ignore")).pod("a", failed(42, 20));
    assert_eq!(ignored.conditions(), "");
    ignored.check(&expect![[r#"
        patch pods a: {"metadata":{"$deleteFromPrimitiveList/finalizers":["batch.kubernetes.io/job-tracking"],"uid":"uid-a"}}
        create pods j-
        create pods j-"#]]);
    let mut index = indexed(rules("FailIndex"));
    index.job["spec"]["backoffLimitPerIndex"] = json!(5);
    index.job["spec"]["backoffLimit"] = json!(9);
    let index = index.pod("a", failed(42, 1)).index(0, 0);
    assert_eq!(status_of(&index.plan())["failedIndexes"], "0");
    let success = indexed(json!({"successPolicy": {"rules": [{"succeededIndexes": "1"}]}}));
    let success = success.status("completedIndexes", json!("1")).pod("a", ready()).index(0, 0);
    success.check(&expect!["delete pods a"]);
    assert_eq!(success.conditions(), "SuccessCriteriaMet=True SuccessPolicy: Matched rules at index 0");
}

#[test]
fn pods_are_adopted_and_released_with_their_finalizer() {
    let mut case = job(json!({}));
    case.pods = vec![
        pod("a", "", json!({"uid": "u"}), json!({}), ready()),
        pod("b", "u", json!({"uid": "other"}), json!({}), ready()),
    ];
    case.check(&expect![[r#"
        patch pods a: {"metadata":{"finalizers":["batch.kubernetes.io/job-tracking"],"ownerReferences":[{"apiVersion":"batch/v1","blockOwnerDeletion":true,"controller":true,"kind":"Job","name":"j","uid":"u"}],"uid":"uid-a"}}
        patch pods b: {"metadata":{"$deleteFromPrimitiveList/finalizers":["batch.kubernetes.io/job-tracking"],"ownerReferences":[{"$patch":"delete","uid":"u"}],"uid":"uid-b"}}"#]]);
}

#[test]
fn pods_without_the_finalizer_were_counted_before() {
    let counted =
        job(json!({"parallelism": 1})).pod("a", phase("Succeeded")).untracked().status("succeeded", json!(1));
    assert_eq!(status_of(&counted.plan()), Value::Null);
}
