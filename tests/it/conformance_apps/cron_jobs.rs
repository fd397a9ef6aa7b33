//! CronJobs. A schedule's smallest unit is the minute, so these take minutes, side by side.

use serde_json::{Value, json};

use super::space::{SLEEP, Space, name, script, text};

const BATCH: &str = "apis/batch/v1";

/// A CronJob of every minute whose jobs do not end by themselves.
fn cron_job(policy: &str, suspend: bool) -> Value {
    let template = json!({"spec": {"restartPolicy": "OnFailure", "terminationGracePeriodSeconds": 0,
        "containers": [script(SLEEP)]}});
    json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "cron"},
        "spec": {"schedule": "*/1 * * * ?", "concurrencyPolicy": policy, "suspend": suspend,
            "jobTemplate": {"spec": {"template": template}}}})
}

fn active(cron: &Value) -> Vec<String> {
    let all = cron["status"]["active"].as_array().cloned().unwrap_or_default();
    all.iter().map(|job| text(&job["name"])).collect()
}

fn wait_active(space: &Space<'_>, count: usize) -> Vec<String> {
    active(
        &space
            .wait("cronjob", "cron", &format!("has {count} active jobs"), |cron| active(cron).len() == count),
    )
}

fn jobs(space: &Space<'_>) -> Vec<String> {
    let list = space.raw(&space.path(BATCH, "jobs"));
    list["items"].as_array().unwrap().iter().map(name).collect()
}

/// Sleeps over the next minute's start.
fn next_minute() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    std::thread::sleep(std::time::Duration::from_secs(60 - now % 60 + 4));
}

// conformance: [sig-apps] CronJob should schedule multiple jobs concurrently
pub fn concurrent(space: &Space<'_>) {
    space.make(&cron_job("Allow", false));
    let both = wait_active(space, 2);
    let unfinished = jobs(space);
    assert!(both.iter().all(|job| unfinished.contains(job)), "{both:?} {unfinished:?}");
    space.delete("cronjob", "cron");
}

// conformance: [sig-apps] CronJob should not schedule new jobs when ForbidConcurrent [Slow]
pub fn forbids(space: &Space<'_>) {
    space.make(&cron_job("Forbid", false));
    let only = wait_active(space, 1);
    next_minute();
    assert_eq!(jobs(space), only);
    let events = space.kubectl(&["get", "events", "--field-selector", "reason=JobAlreadyActive"]);
    assert!(events.contains("prior execution is running and concurrency policy is Forbid"), "{events}");
    space.delete("cronjob", "cron");
}

// conformance: [sig-apps] CronJob should replace jobs when ReplaceConcurrent
pub fn replaces(space: &Space<'_>) {
    space.make(&cron_job("Replace", false));
    let first = wait_active(space, 1);
    space.wait("cronjob", "cron", "has replaced its job", |cron| {
        active(cron).len() == 1 && active(cron) != first
    });
    space.wait_gone("job", &first[0]);
    space.delete("cronjob", "cron");
}

// conformance: [sig-apps] CronJob should not schedule jobs when suspended [Slow]
pub fn suspended(space: &Space<'_>) {
    space.make(&cron_job("Allow", true));
    next_minute();
    next_minute();
    assert!(jobs(space).is_empty());
    assert!(active(&space.get("cronjob", "cron")).is_empty());
}

// conformance: [sig-apps] CronJob should support CronJob API operations
pub fn operations(space: &Space<'_>) {
    let groups = space.raw("/apis");
    assert!(groups.to_string().contains("\"batch/v1\""));
    let resources = space.raw("/apis/batch/v1");
    let names: Vec<String> =
        resources["resources"].as_array().unwrap().iter().map(|r| text(&r["name"])).collect();
    assert!(
        names.contains(&"cronjobs".to_owned()) && names.contains(&"cronjobs/status".to_owned()),
        "{names:?}"
    );
    let watch = space.watch(&space.path(BATCH, "cronjobs"));
    let mut body = cron_job("Allow", true);
    body["metadata"]["labels"] = json!({"special": "yes"});
    space.make(&body);
    watch.next("added", |event| event["type"] == "ADDED");
    assert_eq!(space.get("cronjob", "cron")["spec"]["timeZone"], Value::Null);
    assert_eq!(space.list("cronjobs", "special=yes").len(), 1);
    let everywhere = space.raw(&format!("/{BATCH}/cronjobs?labelSelector=special%3Dyes"));
    assert_eq!(everywhere["items"].as_array().map(Vec::len), Some(1));
    space.patch("cronjob", "cron", &json!({"metadata": {"annotations": {"patched": "true"}}}));
    watch.next("patched", |event| event["object"]["metadata"]["annotations"]["patched"] == "true");
    space.update("cronjob", "cron", "", |cron| cron["metadata"]["annotations"]["updated"] = json!("true"));
    watch.next("updated", |event| event["object"]["metadata"]["annotations"]["updated"] == "true");
    let patch = json!({"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"lastScheduleTime": "2020-01-01T00:00:00Z"}});
    let patched = space.patch_sub("cronjob", "cron", "status", &patch);
    assert_eq!(patched["status"]["lastScheduleTime"], "2020-01-01T00:00:00Z");
    assert_eq!(patched["metadata"]["annotations"]["patchedstatus"], "true");
    let updated = space.update("cronjob", "cron", "status", |cron| {
        cron["status"]["lastScheduleTime"] = json!("2020-01-01T00:01:00Z");
    });
    assert_eq!(updated["status"]["lastScheduleTime"], "2020-01-01T00:01:00Z");
    let read = space.raw(&format!("{}/cron/status", space.path(BATCH, "cronjobs")));
    assert_eq!(read["status"]["lastScheduleTime"], "2020-01-01T00:01:00Z");
    space.delete("cronjob", "cron");
    watch.next("deleted", |event| event["type"] == "DELETED");
    body["metadata"]["name"] = json!("another");
    space.make(&body);
    space.delete_collection(&space.path(BATCH, "cronjobs"), "special=yes");
    watch.next("deleted with its collection", |event| event["type"] == "DELETED");
    assert!(space.list("cronjobs", "special=yes").is_empty());
}
