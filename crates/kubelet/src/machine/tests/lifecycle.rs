//! From nothing to running: order, images, probes, hooks, adoption.

use containers::ContainerState;
use expect_test::expect;

use super::*;

#[test]
fn a_simple_pod() {
    let mut pod = Script::new(json!({"containers": [c("a")]})).with_events();
    pod.listed();
    assert_eq!(pod.summary(), "Pending a=ContainerCreating/0");
    pod.volumes();
    pod.image("a");
    pod.sandbox(0);
    pod.started("a", "x");
    expect![[r#"
        mount
        sandbox 0
        find img for a
        event Normal Pulled Container image "img" already present on machine and can be accessed by the pod
        start a/0 in s0
        event Normal Created Created container: a
        event Normal Started Started container a
    "#]]
    .assert_eq(&pod.transcript());
    assert_eq!(pod.summary(), "Running a=running+/0");
    let status = pod.status();
    let a = &status.container_statuses.unwrap()[0];
    assert_eq!(a.container_id.as_deref(), Some("kobune://x"));
    assert_eq!(a.image_id, "docker.io/library/img@sha256:2");
    assert_eq!(a.started, Some(true));
    assert_eq!(status.pod_ip.as_deref(), Some("10.0.0.2"));
    assert_eq!(status.host_ip.as_deref(), Some("192.0.2.1"));
    for type_ in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"] {
        assert_eq!(pod.condition(type_), "True", "{type_}");
    }
}

#[test]
fn nothing_is_asked_twice() {
    let mut pod = Script::new(json!({"containers": [c("a")]}));
    pod.prepared();
    pod.transcript();
    for _ in 0..3 {
        assert!(pod.step(Event::Wake).is_empty());
    }
    pod.runs("a", "x");
    assert!(pod.step(Event::Wake).is_empty());
    assert_eq!(pod.machine.next_wake(), None, "an idle pod needs no timer");
}

#[test]
fn init_containers_run_in_order_before_all_others() {
    let mut pod = Script::new(json!({"initContainers": [c("i"), c("j")], "containers": [c("a")]}));
    pod.prepared();
    assert_eq!(pod.summary(), "Pending i=PodInitializing/0 j=PodInitializing/0 a=PodInitializing/0");
    assert_eq!(
        pod.condition("Initialized"),
        "False ContainersNotInitialized: containers with incomplete status: [i j]"
    );
    pod.runs("i", "x");
    pod.exits("i", "x", 0);
    pod.runs("j", "y");
    pod.exits("j", "y", 0);
    assert_eq!(pod.condition("Initialized"), "True");
    pod.runs("a", "z");
    expect![[r#"
        mount
        sandbox 0
        find img for i
        start i/0 in s0
        unprobe i [Startup, Liveness, Readiness]
        find img for j
        start j/0 in s0
        unprobe j [Startup, Liveness, Readiness]
        find img for a
        start a/0 in s0
    "#]]
    .assert_eq(&pod.transcript());
    assert_eq!(pod.summary(), "Running i=Completed:0+/0 j=Completed:0+/0 a=running+/0");
}

fn sidecar(name: &str) -> Value {
    json!({"name": name, "image": "img", "restartPolicy": "Always", "startupProbe": {"exec": {"command": ["x"]}}})
}

#[test]
fn a_sidecar_must_have_started_before_what_follows_it() {
    let mut pod = Script::new(json!({"initContainers": [sidecar("s"), c("i")], "containers": [c("a")]}));
    pod.prepared();
    pod.runs("s", "x");
    assert_eq!(pod.summary(), "Pending s=running/0 i=PodInitializing/0 a=PodInitializing/0");
    pod.transcript();
    pod.probed("s", "x", ProbeKind::Startup, true);
    expect![[r#"
        unprobe s [Startup]
        find img for i
    "#]]
    .assert_eq(&pod.transcript());
    pod.runs("i", "y");
    pod.exits("i", "y", 0);
    pod.runs("a", "z");
    assert_eq!(pod.summary(), "Running s=running+/0 i=Completed:0+/0 a=running+/0");
    pod.exits("s", "x", 1);
    pod.runs("s", "x2");
    pod.probed("s", "x2", ProbeKind::Startup, true);
    assert_eq!(pod.summary(), "Running s=running+/1 i=Completed:0+/0 a=running+/0");
}

#[test]
fn main_containers_start_in_order_and_wait_for_hooks() {
    let mut pod = Script::new(json!({"containers": [c("a"), c("b")]}));
    pod.prepared();
    pod.image("b");
    pod.image("a");
    pod.transcript();
    pod.step(Event::Created { container: "a".into(), id: ContainerId("x".into()) });
    let started_at = pod.now;
    pod.step(Event::Started { container: "a".into(), id: ContainerId("x".into()), started_at, hook: true });
    assert_eq!(pod.transcript(), "", "b waits for the hook of a");
    pod.step(Event::PostStart { container: "a".into(), id: ContainerId("x".into()), result: Ok(()) });
    assert_eq!(pod.transcript(), "start b/0 in s0\n");
}

#[test]
fn a_failed_post_start_hook_kills_the_container() {
    let mut pod = Script::new(json!({"containers": [c("a")]})).with_events();
    pod.prepared();
    pod.image("a");
    let started_at = pod.now;
    pod.step(Event::Created { container: "a".into(), id: ContainerId("x".into()) });
    pod.step(Event::Started { container: "a".into(), id: ContainerId("x".into()), started_at, hook: true });
    pod.transcript();
    let result = Err("PostStartHook failed: boom".to_owned());
    pod.step(Event::PostStart { container: "a".into(), id: ContainerId("x".into()), result });
    expect![[r#"
        event Warning FailedPostStartHook PostStartHook failed: boom
        event Normal Killing FailedPostStartHook
        stop a 30s
    "#]]
    .assert_eq(&pod.transcript());
}

#[test]
fn pull_policies() {
    let check = |policy: &str, want: &str| {
        let container = json!({"name": "a", "image": "img", "imagePullPolicy": policy});
        let mut pod = Script::new(json!({"containers": [container]}));
        pod.prepared();
        pod.step(Event::ImageFound { container: "a".into(), image: "img".into(), found: Ok(None) });
        let log = pod.transcript();
        assert!(log.ends_with(want), "{policy}: {log}");
        pod.summary()
    };
    check("Always", "pull img for a\n");
    check("IfNotPresent", "find img for a\npull img for a\n");
    assert_eq!(check("Never", "find img for a\n"), "Pending a=ErrImageNeverPull/0");
}

fn pull_failure(cause: &str) -> Event {
    let pulled = Err(ImageFailure::Failed(cause.into()));
    Event::ImagePulled { container: "a".into(), image: "img".into(), pulled }
}

#[test]
fn a_pull_that_fails_backs_off() {
    let container = json!({"name": "a", "image": "img", "imagePullPolicy": "Always"});
    let mut pod = Script::new(json!({"containers": [container]})).with_events();
    pod.prepared();
    pod.transcript();
    pod.step(pull_failure("no route"));
    assert_eq!(pod.summary(), "Pending a=ErrImagePull/0");
    let mut waits = Vec::new();
    for _ in 0..7 {
        let shown = pod.sleep();
        assert_eq!(pod.summary(), "Pending a=ImagePullBackOff/0");
        waits.push(shown + pod.sleep());
        pod.step(pull_failure("no route"));
    }
    assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
    let log = pod.transcript();
    let first: Vec<_> = log.lines().take(9).collect();
    expect![[r#"
        event Warning Failed Failed to pull image "img": no route
        event Warning Failed Error: ErrImagePull
        -- +2s
        event Normal BackOff Back-off pulling image "img"
        event Warning Failed Error: ImagePullBackOff
        -- +8s
        event Normal Pulling Pulling image "img"
        pull img for a
        event Warning Failed Failed to pull image "img": no route"#]]
    .assert_eq(&first.join("\n"));
    let waiting = pod.status().container_statuses.unwrap()[0].state.clone().unwrap().waiting.unwrap();
    assert_eq!(waiting.message.as_deref(), Some("no route"));
}

#[test]
fn a_name_that_is_no_name() {
    let mut pod = Script::new(json!({"containers": [{"name": "a", "image": "IMG"}]}));
    pod.prepared();
    let found = Err(ImageFailure::InvalidName("invalid reference format".into()));
    pod.step(Event::ImageFound { container: "a".into(), image: "IMG".into(), found });
    assert_eq!(pod.summary(), "Pending a=InvalidImageName/0");
    let waiting = pod.status().container_statuses.unwrap()[0].state.clone().unwrap().waiting.unwrap();
    assert_eq!(
        waiting.message.as_deref(),
        Some(
            "Failed to apply default image tag \"IMG\": couldn't parse image name \"IMG\": invalid reference format"
        )
    );
}

#[test]
fn volumes_that_fail_are_tried_again() {
    let mut pod = Script::new(json!({"containers": [c("a")]})).with_events();
    pod.listed();
    pod.transcript();
    pod.step(Event::Volumes(Err(vec![("v".into(), "configmap \"m\" not found".into())])));
    assert_eq!(pod.sleep(), 0, "half a second");
    expect![[r#"
        event Warning FailedMount MountVolume.SetUp failed for volume "v" : configmap "m" not found
        -- +0s
        mount
    "#]]
    .assert_eq(&pod.transcript());
    pod.step(Event::Volumes(Err(vec![("v".into(), "configmap \"m\" not found".into())])));
    pod.transcript();
    pod.step(Event::ReferencesChanged);
    assert_eq!(pod.transcript(), "mount\n", "a change of what it refers to is not waited for");
}

#[test]
fn a_configuration_error_waits_for_what_is_missing() {
    let mut pod = Script::new(json!({"containers": [c("a")]}));
    pod.prepared();
    pod.image("a");
    let message = "secret \"s\" not found".to_owned();
    let failure = StartFailure::Config;
    pod.step(Event::StartFailed { container: "a".into(), id: None, failure, message });
    assert_eq!(pod.summary(), "Pending a=CreateContainerConfigError/0");
    pod.transcript();
    pod.step(Event::ReferencesChanged);
    pod.runs("a", "x");
    assert_eq!(pod.summary(), "Running a=running+/0");
}

#[test]
fn a_process_that_cannot_start_counts_as_a_crash() {
    let mut pod = Script::new(json!({"containers": [c("a")]}));
    pod.prepared();
    pod.image("a");
    let id = ContainerId("x".into());
    pod.step(Event::Created { container: "a".into(), id: id.clone() });
    let message = "exec: \"nope\": not found".to_owned();
    let failure = StartFailure::Run;
    pod.step(Event::StartFailed { container: "a".into(), id: Some(id), failure, message });
    assert_eq!(pod.summary(), "Running a=RunContainerError/0");
    let last = pod.status().container_statuses.unwrap()[0].last_state.clone().unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (128, Some("StartError")));
}

#[test]
fn probes_gate_readiness_and_kill() {
    let probe = json!({"exec": {"command": ["x"]}, "failureThreshold": 2});
    let container = json!({"name": "a", "image": "img", "livenessProbe": probe, "readinessProbe": probe,
        "startupProbe": probe});
    let mut pod = Script::new(json!({"containers": [container]})).with_events();
    pod.prepared();
    pod.runs("a", "x");
    assert_eq!(pod.summary(), "Running a=running/0");
    pod.transcript();
    pod.probed("a", "x", ProbeKind::Startup, false);
    pod.probed("a", "x", ProbeKind::Startup, true);
    pod.probed("a", "x", ProbeKind::Readiness, true);
    assert_eq!(pod.summary(), "Running a=running+/0");
    pod.probed("a", "x", ProbeKind::Readiness, false);
    assert_eq!(pod.summary(), "Running a=running+/0", "one failure is not enough");
    pod.probed("a", "x", ProbeKind::Readiness, false);
    assert_eq!(pod.condition("Ready"), "False ContainersNotReady: containers with unready status: [a]");
    pod.probed("a", "x", ProbeKind::Liveness, false);
    pod.probed("a", "x", ProbeKind::Liveness, false);
    pod.probed("a", "x", ProbeKind::Liveness, false);
    expect![[r#"
        event Warning Unhealthy Startup probe failed: no
        unprobe a [Startup]
        probe a Liveness
        probe a Readiness
        event Warning Unhealthy Readiness probe failed: no
        event Warning Unhealthy Readiness probe failed: no
        event Warning Unhealthy Liveness probe failed: no
        event Warning Unhealthy Liveness probe failed: no
        unprobe a [Startup, Liveness]
        event Normal Killing Container a failed liveness probe, will be restarted
        stop a 30s after hook
        event Warning Unhealthy Liveness probe failed: no
    "#]]
    .assert_eq(&pod.transcript());
    pod.exits("a", "x", 137);
    pod.runs("a", "y");
    assert_eq!(pod.summary(), "Running a=running/1");
}

#[test]
fn a_probe_has_its_own_grace_period() {
    let probe =
        json!({"exec": {"command": ["x"]}, "failureThreshold": 1, "terminationGracePeriodSeconds": 3});
    let mut pod = Script::new(json!({"containers": [{"name": "a", "image": "img", "livenessProbe": probe}]}));
    pod.prepared();
    pod.runs("a", "x");
    pod.probed("a", "x", ProbeKind::Liveness, false);
    assert!(pod.transcript().ends_with("stop a 3s after hook\n"));
}

#[test]
fn readiness_gates() {
    let mut pod = Script::new(
        json!({"containers": [c("a")], "readinessGates": [{"conditionType": "example.com/gate"}]}),
    );
    pod.prepared();
    pod.runs("a", "x");
    assert_eq!(
        pod.condition("Ready"),
        "False ReadinessGatesNotReady: corresponding condition of pod readiness gate \"example.com/gate\" does not exist."
    );
    assert_eq!(pod.condition("ContainersReady"), "True");
    for (status, want) in [
        (
            "False",
            "False ReadinessGatesNotReady: the status of pod readiness gate \"example.com/gate\" is not \"True\", but False",
        ),
        ("True", "True"),
    ] {
        pod.value["status"] = json!({"conditions": [{"type": "example.com/gate", "status": status}]});
        let changed = typed(&pod.value);
        pod.step(Event::Pod(changed));
        assert_eq!(pod.condition("Ready"), want);
    }
}

#[test]
fn what_runs_is_adopted_untouched() {
    let mut value = pod_value(json!({"initContainers": [c("i")], "containers": [c("a")]}));
    value["status"] = json!({"startTime": "1970-01-12T13:00:00Z", "phase": "Running", "containerStatuses": [
        {"name": "a", "image": "img", "imageID": "", "ready": true, "started": true, "restartCount": 3,
            "containerID": "kobune://x"}]});
    let mut pod = Script::of(value);
    let running = ContainerState::Running { started_at: start_of_time() };
    let containers = vec![
        observed("i", "w", 0, "s0", exited(start_of_time(), 0)),
        observed("a", "v", 2, "s0", exited(start_of_time(), 1)),
        observed("a", "x", 3, "s0", running),
    ];
    pod.step(Event::Listed { sandboxes: vec![sandbox(0)], containers });
    assert_eq!(pod.transcript(), "mount\n", "nothing is stopped, nothing is started");
    assert_eq!(pod.summary(), "Running i=Completed:0+/0 a=running+/3");
    let last = pod.status().container_statuses.unwrap()[0].last_state.clone().unwrap().terminated.unwrap();
    assert_eq!(last.exit_code, 1);
    assert_eq!(pod.status().start_time.unwrap().0.to_string(), "1970-01-12T13:00:00Z");
}

#[test]
fn readiness_survives_adoption() {
    let probe = json!({"exec": {"command": ["x"]}});
    let mut value = pod_value(json!({"containers": [{"name": "a", "image": "img", "readinessProbe": probe,
        "startupProbe": probe}]}));
    value["status"] = json!({"containerStatuses": [{"name": "a", "image": "img", "imageID": "", "ready": true,
        "started": true, "restartCount": 0, "containerID": "kobune://x"}]});
    let mut pod = Script::of(value);
    let running = ContainerState::Running { started_at: start_of_time() };
    let containers = vec![observed("a", "x", 0, "s0", running)];
    pod.step(Event::Listed { sandboxes: vec![sandbox(0)], containers });
    assert_eq!(pod.summary(), "Running a=running+/0");
    assert!(pod.transcript().contains("probe a Readiness"));
}

#[test]
fn what_ended_while_nobody_looked_is_restarted_with_a_count() {
    let mut pod = Script::new(json!({"containers": [c("a")]}));
    let containers = vec![observed("a", "x", 1, "s0", exited(start_of_time(), 1))];
    pod.step(Event::Listed { sandboxes: vec![sandbox(0)], containers });
    pod.volumes();
    pod.image("a");
    assert!(pod.transcript().contains("start a/2 in s0"));
}

#[test]
fn a_lost_sandbox_is_made_anew() {
    let mut pod = Script::new(json!({"initContainers": [c("i")], "containers": [c("a")]})).with_events();
    pod.prepared();
    pod.runs("i", "w");
    pod.exits("i", "w", 0);
    pod.runs("a", "x");
    pod.transcript();
    pod.step(Event::SandboxStopped(SandboxId("s0".into())));
    pod.exits("a", "x", 137);
    pod.step(Event::SandboxStopped(SandboxId("s0".into())));
    pod.sandbox(1);
    pod.runs("i", "w2");
    pod.exits("i", "w2", 0);
    pod.runs("a", "x2");
    let log: Vec<_> =
        pod.transcript().lines().filter(|line| !line.contains("unprobe")).map(str::to_owned).collect();
    expect![[r#"
        event Normal SandboxChanged Pod sandbox changed, it will be killed and re-created.
        stop sandbox s0
        sandbox 1
        find img for i
        event Normal Pulled Container image "img" already present on machine and can be accessed by the pod
        start i/1 in s1
        event Normal Created Created container: i
        event Normal Started Started container i
        remove w
        find img for a
        event Normal Pulled Container image "img" already present on machine and can be accessed by the pod
        start a/1 in s1
        event Normal Created Created container: a
        event Normal Started Started container a"#]]
    .assert_eq(&log.join("\n"));
    assert_eq!(pod.summary(), "Running i=Completed:0+/1 a=running+/1");
}

#[test]
fn a_container_that_ends_before_word_of_its_start_is_not_lost() {
    let mut pod = Script::new(json!({"containers": [c("a")], "restartPolicy": "Never"}));
    pod.prepared();
    pod.image("a");
    pod.step(Event::Created { container: "a".into(), id: ContainerId("x".into()) });
    pod.exits("a", "x", 0);
    let started_at = pod.now;
    pod.step(Event::Started { container: "a".into(), id: ContainerId("x".into()), started_at, hook: false });
    assert_eq!(pod.summary(), "Succeeded a=Completed:0/0");
}

#[test]
fn ephemeral_containers_join_a_running_pod_and_are_not_restarted() {
    let mut pod = Script::new(json!({"containers": [c("a")]}));
    pod.prepared();
    pod.runs("a", "x");
    pod.value["spec"]["ephemeralContainers"] =
        json!([{"name": "d", "image": "img", "targetContainerName": "a"}]);
    let changed = typed(&pod.value);
    pod.step(Event::Pod(changed));
    pod.runs("d", "y");
    assert_eq!(pod.summary(), "Running a=running+/0 d=running/0");
    pod.exits("d", "y", 1);
    pod.transcript();
    pod.step(Event::Wake);
    assert_eq!(pod.transcript(), "");
    assert_eq!(pod.condition("Ready"), "True");
}

#[test]
fn a_changed_image_replaces_the_container() {
    let mut pod = Script::new(json!({"containers": [c("a")]}));
    pod.prepared();
    pod.runs("a", "x");
    pod.transcript();
    pod.value["spec"]["containers"][0]["image"] = json!("img2");
    let changed = typed(&pod.value);
    pod.step(Event::Pod(changed));
    pod.exits("a", "x", 143);
    expect![[r#"
        stop a 30s after hook
        unprobe a [Startup, Liveness, Readiness]
        find img2 for a
    "#]]
    .assert_eq(&pod.transcript());
}

#[test]
fn resources_are_changed_in_place() {
    let container = json!({"name": "a", "image": "img", "resources": {"requests": {"cpu": "1"}}});
    let mut pod = Script::new(json!({"containers": [container]}));
    pod.prepared();
    pod.runs("a", "x");
    pod.transcript();
    pod.value["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("2");
    let changed = typed(&pod.value);
    pod.step(Event::Pod(changed));
    assert_eq!(pod.transcript(), "resize a\n");
    assert_eq!(pod.condition("PodResizeInProgress"), "True");
    pod.step(Event::Resized { container: "a".into(), id: ContainerId("x".into()), result: Ok(()) });
    let allocated = pod.status().container_statuses.unwrap()[0].allocated_resources.clone().unwrap();
    assert_eq!(allocated["cpu"].0, "2");
    assert!(
        pod.status().conditions.unwrap().iter().all(|condition| condition.type_ != "PodResizeInProgress")
    );
}
