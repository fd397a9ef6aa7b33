//! Ends: graceful, hastened, by deadline, by eviction, by rejection.

use expect_test::expect;

use super::*;

fn running(spec: Value) -> Script {
    let mut pod = Script::new(spec);
    pod.prepared();
    pod.runs("a", "x");
    pod.transcript();
    pod
}

#[test]
fn a_deleted_pod_stops_and_goes() {
    let mut pod = running(json!({"containers": [c("a")], "terminationGracePeriodSeconds": 7})).with_events();
    pod.delete(7);
    assert_eq!(pod.summary(), "Running a=running+/0");
    pod.exits("a", "x", 0);
    assert_eq!(pod.summary(), "Succeeded a=Completed:0/0");
    pod.cleaned("s0");
    pod.step(Event::Removed(Ok(())));
    expect![[r#"
        unprobe a [Startup, Liveness]
        event Normal Killing Stopping container a
        stop a 7s after hook
        unprobe a [Startup, Liveness, Readiness]
        stop sandbox s0
        release
        remove all
        delete object
        forget
    "#]]
    .assert_eq(&pod.transcript());
}

#[test]
fn a_pod_killed_at_the_end_has_failed() {
    let mut pod = running(json!({"containers": [c("a")]}));
    pod.delete(30);
    pod.exits("a", "x", 137);
    assert_eq!(pod.summary(), "Failed a=Error:137/0");
}

#[test]
fn the_grace_period_can_be_shortened() {
    let mut pod = running(json!({"containers": [c("a")]}));
    pod.delete(30);
    pod.after(5);
    pod.delete(2);
    pod.delete(20);
    expect![[r#"
        unprobe a [Startup, Liveness]
        stop a 30s after hook
        -- +5s
        stop a 2s
    "#]]
    .assert_eq(&pod.transcript());
}

#[test]
fn a_pod_that_never_started_goes_at_once() {
    let mut pod = Script::new(json!({"containers": [c("a")]}));
    pod.listed();
    pod.transcript();
    pod.delete(30);
    assert_eq!(pod.transcript(), "", "the sandbox is being made; its maker cannot be called back");
    pod.sandbox(0);
    pod.cleaned("s0");
    pod.step(Event::Removed(Ok(())));
    assert_eq!(pod.transcript(), "stop sandbox s0\nrelease\nremove all\ndelete object\nforget\n");
}

#[test]
fn an_object_that_is_gone_is_not_deleted_again() {
    let mut pod = running(json!({"containers": [c("a")]}));
    pod.step(Event::ObjectGone);
    pod.exits("a", "x", 0);
    pod.cleaned("s0");
    pod.step(Event::Removed(Ok(())));
    let log = pod.transcript();
    assert!(log.ends_with("remove all\nforget\n"), "{log}");
}

#[test]
fn sidecars_stop_last_in_reverse() {
    let sidecar = |name: &str| json!({"name": name, "image": "img", "restartPolicy": "Always"});
    let mut pod =
        Script::new(json!({"initContainers": [sidecar("s"), sidecar("t")], "containers": [c("a")]}));
    pod.prepared();
    pod.runs("s", "x");
    pod.runs("t", "y");
    pod.runs("a", "z");
    pod.transcript();
    pod.delete(30);
    pod.after(4).exits("a", "z", 0);
    pod.exits("t", "y", 0);
    pod.exits("s", "x", 0);
    let stops: Vec<_> =
        pod.transcript().lines().filter(|line| line.starts_with("stop")).map(str::to_owned).collect();
    assert_eq!(
        stops,
        ["stop a 30s after hook", "stop t 26s after hook", "stop s 26s after hook", "stop sandbox s0"]
    );
}

#[test]
fn sidecars_do_not_keep_a_finished_pod_alive() {
    let sidecar = json!({"name": "s", "image": "img", "restartPolicy": "Always"});
    let mut pod =
        Script::new(json!({"initContainers": [sidecar], "containers": [c("a")], "restartPolicy": "Never"}));
    pod.prepared();
    pod.runs("s", "x");
    pod.runs("a", "y");
    pod.exits("a", "y", 0);
    assert_eq!(pod.summary(), "Running s=running+/0 a=Completed:0/0");
    pod.exits("s", "x", 143);
    assert_eq!(pod.summary(), "Succeeded s=Error:143/0 a=Completed:0/0");
}

#[test]
fn a_finished_pod_keeps_its_containers_until_it_is_deleted() {
    let mut pod = running(json!({"containers": [c("a")], "restartPolicy": "Never"}));
    pod.exits("a", "x", 0);
    pod.cleaned("s0");
    assert_eq!(pod.summary(), "Succeeded a=Completed:0/0");
    assert_eq!(
        pod.transcript(),
        "unprobe a [Startup, Liveness, Readiness]\nstop sandbox s0\nrelease\n",
        "its log can still be read"
    );
    pod.delete(30);
    pod.step(Event::Removed(Ok(())));
    assert_eq!(pod.transcript(), "remove all\ndelete object\nforget\n");
}

#[test]
fn the_active_deadline() {
    let mut pod = running(json!({"containers": [c("a")], "activeDeadlineSeconds": 5}));
    assert_eq!(pod.sleep(), 5);
    assert_eq!(pod.summary(), "Running a=running+/0", "not over while it runs");
    pod.exits("a", "x", 143);
    assert_eq!(pod.summary(), "Failed (DeadlineExceeded) a=Error:143/0");
    let message = pod.status().message.unwrap();
    assert_eq!(message, "Pod was active on the node longer than the specified deadline");
}

#[test]
fn eviction() {
    let mut pod = running(json!({"containers": [c("a")]}));
    let message = "The node was low on resource: memory. ".to_owned();
    pod.step(Event::Evict(Eviction { reason: "Evicted".into(), message, grace_seconds: Some(0) }));
    assert!(pod.transcript().ends_with("stop a 1s after hook\n"));
    pod.exits("a", "x", 137);
    assert_eq!(pod.summary(), "Failed (Evicted) a=Error:137/0");
    assert_eq!(
        pod.condition("DisruptionTarget"),
        "True TerminationByKubelet: The node was low on resource: memory."
    );
}

#[test]
fn rejection() {
    let mut pod = Script::new(json!({"containers": [c("a")]})).with_events();
    let message = "Node didn't have enough resource: cpu, requested: 2, used: 0, capacity: 1".to_owned();
    pod.step(Event::Rejected { reason: "OutOfcpu".into(), message });
    expect![[r#"
        event Warning OutOfcpu Node didn't have enough resource: cpu, requested: 2, used: 0, capacity: 1
        release
    "#]]
    .assert_eq(&pod.transcript());
    let status = pod.status();
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(status.reason.as_deref(), Some("OutOfcpu"));
    assert_eq!(
        status.message.as_deref(),
        Some("Pod was rejected: Node didn't have enough resource: cpu, requested: 2, used: 0, capacity: 1")
    );
    pod.step(Event::Released(Ok(())));
    pod.delete(0);
    pod.step(Event::Removed(Ok(())));
    assert!(pod.transcript().ends_with("delete object\nforget\n"));
}

#[test]
fn a_pod_that_had_ended_stays_ended() {
    let mut value = pod_value(json!({"containers": [c("a")]}));
    value["status"] = json!({"phase": "Failed", "reason": "Evicted", "message": "m", "containerStatuses": [
        {"name": "a", "image": "img", "imageID": "", "ready": false, "restartCount": 1, "containerID": "kobune://x",
            "state": {"terminated": {"exitCode": 9, "containerID": "kobune://x"}}}]});
    let mut pod = Script::of(value);
    pod.listed();
    assert_eq!(pod.transcript(), "release\n");
    assert_eq!(pod.summary(), "Failed (Evicted) a=:9/1");
}

#[test]
fn a_stop_that_fails_is_tried_again() {
    let mut pod = running(json!({"containers": [c("a")]}));
    pod.delete(30);
    pod.transcript();
    pod.step(Event::StopFailed {
        container: "a".into(),
        id: ContainerId("x".into()),
        message: "busy".into(),
    });
    assert_eq!(pod.transcript(), "");
    assert_eq!(pod.sleep(), 5);
    assert_eq!(pod.transcript(), "-- +5s\nstop a 25s after hook\n");
}

#[test]
fn cleaning_up_that_fails_is_tried_again() {
    let mut pod = running(json!({"containers": [c("a")]}));
    pod.delete(30);
    pod.exits("a", "x", 0);
    pod.step(Event::SandboxStopped(SandboxId("s0".into())));
    pod.transcript();
    pod.step(Event::Released(Err("busy".into())));
    assert_eq!(pod.sleep(), 2);
    assert_eq!(pod.transcript(), "-- +2s\nrelease\n");
}

#[test]
fn a_start_under_way_is_stopped_when_it_is_done() {
    let mut pod = Script::new(json!({"containers": [c("a")]}));
    pod.prepared();
    pod.image("a");
    pod.transcript();
    pod.delete(30);
    assert_eq!(pod.transcript(), "");
    pod.started("a", "x");
    assert_eq!(pod.transcript(), "stop a 30s after hook\n");
}
