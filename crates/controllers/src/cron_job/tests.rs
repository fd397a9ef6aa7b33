use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::shared::testing::{ago, describe, describe_actions, now, object, status_of};

/// Created at second 490 of the test's world; it is second 1000 now, so a schedule of every minute was last due at 960.
struct Case {
    cron: Value,
    jobs: Vec<Value>,
}

fn case() -> Case {
    let cron = json!({
        "apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": {"name": "c", "namespace": "n", "uid": "u", "creationTimestamp": ago(50)},
        "spec": {"schedule": "* * * * *", "concurrencyPolicy": "Allow", "jobTemplate": {
            "metadata": {"labels": {"a": "b"}, "annotations": {"x": "y"}},
            "spec": {"template": {"spec": {"containers": []}}}}},
    });
    Case { cron, jobs: Vec::new() }
}

impl Case {
    fn spec(mut self, field: &str, value: Value) -> Self {
        self.cron["spec"][field] = value;
        self
    }

    fn status(mut self, value: Value) -> Self {
        self.cron["status"] = value;
        self
    }

    /// A job of minute `minute`; `end` is its condition.
    fn job(mut self, minute: i64, end: &str) -> Self {
        let mut status = json!({"startTime": ago(1000 - minute * 60)});
        if !end.is_empty() {
            status["conditions"] = json!([{"type": end, "status": "True"}]);
            status["completionTime"] = json!(ago(990 - minute * 60));
        }
        self.jobs.push(json!({"apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": format!("c-{minute}"), "namespace": "n", "uid": format!("j{minute}")},
            "spec": {"template": {}}, "status": status}));
        self
    }

    fn plan(&self) -> Plan {
        let object = object(&self.cron);
        let view = typed::<CronJob>(&object).unwrap();
        let read = |job: &Value| {
            let job = crate::shared::testing::object(job);
            let view = typed::<Job>(&job).unwrap();
            (job, view)
        };
        plan(&Observed::new(object, &view, self.jobs.iter().map(read).collect()).unwrap(), now())
    }

    #[track_caller]
    fn check(&self, wanted: &Expect) {
        wanted.assert_eq(&describe_actions(&self.plan()));
    }
}

#[test]
fn a_job_is_created_when_due() {
    expect![[r#"
        create jobs c-16
        again in 20 s"#]]
    .assert_eq(&describe(&case().plan()));
    // It was created after the last due time.
    let mut young = case();
    young.cron["metadata"]["creationTimestamp"] = json!(ago(30));
    young.check(&expect![""]);
    case().status(json!({"lastScheduleTime": ago(40)})).check(&expect![""]);
    case().spec("suspend", json!(true)).check(&expect![""]);
    case().spec("startingDeadlineSeconds", json!(30)).check(&expect![""]);
    case().spec("startingDeadlineSeconds", json!(45)).check(&expect!["create jobs c-16"]);
    let Some(reconcile::Action::Create { body, .. }) =
        case().spec("timeZone", json!("Asia/Tokyo")).plan().actions.into_iter().next()
    else {
        panic!()
    };
    expect![[r#"{"annotations":{"batch.kubernetes.io/cronjob-scheduled-timestamp":"1970-01-01T09:16:00+09:00","x":"y"},"labels":{"a":"b"},"name":"c-16","namespace":"n","ownerReferences":[{"apiVersion":"batch/v1","blockOwnerDeletion":true,"controller":true,"kind":"CronJob","name":"c","uid":"u"}]}"#]]
        .assert_eq(&body["metadata"].to_string());
}

#[test]
fn the_status_follows_the_job() {
    let made = case().job(16, "");
    expect![[r#"{"active":[{"apiVersion":"batch/v1","kind":"Job","name":"c-16","namespace":"n","resourceVersion":"7","uid":"j16"}],"lastScheduleTime":"1970-01-01T00:16:00Z"}"#]]
        .assert_eq(&status_of(&made.plan()).to_string());
    let active = json!([{"name": "c-16", "uid": "j16"}, {"name": "c-15", "uid": "j15"}]);
    let ended = case().job(16, "Complete").status(json!({"active": active, "lastScheduleTime": ago(40)}));
    ended.check(&expect![[r#"
        event SawCompletedJob: Saw completed job: c-16, condition: Complete
        event MissingJob: Active job went missing: c-15"#]]);
    let status = status_of(&ended.plan());
    assert_eq!(
        (&status["active"], &status["lastSuccessfulTime"]),
        (&json!([]), &json!("1970-01-01T00:16:10Z"))
    );
}

#[test]
fn concurrency_policies() {
    let running = |policy: &str| case().spec("concurrencyPolicy", json!(policy)).job(15, "");
    running("Allow").check(&expect!["create jobs c-16"]);
    running("Forbid").check(&expect![[r#"event JobAlreadyActive: Not starting job because prior execution is running and concurrency policy is Forbid"#]]);
    running("Replace").check(&expect![[r#"
        delete jobs c-15
        event SuccessfulDelete: Deleted job c-15
        create jobs c-16"#]]);
    let finished = |policy: &str| case().spec("concurrencyPolicy", json!(policy)).job(15, "Complete");
    finished("Forbid").check(&expect!["create jobs c-16"]);
    finished("Replace").check(&expect!["create jobs c-16"]);
}

#[test]
fn finished_jobs_go_beyond_the_limits() {
    let many = case().status(json!({"lastScheduleTime": ago(40)}));
    let many = many.job(10, "Complete").job(11, "Failed").job(12, "Complete").job(13, "Failed").job(14, "");
    let many = many.spec("successfulJobsHistoryLimit", json!(1)).spec("failedJobsHistoryLimit", json!(0));
    many.check(&expect![[r#"
        delete jobs c-10
        event SuccessfulDelete: Deleted job c-10
        delete jobs c-11
        event SuccessfulDelete: Deleted job c-11
        delete jobs c-13
        event SuccessfulDelete: Deleted job c-13"#]]);
}

#[test]
fn mistakes_are_told() {
    let text = describe_actions(&case().spec("timeZone", json!("Mars/Olympus")).plan());
    assert!(text.starts_with("event UnknownTimeZone: invalid timeZone: \"Mars/Olympus\""), "{text}");
    let mut old = case();
    old.cron["metadata"]["creationTimestamp"] = json!("1969-12-31T00:00:00Z");
    old.check(&expect![[r#"
        event TooManyMissedTimes: too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew
        create jobs c-16"#]]);
}
