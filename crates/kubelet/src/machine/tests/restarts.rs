//! Which containers run again, and when.

use super::*;

/// A container that ends with `exit_code` under a policy: what becomes of the pod.
fn check(policy: &str, exit_code: i32, want: &str) {
    let mut pod = Script::new(json!({"containers": [c("a")], "restartPolicy": policy}));
    pod.prepared();
    pod.runs("a", "x");
    pod.exits("a", "x", exit_code);
    assert_eq!(pod.summary(), want, "{policy} {exit_code}");
}

#[test]
fn policies() {
    check("Always", 0, "Running a=Completed:0/0");
    check("Always", 1, "Running a=Error:1/0");
    check("OnFailure", 0, "Succeeded a=Completed:0/0");
    check("OnFailure", 1, "Running a=Error:1/0");
    check("Never", 0, "Succeeded a=Completed:0/0");
    check("Never", 1, "Failed a=Error:1/0");
}

#[test]
fn the_pod_lasts_as_long_as_one_of_its_containers() {
    let mut pod = Script::new(json!({"containers": [c("a"), c("b")], "restartPolicy": "Never"}));
    pod.prepared();
    pod.image("a");
    pod.image("b");
    pod.started("a", "x");
    pod.started("b", "y");
    pod.exits("a", "x", 1);
    assert_eq!(pod.summary(), "Running a=Error:1/0 b=running+/0");
    pod.exits("b", "y", 0);
    assert_eq!(pod.summary(), "Failed a=Error:1/0 b=Completed:0/0");
}

#[test]
fn crashes_back_off_and_recover() {
    let mut pod = Script::new(json!({"containers": [c("a")]})).with_events();
    pod.prepared();
    pod.runs("a", "x0");
    let mut waits = Vec::new();
    for attempt in 1..9 {
        pod.exits("a", &format!("x{}", attempt - 1), 1);
        let backing_off = pod.summary().contains("CrashLoopBackOff");
        waits.push(if backing_off { pod.sleep() } else { 0 });
        pod.runs("a", &format!("x{attempt}"));
    }
    assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    assert_eq!(pod.summary(), "Running a=running+/8");
    let log = pod.transcript();
    assert!(log.contains("event Warning BackOff Back-off restarting failed container a in pod web_ns(u1)"));
    assert!(log.contains("remove x0\n"), "old dead containers go");
    pod.after(601);
    pod.exits("a", "x8", 1);
    assert_eq!(pod.summary(), "Running a=Error:1/8", "it ran long enough to be trusted again");
}

#[test]
fn the_waiting_message_and_last_state() {
    let mut pod = Script::new(json!({"containers": [c("a")]}));
    pod.prepared();
    pod.runs("a", "x");
    pod.exits("a", "x", 1);
    pod.runs("a", "y");
    pod.exits("a", "y", 2);
    let a = pod.status().container_statuses.unwrap()[0].clone();
    let waiting = a.state.unwrap().waiting.unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
    assert_eq!(waiting.message.as_deref(), Some("back-off 10s restarting failed container=a pod=web_ns(u1)"));
    assert_eq!(a.last_state.unwrap().terminated.unwrap().exit_code, 2);
    assert_eq!(a.container_id.as_deref(), Some("kobune://y"));
}

#[test]
fn init_containers() {
    let run = |policy: &str, exit_code: i32| {
        let spec = json!({"initContainers": [c("i")], "containers": [c("a")], "restartPolicy": policy});
        let mut pod = Script::new(spec);
        pod.prepared();
        pod.runs("i", "x");
        pod.exits("i", "x", exit_code);
        pod.summary()
    };
    assert_eq!(run("Never", 1), "Failed i=Error:1/0 a=PodInitializing/0");
    assert_eq!(run("Always", 1), "Pending i=Error:1/0 a=PodInitializing/0");
    assert_eq!(run("OnFailure", 0), "Pending i=Completed:0+/0 a=PodInitializing/0");
}

#[test]
fn rules_of_a_container_come_before_the_pods_policy() {
    let rule = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
    let container =
        json!({"name": "a", "image": "img", "restartPolicy": "Never", "restartPolicyRules": rule});
    for (exit_code, want) in [(42, "Running a=Error:42/0"), (1, "Failed a=Error:1/0")] {
        let mut pod = Script::new(json!({"containers": [container], "restartPolicy": "Always"}));
        pod.prepared();
        pod.runs("a", "x");
        pod.exits("a", "x", exit_code);
        assert_eq!(pod.summary(), want);
    }
}

#[test]
fn a_pod_that_never_restarts_does_not_get_a_second_sandbox() {
    let mut pod = Script::new(json!({"containers": [c("a")], "restartPolicy": "Never"}));
    pod.prepared();
    pod.runs("a", "x");
    pod.transcript();
    pod.step(Event::SandboxStopped(SandboxId("s0".into())));
    pod.step(Event::SandboxStopped(SandboxId("s0".into())));
    assert!(!pod.transcript().contains("sandbox 1"));
    assert_eq!(pod.summary(), "Failed a=Error:137/0");
}

