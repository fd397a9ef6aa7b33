//! A pod's life: hooks, probes, updates, ends, ephemeral containers, streams.

use serde_json::{Value, json};

use crate::space::{IDLE, Space, condition, container, shell, with};

/// A web server that says on its log what it was asked for.
fn handler(space: &Space<'_>) -> String {
    let script = "mkdir /tmp/www; echo ok | tee /tmp/www/poststart > /tmp/www/prestop; exec httpd -f -vv -p 8080 -h /tmp/www";
    let probe = json!({"readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}});
    space.pod("handler", json!({"containers": [with(shell("main", script), probe)]}));
    space.ready("handler")["status"]["podIP"].as_str().unwrap().to_owned()
}

fn with_hook(space: &Space<'_>, hook: Value) {
    let main = with(shell("main", IDLE), json!({"lifecycle": hook}));
    space.pod("hooked", json!({"terminationGracePeriodSeconds": 15, "containers": [main]}));
    space.ready("hooked");
}

fn gone(space: &Space<'_>, pod: &str) {
    let path = space.path(&format!("pods/{pod}"));
    space.wait(&format!("{pod} is gone"), || (space.rest.call("GET", &path, None).0 == 404).then_some(()));
}

// conformance: [sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute poststart exec hook properly [NodeConformance]
pub fn post_start_exec(space: &Space<'_>) {
    let address = handler(space);
    let command = format!("wget -q -O /dev/null 'http://{address}:8080/poststart'");
    with_hook(space, json!({"postStart": {"exec": {"command": ["sh", "-c", command]}}}));
    space.logged("handler", "main", &["url:/poststart"]);
}

// conformance: [sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute prestop exec hook properly [NodeConformance]
// conformance: [sig-node] PreStop should call prestop when killing a pod
pub fn pre_stop_exec(space: &Space<'_>) {
    let address = handler(space);
    let command = format!("wget -q -O /dev/null 'http://{address}:8080/prestop'");
    with_hook(space, json!({"preStop": {"exec": {"command": ["sh", "-c", command]}}}));
    space.delete("pods/hooked");
    space.logged("handler", "main", &["url:/prestop"]);
    gone(space, "hooked");
}

// conformance: [sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute poststart http hook properly [NodeConformance]
pub fn post_start_http(space: &Space<'_>) {
    let address = handler(space);
    let get = json!({"httpGet": {"path": "/poststart", "host": address, "port": 8080}});
    with_hook(space, json!({"postStart": get}));
    space.logged("handler", "main", &["url:/poststart"]);
}

// conformance: [sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute prestop http hook properly [NodeConformance]
pub fn pre_stop_http(space: &Space<'_>) {
    let address = handler(space);
    let get = json!({"httpGet": {"path": "/prestop", "host": address, "port": 8080}});
    with_hook(space, json!({"preStop": get}));
    space.delete("pods/hooked");
    space.logged("handler", "main", &["url:/prestop"]);
    gone(space, "hooked");
}

/// Hooks beyond the list: `sleep`, a failing postStart hook.
pub fn other_hooks(space: &Space<'_>) {
    with_hook(space, json!({"postStart": {"sleep": {"seconds": 1}}, "preStop": {"sleep": {"seconds": 1}}}));
    let failing = with(
        shell("main", "exec sleep 1000"),
        json!({"lifecycle": {"postStart": {"exec": {"command": ["false"]}}}}),
    );
    space.pod("failing", json!({"restartPolicy": "Never", "containers": [failing]}));
    space.until("failing", "failed", |pod| pod["status"]["phase"] == "Failed");
    let said = || space.events("failing", "FailedPostStartHook").len() == 1;
    space.wait("an event of it", || said().then_some(()));
    space.delete("pods/hooked");
    gone(space, "hooked");
}

fn probed(script: &str, kind: &str, probe: Value) -> Value {
    let base = json!({"periodSeconds": 1, "failureThreshold": 1});
    json!({"restartPolicy": "Always", "containers": [with(shell("main", script), json!({kind: with(base, probe)}))]})
}

fn restarts(pod: &Value) -> u64 {
    container(pod, "main")["restartCount"].as_u64().unwrap_or(0)
}

fn is_restarted(space: &Space<'_>, script: &str, probe: Value) {
    space.pod("probed", probed(script, "livenessProbe", probe));
    space.until("probed", "restarted", |pod| restarts(pod) >= 1);
}

/// A dozen probes go by without a restart.
fn is_left_alone(space: &Space<'_>, script: &str, probe: Value) {
    space.pod("probed", probed(script, "livenessProbe", with(json!({"failureThreshold": 3}), probe)));
    space.ready("probed");
    std::thread::sleep(std::time::Duration::from_secs(12));
    let pod = space.get("pods/probed");
    assert_eq!((restarts(&pod), condition(&pod, "Ready")), (0, "True"), "{}", pod["status"]);
}

const SERVER: &str = "mkdir -p /tmp/www; echo ok > /tmp/www/healthz; httpd -p 8080 -h /tmp/www; ";

fn http() -> Value {
    json!({"httpGet": {"path": "/healthz", "port": 8080}, "initialDelaySeconds": 1})
}

// conformance: [sig-node] Probing container should be restarted with a /healthz http liveness probe [NodeConformance]
pub fn http_liveness_fails(space: &Space<'_>) {
    is_restarted(space, &format!("{SERVER} sleep 5; rm /tmp/www/healthz; {IDLE}"), http());
}

// conformance: [sig-node] Probing container should *not* be restarted with a /healthz http liveness probe [NodeConformance]
pub fn http_liveness_holds(space: &Space<'_>) {
    is_left_alone(space, &format!("{SERVER} {IDLE}"), http());
}

// conformance: [sig-node] Probing container should *not* be restarted with a tcp:8080 liveness probe [NodeConformance]
pub fn tcp_liveness_holds(space: &Space<'_>) {
    is_left_alone(
        space,
        &format!("{SERVER} {IDLE}"),
        json!({"tcpSocket": {"port": 8080}, "initialDelaySeconds": 1}),
    );
}

// conformance: [sig-node] Probing container should be restarted with a exec "cat /tmp/health" liveness probe [NodeConformance]
pub fn exec_liveness_fails(space: &Space<'_>) {
    let probe = json!({"exec": {"command": ["cat", "/tmp/health"]}, "initialDelaySeconds": 2});
    is_restarted(space, &format!("echo ok > /tmp/health; sleep 5; rm /tmp/health; {IDLE}"), probe);
    space.wait("events of it", || (!space.events("probed", "Unhealthy").is_empty()).then_some(()));
}

// conformance: [sig-node] Probing container should *not* be restarted with a exec "cat /tmp/health" liveness probe [NodeConformance]
pub fn exec_liveness_holds(space: &Space<'_>) {
    let probe = json!({"exec": {"command": ["cat", "/tmp/health"]}, "initialDelaySeconds": 1});
    is_left_alone(space, &format!("echo ok > /tmp/health; {IDLE}"), probe);
}

/// A health service of few words: it answers every call on a connection's first stream with SERVING.
const GRPC: &str = r"cat > /tmp/serve <<'END'
sleep 0.2
printf '\000\000\000\004\000\000\000\000\000\000\000\000\004\001\000\000\000\000'
printf '\000\000\024\001\004\000\000\000\001\210\017\020\020application/grpc'
printf '\000\000\007\000\000\000\000\000\001\000\000\000\000\002\010\001'
printf '\000\000\017\001\005\000\000\000\001\000\013grpc-status\0010'
sleep 0.3
END
nc -ll -p 5000 -e sh /tmp/serve & ";

fn grpc(port: u16) -> Value {
    json!({"grpc": {"port": port}, "initialDelaySeconds": 1, "timeoutSeconds": 3})
}

// conformance: [sig-node] Probing container should *not* be restarted with a GRPC liveness probe [NodeConformance]
pub fn grpc_liveness_holds(space: &Space<'_>) {
    is_left_alone(space, &format!("{GRPC} {IDLE}"), grpc(5000));
}

// conformance: [sig-node] Probing container should be restarted with a GRPC liveness probe [NodeConformance]
pub fn grpc_liveness_fails(space: &Space<'_>) {
    is_restarted(space, &format!("{GRPC} {IDLE}"), grpc(2333));
}

// conformance: [sig-node] Probing container should have monotonically increasing restart count [NodeConformance]
pub fn restart_counts_only_grow(space: &Space<'_>) {
    space.pod("probed", probed(IDLE, "livenessProbe", http()));
    let last = std::cell::Cell::new(0);
    space.until("probed", "restarted four times", |pod| {
        let count = restarts(pod);
        assert!(count == last.get() || count == last.get() + 1, "{} → {count}", last.get());
        last.set(count);
        count >= 4
    });
}

// conformance: [sig-node] Probing container with readiness probe should not be ready before initial delay and never restart [NodeConformance]
pub fn readiness_waits_for_its_delay(space: &Space<'_>) {
    let probe = json!({"exec": {"command": ["true"]}, "initialDelaySeconds": 8});
    space.pod("probed", probed(IDLE, "readinessProbe", probe));
    let running =
        space.until("probed", "running", |pod| container(pod, "main")["state"]["running"].is_object());
    assert_eq!(condition(&running, "Ready"), "False");
    let pod = space.ready("probed");
    let at = |text: &Value| {
        let text = text.as_str().unwrap();
        let [h, m, s] = [11..13, 14..16, 17..19].map(|range| text[range].parse::<i64>().unwrap());
        h * 3600 + m * 60 + s
    };
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready").unwrap();
    let waited =
        at(&ready["lastTransitionTime"]) - at(&container(&pod, "main")["state"]["running"]["startedAt"]);
    assert!((7..60).contains(&waited.rem_euclid(86_400)), "{waited}");
    assert_eq!(restarts(&pod), 0);
}

// conformance: [sig-node] Probing container with readiness probe that fails should never be ready and never restart [NodeConformance]
pub fn failing_readiness(space: &Space<'_>) {
    let probe = json!({"exec": {"command": ["false"]}, "initialDelaySeconds": 1});
    space.pod("probed", probed(IDLE, "readinessProbe", probe));
    space.running("probed");
    for _ in 0..20 {
        let pod = space.get("pods/probed");
        assert_eq!((condition(&pod, "Ready"), restarts(&pod)), ("False", 0));
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
}

/// Beyond the list: a startup probe holds the others back; a readiness gate holds the pod back.
pub fn startup_probes_and_readiness_gates(space: &Space<'_>) {
    let script = format!("sleep 3; touch /tmp/started; {IDLE}");
    let main = with(
        shell("main", &script),
        json!({"startupProbe": {"exec": {"command": ["test", "-f", "/tmp/started"]}, "periodSeconds": 1, "failureThreshold": 30},
            "livenessProbe": {"exec": {"command": ["test", "-f", "/tmp/started"]}, "periodSeconds": 1, "failureThreshold": 1}}),
    );
    let gates = json!([{"conditionType": "example.org/gate"}]);
    space.pod("gated", json!({"restartPolicy": "Always", "containers": [main], "readinessGates": gates}));
    let pod =
        space.until("gated", "ready but for its gate", |pod| condition(pod, "ContainersReady") == "True");
    assert_eq!((condition(&pod, "Ready"), restarts(&pod)), ("False", 0));
    let gate = json!({"status": {"conditions": [{"type": "example.org/gate", "status": "True"}]}});
    let path = space.path("pods/gated/status");
    let (code, answer) = space.rest.strategic(&path, &gate);
    assert_eq!(code, 200, "{answer}");
    space.ready("gated");
}

// conformance: [sig-node] Ephemeral Containers [NodeConformance] will start an ephemeral container in an existing pod
// conformance: [sig-node] Ephemeral Containers [NodeConformance] should update the ephemeral containers in an existing pod
pub fn ephemeral_containers(space: &Space<'_>) {
    space.pod("debugged", json!({"containers": [shell("main", IDLE)]}));
    space.ready("debugged");
    let debugger = |name: &str, more: Value| {
        with(
            with(shell(name, "while true; do echo polo; sleep 1; done"), json!({"stdin": true, "tty": true})),
            more,
        )
    };
    let path = space.path("pods/debugged/ephemeralcontainers");
    let patch = json!({"spec": {"ephemeralContainers": [debugger("debugger", json!({"targetContainerName": "main"}))]}});
    let (code, answer) = space.rest.strategic(&path, &patch);
    assert_eq!(code, 200, "{answer}");
    let runs = |name: &'static str| move |pod: &Value| container(pod, name)["state"]["running"].is_object();
    space.until("debugged", "being debugged", runs("debugger"));
    space.logged("debugged", "debugger", &["polo"]);
    assert!(space.exec("debugged", "debugger", &["ps"]).contains("trap"), "it sees the target's processes");
    let mut pod = space.get("pods/debugged");
    let list = pod["spec"]["ephemeralContainers"].as_array_mut().unwrap();
    assert_eq!(list.len(), 1);
    list.push(debugger("debugger2", json!({})));
    let updated = space.rest.ok("PUT", &path, Some(&pod));
    assert_eq!(updated["spec"]["ephemeralContainers"].as_array().unwrap().len(), 2);
    let pod = space.until("debugged", "being debugged twice", runs("debugger2"));
    assert_eq!(pod["status"]["phase"], "Running");
}

// conformance: [sig-node] Pods should be submitted and removed [NodeConformance]
pub fn submitted_and_removed(space: &Space<'_>) {
    let version = space.get("pods?labelSelector=time%3Dx")["metadata"]["resourceVersion"].clone();
    let spec = json!({"terminationGracePeriodSeconds": 30, "containers": [shell("main", IDLE)]});
    space.pod_with("short", json!({"labels": {"time": "x"}}), spec);
    assert_eq!(space.get("pods?labelSelector=time%3Dx")["items"].as_array().unwrap().len(), 1);
    space.ready("short");
    space.delete("pods/short?gracePeriodSeconds=30");
    gone(space, "short");
    let query = format!(
        "pods?watch=1&labelSelector=time%3Dx&resourceVersion={}&timeoutSeconds=1",
        version.as_str().unwrap()
    );
    let seen = space.rest.lines(&space.path(&query));
    let kinds: Vec<_> = seen.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!((kinds.first(), kinds.last()), (Some(&"ADDED"), Some(&"DELETED")), "{kinds:?}");
    assert!(seen.last().unwrap()["object"]["metadata"]["deletionTimestamp"].is_string());
}

// conformance: [sig-node] Pods should be updated [NodeConformance]
pub fn updated(space: &Space<'_>) {
    space.pod_with(
        "changing",
        json!({"labels": {"time": "a"}}),
        json!({"containers": [shell("main", IDLE)]}),
    );
    space.ready("changing");
    let mut pod = space.get("pods/changing");
    pod["metadata"]["labels"]["time"] = json!("b");
    space.rest.ok("PUT", &space.path("pods/changing"), Some(&pod));
    assert_eq!(space.get("pods?labelSelector=time%3Db")["items"].as_array().unwrap().len(), 1);
    assert_eq!(space.get("pods/changing")["status"]["phase"], "Running");
}

// conformance: [sig-node] Pods should allow activeDeadlineSeconds to be updated [NodeConformance]
pub fn the_deadline_is_updated(space: &Space<'_>) {
    space.pod("late", json!({"containers": [shell("main", IDLE)]}));
    space.ready("late");
    let mut pod = space.get("pods/late");
    pod["spec"]["activeDeadlineSeconds"] = json!(5);
    pod["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    space.rest.ok("PUT", &space.path("pods/late"), Some(&pod));
    let pod = space.until("late", "failed", |pod| pod["status"]["phase"] == "Failed");
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
}

// conformance: [sig-node] Pods Extended Pods Set QOS Class should be set on Pods with matching resource requests and limits for memory and cpu
pub fn the_class_is_set(space: &Space<'_>) {
    let amounts = json!({"cpu": "10m", "memory": "32Mi"});
    let main = with(shell("main", IDLE), json!({"resources": {"requests": amounts, "limits": amounts}}));
    space.pod("guaranteed", json!({"containers": [main]}));
    assert_eq!(space.get("pods/guaranteed")["status"]["qosClass"], "Guaranteed");
}

// conformance: [sig-node] Pods should delete a collection of pods
pub fn a_collection_is_deleted(space: &Space<'_>) {
    for name in ["a", "b", "c"] {
        space.pod_with(
            name,
            json!({"labels": {"type": "Testing"}}),
            json!({"containers": [shell("main", IDLE)]}),
        );
    }
    let list = "pods?labelSelector=type%3DTesting";
    assert_eq!(space.get(list)["items"].as_array().unwrap().len(), 3);
    space.delete(list);
    space.wait("all are gone", || space.get(list)["items"].as_array().unwrap().is_empty().then_some(()));
}

// conformance: [sig-node] Pods should patch a pod status
pub fn the_status_is_patched(space: &Space<'_>) {
    space.pod("patched", json!({"containers": [shell("main", IDLE)]}));
    space.ready("patched");
    let patch = json!({"metadata": {"annotations": {"patched": "yes"}}, "status": {"message": "Patched by e2e test", "reason": "E2E"}});
    let path = space.path("pods/patched/status");
    let (code, pod) = space.rest.strategic(&path, &patch);
    assert_eq!(code, 200, "{pod}");
    assert_eq!(
        (&pod["status"]["message"], &pod["status"]["reason"]),
        (&json!("Patched by e2e test"), &json!("E2E"))
    );
}

// conformance: [sig-node] Pods should run through the lifecycle of Pods and PodStatus
pub fn the_life_of_a_pod_and_its_status(space: &Space<'_>) {
    let version = space.get("pods")["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    space.pod_with(
        "static",
        json!({"labels": {"test-pod-static": "true"}}),
        json!({"restartPolicy": "Always", "containers": [shell("main", IDLE)]}),
    );
    space.ready("static");
    let patch = json!({"metadata": {"labels": {"test-pod": "patched"}}, "spec": {"containers": [{"name": "main", "image": super::OTHER_NAME}]}});
    let (code, pod) = space.rest.strategic(&space.path("pods/static"), &patch);
    assert_eq!((code, &pod["metadata"]["labels"]["test-pod"]), (200, &json!("patched")), "{pod}");
    space.until("static", "running with its new image", |pod| {
        container(pod, "main")["image"] == super::OTHER_NAME && condition(pod, "Ready") == "True"
    });
    // The status is replaced; the kubelet does not insist on what it did not change.
    let path = space.path("pods/static/status");
    let (code, status) = space.wait("an update without conflict", || {
        let mut pod = space.rest.get(&path);
        for condition in pod["status"]["conditions"].as_array_mut().unwrap() {
            if condition["type"] == "Ready" {
                condition["status"] = json!("False");
            }
        }
        let answer = space.rest.call("PUT", &path, Some(&pod));
        (answer.0 == 200).then_some(answer)
    });
    assert_eq!((code, condition(&status, "Ready")), (200, "False"));
    space.delete("pods?labelSelector=test-pod-static%3Dtrue");
    gone(space, "static");
    let query = format!(
        "pods?watch=1&labelSelector=test-pod-static%3Dtrue&resourceVersion={version}&timeoutSeconds=1"
    );
    let kinds: Vec<_> = space
        .rest
        .lines(&space.path(&query))
        .iter()
        .map(|e| e["type"].as_str().unwrap().to_owned())
        .collect();
    for kind in ["ADDED", "MODIFIED", "DELETED"] {
        assert!(kinds.iter().any(|one| one == kind), "{kinds:?}");
    }
}

// conformance: [sig-node] Pods Extended (pod generation) Pod Generation pod generation should start at 1 and increment per update [MinimumKubeletVersion:1.34]
pub fn generations_count_changes(space: &Space<'_>) {
    let amounts = json!({"cpu": "10m", "memory": "32Mi"});
    let main = with(shell("main", IDLE), json!({"resources": {"requests": amounts, "limits": amounts}}));
    let pod = space.pod("counted", json!({"containers": [main]}));
    assert_eq!(pod["metadata"]["generation"], 1);
    space.ready("counted");
    let path = space.path("pods/counted");
    let change = |sub: &str, patch: Value, expected: u64| {
        let (code, pod) = space.rest.strategic(&format!("{path}{sub}"), &patch);
        assert_eq!((code, &pod["metadata"]["generation"]), (200, &json!(expected)), "{patch} {pod}");
        space.until("counted", &format!("observed at {expected}"), |pod| {
            pod["status"]["observedGeneration"] == expected
        });
    };
    change("", json!({"spec": {"containers": [{"name": "main", "image": super::OTHER_NAME}]}}), 2);
    change("", json!({"spec": {"activeDeadlineSeconds": 4000}}), 3);
    let toleration = json!({"key": "foo-x", "operator": "Equal", "value": "bar", "effect": "NoSchedule"});
    let mut tolerations =
        space.get("pods/counted")["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
    tolerations.push(toleration);
    change("", json!({"spec": {"tolerations": tolerations}}), 4);
    change("", json!({"metadata": {"labels": {"a": "b"}}}), 4);
    change("/status", json!({"status": {"message": "x"}}), 4);
    let more = json!({"cpu": "20m", "memory": "64Mi"});
    change(
        "/resize",
        json!({"spec": {"containers": [{"name": "main", "resources": {"requests": more, "limits": more}}]}}),
        5,
    );
    change("/ephemeralcontainers", json!({"spec": {"ephemeralContainers": [shell("debugger", IDLE)]}}), 6);
}

// conformance: [sig-node] Pods Extended (pod generation) Pod Generation custom-set generation on new pods and graceful delete
pub fn generations_are_not_chosen(space: &Space<'_>) {
    let pod = space.pod_with(
        "chosen",
        json!({"generation": 100, "finalizers": ["example.org/kept"]}),
        json!({"terminationGracePeriodSeconds": 5, "containers": [shell("main", IDLE)]}),
    );
    assert_eq!(pod["metadata"]["generation"], 1);
    space.ready("chosen");
    space.delete("pods/chosen");
    assert_eq!(space.get("pods/chosen")["metadata"]["generation"], 2);
    space.until("chosen", "observed at its end", |pod| pod["status"]["observedGeneration"] == 2);
    space.patch("pods/chosen", &json!({"metadata": {"finalizers": null}}));
    gone(space, "chosen");
}

// conformance: [sig-node] Pods Extended (pod generation) Pod Generation issue 500 podspec updates and verify generation and observedGeneration eventually converge [MinimumKubeletVersion:1.34]
pub fn five_hundred_updates(space: &Space<'_>) {
    space.pod("busy", json!({"activeDeadlineSeconds": 6000, "containers": [shell("main", IDLE)]}));
    space.ready("busy");
    for step in 1..=500 {
        space.patch("pods/busy", &json!({"spec": {"activeDeadlineSeconds": 6000 - step}}));
    }
    let pod = space.until("busy", "observed", |pod| pod["status"]["observedGeneration"] == 501);
    assert_eq!(pod["metadata"]["generation"], 501);
}

// conformance: [sig-node] Pods should support remote command execution over websockets [NodeConformance]
// conformance: [sig-node] Pods should support retrieving logs from the container over websockets [NodeConformance]
pub fn commands_and_logs_over_websockets(space: &Space<'_>) {
    let script = format!("echo container is alive; {IDLE}");
    space.pod("talker", json!({"containers": [shell("main", &script)]}));
    space.ready("talker");
    let command = "command=echo&command=remote&command=execution&command=test";
    let path = space.path(&format!("pods/talker/exec?stdout=1&stderr=1&container=main&{command}"));
    let frames = space.rest.websocket(&path, "channel.k8s.io");
    let said: Vec<u8> = frames
        .iter()
        .filter(|frame| frame.first() == Some(&1))
        .flat_map(|frame| frame[1..].to_vec())
        .collect();
    assert_eq!(String::from_utf8_lossy(&said), "remote execution test\n", "{frames:?}");
    let path = space.path("pods/talker/log?container=main");
    let frames = space.rest.websocket(&path, "binary.k8s.io");
    assert_eq!(String::from_utf8_lossy(&frames.concat()), "container is alive\n");
}