#[test]
fn many_random_histories_end_in_one_of_the_final_states() {
    for seed in 0..200_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let policy = ["Always", "OnFailure", "Never"][next(3) as usize];
        let mut pod = Script::new(
            json!({"initContainers": [c("i")], "containers": [c("a"), c("b")], "restartPolicy": policy}),
        );
        let mut pending = pod.listed();
        let mut counter = 0;
        for _ in 0..60 {
            if pending.is_empty() {
                if let Some(at) = pod.machine.next_wake() {
                    pod.now = at;
                    pending = pod.step(Event::Wake);
                    continue;
                }
                let running: Vec<_> = pod
                    .machine
                    .slots()
                    .iter()
                    .filter_map(|slot| Some((slot.name().to_owned(), slot.running()?.id.0.clone())))
                    .collect();
                if let Some((name, id)) = running.first() {
                    let state = exited(pod.now, next(2) as i32);
                    let (container, id) = (name.clone(), ContainerId(id.clone()));
                    pending = pod.step(Event::Exited { container, id, state, message: String::new() });
                }
                continue;
            }
            let effect = pending.remove(next(pending.len() as u64) as usize);
            for event in answers(effect, &mut next, &mut counter, pod.now) {
                pending.extend(pod.step(event));
            }
        }
        pending.extend(pod.delete(1));
        finish(&mut pod, pending);
        assert!(pod.log.ends_with("remove all\ndelete object\nforget\n"), "seed {seed}: {}", pod.log);
    }
}

/// What an executor might say to an effect: mostly good news.
fn answers(
    effect: Effect,
    next: &mut impl FnMut(u64) -> u64,
    counter: &mut u32,
    now: Timestamp,
) -> Vec<Event> {
    let lucky = next(4) > 0;
    match effect {
        Effect::MountVolumes if lucky => vec![Event::Volumes(Ok(()))],
        Effect::MountVolumes => vec![Event::Volumes(Err(vec![("v".into(), "x".into())]))],
        Effect::CreateSandbox { attempt } if lucky => vec![Event::Sandbox(Ok(Box::new(sandbox(attempt))))],
        Effect::CreateSandbox { .. } => vec![Event::Sandbox(Err("x".into()))],
        Effect::StopSandbox { id } => vec![Event::SandboxStopped(id)],
        Effect::FindImage { container, image } => {
            let found = Ok(lucky.then(super::image));
            vec![Event::ImageFound { container, image, found }]
        }
        Effect::PullImage { container, image } => {
            vec![Event::ImagePulled { container, image, pulled: Err(ImageFailure::Failed("x".into())) }]
        }
        Effect::StartContainer { container, .. } => {
            *counter += 1;
            let id = ContainerId(format!("c{counter}"));
            let created = Event::Created { container: container.clone(), id: id.clone() };
            let failure = StartFailure::Run;
            let end = if lucky {
                Event::Started { container, id, started_at: now, hook: false }
            } else {
                Event::StartFailed { container, id: Some(id), failure, message: "x".into() }
            };
            vec![created, end]
        }
        Effect::StopContainer { container, id, .. } => {
            vec![Event::Exited { container, id, state: exited(now, 143), message: String::new() }]
        }
        Effect::Release => vec![Event::Released(Ok(()))],
        Effect::Remove => vec![Event::Removed(Ok(()))],
        _ => Vec::new(),
    }
}

/// Answers everything that is asked until nothing is.
fn finish(pod: &mut Script, mut pending: Vec<Effect>) {
    let mut counter = 1000;
    pending.extend(pod.step(Event::Wake));
    let id = pod.machine.sandbox().map(|sandbox| sandbox.id.clone());
    let running: Vec<_> = pod
        .machine
        .slots()
        .iter()
        .filter_map(|slot| Some((slot.name().to_owned(), slot.running()?.id.clone())))
        .collect();
    for (container, id) in running {
        pending.extend(pod.step(Event::Exited {
            container,
            id,
            state: exited(pod.now, 143),
            message: String::new(),
        }));
    }
    for _ in 0..200 {
        let Some(effect) = pending.pop() else { break };
        let mut lucky = |_| 1;
        for event in answers(effect, &mut lucky, &mut counter, pod.now) {
            pending.extend(pod.step(event));
        }
    }
    if let Some(id) = id {
        let mut more = pod.step(Event::SandboxStopped(id));
        while let Some(effect) = more.pop() {
            let mut lucky = |_| 1;
            for event in answers(effect, &mut lucky, &mut counter, pod.now) {
                more.extend(pod.step(event));
            }
        }
    }
}
