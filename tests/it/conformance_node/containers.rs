//! How containers run and end: statuses, messages, init containers, security, files that the kubelet manages.

use serde_json::{Value, json};

use crate::space::{IDLE, Space, condition, container, shell, with};

// conformance: [sig-node] Container Runtime blackbox test when starting a container that exits should run with the expected status [NodeConformance]
pub fn exits_and_restart_policies(space: &Space<'_>) {
    // The first run fails, the second succeeds, the third goes on.
    let script = "echo x >> /scratch/count; n=$(wc -l < /scratch/count); \
        if [ $n -eq 1 ]; then exit 1; fi; if [ $n -eq 2 ]; then exit 0; fi; while true; do sleep 0.2; done";
    let spec = |policy: &str| {
        let main =
            with(shell("main", script), json!({"volumeMounts": [{"name": "work", "mountPath": "/scratch"}]}));
        json!({"restartPolicy": policy, "containers": [main], "volumes": [{"name": "work", "emptyDir": {}}]})
    };
    for policy in ["Always", "OnFailure", "Never"] {
        space.pod(&policy.to_lowercase(), spec(policy));
    }
    let check = |name: &str, phase: &str, restarts: u64, ready: bool, state: &str| {
        let is_so = |pod: &Value| {
            let status = container(pod, "main");
            pod["status"]["phase"] == phase
                && status["restartCount"] == restarts
                && status["ready"] == ready
                && status["state"].get(state).is_some()
        };
        space.until(name, &format!("{phase} with {restarts} restarts, {state}"), is_so);
    };
    check("never", "Failed", 0, false, "terminated");
    check("onfailure", "Succeeded", 1, false, "terminated");
    check("always", "Running", 2, true, "running");
}

fn message_of(space: &Space<'_>, script: &str, more: Value, phase: &str) -> String {
    let base = with(shell("main", script), json!({"terminationMessagePath": "/dev/termination-log"}));
    space.pod("ending", json!({"containers": [with(base, more)]}));
    let pod = space.until("ending", phase, |pod| pod["status"]["phase"] == phase);
    container(&pod, "main")["state"]["terminated"]["message"].as_str().unwrap_or_default().to_owned()
}

// conformance: [sig-node] Container Runtime blackbox test on terminated container should report termination message if TerminationMessagePath is set as non-root user and at a non-default path [NodeConformance]
pub fn a_last_word_at_another_path(space: &Space<'_>) {
    let more = json!({"terminationMessagePath": "/dev/termination-custom-log", "securityContext": {"runAsUser": 1000}});
    assert_eq!(message_of(space, "echo -n DONE > /dev/termination-custom-log", more, "Succeeded"), "DONE");
}

// conformance: [sig-node] Container Runtime blackbox test on terminated container should report termination message from log output if TerminationMessagePolicy FallbackToLogsOnError is set [NodeConformance]
pub fn a_last_word_from_the_log(space: &Space<'_>) {
    let more = json!({"terminationMessagePolicy": "FallbackToLogsOnError"});
    assert_eq!(message_of(space, "echo -n DONE; exit 1", more, "Failed"), "DONE");
}

// conformance: [sig-node] Container Runtime blackbox test on terminated container should report termination message as empty when pod succeeds and TerminationMessagePolicy FallbackToLogsOnError is set [NodeConformance]
pub fn no_last_word_after_success(space: &Space<'_>) {
    let more = json!({"terminationMessagePolicy": "FallbackToLogsOnError"});
    assert_eq!(message_of(space, "echo -n DONE", more, "Succeeded"), "");
}

// conformance: [sig-node] Container Runtime blackbox test on terminated container should report termination message from file when pod succeeds and TerminationMessagePolicy FallbackToLogsOnError is set [NodeConformance]
pub fn a_last_word_from_the_file(space: &Space<'_>) {
    let more = json!({"terminationMessagePolicy": "FallbackToLogsOnError"});
    let script = "echo -n OK > /dev/termination-log; echo -n DONE";
    assert_eq!(message_of(space, script, more, "Succeeded"), "OK");
}

// conformance: [sig-node] Kubelet when scheduling a busybox command in a pod should print the output to logs [NodeConformance]
pub fn output_goes_to_the_log(space: &Space<'_>) {
    assert_eq!(
        space.output("talker", json!({"containers": [shell("main", "echo 'Hello World'")]})),
        "Hello World\n"
    );
}

// conformance: [sig-node] Kubelet when scheduling a busybox command that always fails in a pod should have an terminated reason [NodeConformance]
// conformance: [sig-node] Kubelet when scheduling a busybox command that always fails in a pod should be possible to delete [NodeConformance]
pub fn what_always_fails_has_a_reason_and_can_go(space: &Space<'_>) {
    space.pod("failing", json!({"restartPolicy": "Always", "containers": [shell("main", "false")]}));
    space.until("failing", "ended with a reason", |pod| {
        let status = container(pod, "main");
        let of = |state: &str| status[state]["terminated"]["reason"] == "Error";
        of("state") || of("lastState")
    });
    space.delete("pods/failing");
    space.wait("the pod is gone", || {
        (space.rest.call("GET", &space.path("pods/failing"), None).0 == 404).then_some(())
    });
}

// conformance: [sig-node] Kubelet when scheduling a read only busybox container should not write to root filesystem [LinuxOnly] [NodeConformance]
// conformance: [sig-node] Security Context When creating a pod with readOnlyRootFilesystem should run the container with writable rootfs when readOnlyRootFilesystem=false [NodeConformance]
pub fn the_root_is_writable_or_not(space: &Space<'_>) {
    let run = |name: &str, read_only: bool| {
        let main = with(
            shell("main", "echo test > /file; cat /file"),
            json!({"securityContext": {"readOnlyRootFilesystem": read_only}}),
        );
        space.pod(name, json!({"containers": [main]}));
        space.until(name, "over", |pod| container(pod, "main")["state"]["terminated"].is_object());
        space.logs(name, "")
    };
    assert_eq!(run("writable", false), "test\n");
    let said = run("sealed", true);
    assert!(said.contains("can't create /file: Read-only file system"), "{said}");
}

// conformance: [sig-node] Kubelet when scheduling an agnhost Pod with hostAliases should write entries to /etc/hosts [NodeConformance]
pub fn host_aliases(space: &Space<'_>) {
    let spec = json!({"hostAliases": [{"ip": "123.45.67.89", "hostnames": ["foo", "bar"]}],
        "containers": [shell("main", "cat /etc/hosts")]});
    let text = space.output("aliased", spec);
    let expected = "# Entries added by HostAliases.\n123.45.67.89\tfoo\tbar";
    assert!(text.contains(expected), "{text}");
}

// conformance: [sig-node] KubeletManagedEtcHosts should test kubelet managed /etc/hosts file [NodeConformance]
pub fn the_hosts_file_is_managed(space: &Space<'_>) {
    let original = json!({"name": "host", "mountPath": "/etc/hosts-original"});
    let plain = |name: &str| with(shell(name, IDLE), json!({"volumeMounts": [original]}));
    let own = json!({"name": "host", "mountPath": "/etc/hosts"});
    let mounted = with(shell("busybox-3", IDLE), json!({"volumeMounts": [original, own]}));
    let volumes = json!([{"name": "host", "hostPath": {"path": "/etc/hosts", "type": "File"}}]);
    space.pod(
        "managed",
        json!({"containers": [plain("busybox-1"), plain("busybox-2"), mounted], "volumes": volumes}),
    );
    space.pod(
        "host-network",
        json!({"hostNetwork": true, "containers": [plain("busybox-1"), plain("busybox-2")], "volumes": volumes}),
    );
    space.ready("managed");
    space.ready("host-network");
    for (pod, name, expected) in [
        ("managed", "busybox-1", true),
        ("managed", "busybox-2", true),
        ("managed", "busybox-3", false),
        ("host-network", "busybox-1", false),
        ("host-network", "busybox-2", false),
    ] {
        let text = space.exec(pod, name, &["cat", "/etc/hosts"]);
        let host = space.exec(pod, name, &["cat", "/etc/hosts-original"]);
        let managed = text.starts_with("# Kubernetes-managed hosts file.") && text != host;
        assert_eq!(managed, expected, "{pod} {name}\n{text}");
    }
}

fn initialized(pod: &Value) -> (String, String) {
    let all = pod["status"]["conditions"].as_array().unwrap();
    let found = all.iter().find(|condition| condition["type"] == "Initialized").unwrap();
    let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
    (text("reason"), text("message"))
}

fn succeeded(pod: &Value, name: &str) {
    let status = container(pod, name);
    assert_eq!(
        (&status["ready"], &status["state"]["terminated"]["exitCode"]),
        (&json!(true), &json!(0)),
        "{status}"
    );
}

// conformance: [sig-node] InitContainer [NodeConformance] should invoke init containers on a RestartNever pod
pub fn init_containers_then_the_end(space: &Space<'_>) {
    let init = json!([shell("init1", "true"), shell("init2", "true")]);
    space.pod("initialized", json!({"initContainers": init, "containers": [shell("run1", "true")]}));
    let pod = space.succeeded("initialized");
    assert_eq!(condition(&pod, "Initialized"), "True");
    for name in ["init1", "init2"] {
        succeeded(&pod, name);
    }
}

// conformance: [sig-node] InitContainer [NodeConformance] should invoke init containers on a RestartAlways pod
pub fn init_containers_then_running(space: &Space<'_>) {
    let init = json!([shell("init1", "true"), shell("init2", "true")]);
    let spec =
        json!({"restartPolicy": "Always", "initContainers": init, "containers": [shell("run1", IDLE)]});
    space.pod("initialized", spec);
    let pod = space.ready("initialized");
    assert_eq!((&pod["status"]["phase"], condition(&pod, "Initialized")), (&json!("Running"), "True"));
    for name in ["init1", "init2"] {
        succeeded(&pod, name);
    }
}

// conformance: [sig-node] InitContainer [NodeConformance] should not start app containers and fail the pod if init containers fail on a RestartNever pod
pub fn a_failed_init_container_fails_the_pod(space: &Space<'_>) {
    let init = json!([shell("init1", "true"), shell("init2", "false")]);
    space.pod("uninitialized", json!({"initContainers": init, "containers": [shell("run1", IDLE)]}));
    let pod = space.until("uninitialized", "failed", |pod| pod["status"]["phase"] == "Failed");
    let (reason, message) = initialized(&pod);
    assert_eq!(
        (reason.as_str(), message.as_str()),
        ("ContainersNotInitialized", "containers with incomplete status: [init2]")
    );
    assert_eq!(container(&pod, "run1")["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(container(&pod, "init2")["state"]["terminated"]["exitCode"], 1);
    let started = || space.events("uninitialized", "Started").len() == 2;
    space.wait("only the init containers have started", || started().then_some(()));
}

// conformance: [sig-node] InitContainer [NodeConformance] should not start app containers if init containers fail on a RestartAlways pod
pub fn a_failing_init_container_is_tried_again(space: &Space<'_>) {
    let init = json!([shell("init1", "false"), shell("init2", "true")]);
    let spec =
        json!({"restartPolicy": "Always", "initContainers": init, "containers": [shell("run1", IDLE)]});
    space.pod("uninitialized", spec);
    let pod = space.until("uninitialized", "tried three times", |pod| {
        container(pod, "init1")["restartCount"].as_u64() >= Some(3)
    });
    let (reason, message) = initialized(&pod);
    assert_eq!(pod["status"]["phase"], "Pending");
    assert_eq!(reason, "ContainersNotInitialized");
    assert_eq!(message, "containers with incomplete status: [init1 init2]");
    for name in ["init2", "run1"] {
        assert_eq!(container(&pod, name)["state"]["waiting"]["reason"], "PodInitializing", "{name}");
    }
}

fn told(space: &Space<'_>, name: &str, script: &str, pod: Value, own: Value) -> String {
    let main = with(shell("main", script), json!({"securityContext": own}));
    space.output(name, json!({"securityContext": pod, "containers": [main]}))
}

// conformance: [sig-node] Security Context When creating a container with runAsUser should run the container with uid 65534 [LinuxOnly] [NodeConformance]
// conformance: [sig-node] Security Context should support container.SecurityContext.RunAsUser And container.SecurityContext.RunAsGroup [LinuxOnly]
// conformance: [sig-node] Security Context should support pod.Spec.SecurityContext.RunAsUser And pod.Spec.SecurityContext.RunAsGroup [LinuxOnly]
pub fn users_and_groups(space: &Space<'_>) {
    assert_eq!(told(space, "uid", "id -u", json!({}), json!({"runAsUser": 65534})), "65534\n");
    let user = json!({"runAsUser": 1001, "runAsGroup": 2002});
    assert_eq!(told(space, "own", "id -u; id -g", json!({}), user.clone()), "1001\n2002\n");
    assert_eq!(told(space, "pods", "id -u; id -g", user, json!({})), "1001\n2002\n");
}

// conformance: [sig-node] Security Context When creating a pod with privileged should run the container as unprivileged when false [LinuxOnly] [NodeConformance]
pub fn unprivileged(space: &Space<'_>) {
    let script = "ip link add dummy0 type dummy || true";
    let said = told(space, "plain", script, json!({}), json!({"privileged": false}));
    assert!(said.contains("Operation not permitted"), "{said}");
}

// conformance: [sig-node] Security Context when creating containers with AllowPrivilegeEscalation should not allow privilege escalation when false [LinuxOnly] [NodeConformance]
pub fn no_new_privileges(space: &Space<'_>) {
    let own = json!({"runAsUser": 1000, "allowPrivilegeEscalation": false});
    let script = "grep NoNewPrivs /proc/self/status; id -u";
    assert_eq!(told(space, "kept-down", script, json!({}), own), "NoNewPrivs:\t1\n1000\n");
    let said = told(space, "allowed", script, json!({}), json!({"runAsUser": 1000}));
    assert_eq!(said, "NoNewPrivs:\t0\n1000\n");
}

// conformance: [sig-node] Sysctls [LinuxOnly] [NodeConformance] should support sysctls [Environment:NotInUserNS]
pub fn sysctls(space: &Space<'_>) {
    let context = json!({"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]});
    let said = told(space, "tuned", "cat /proc/sys/kernel/shm_rmid_forced", context, json!({}));
    assert_eq!(said, "1\n");
}

// conformance: [sig-node] Sysctls [LinuxOnly] [NodeConformance] should reject invalid sysctls
pub fn invalid_sysctls(space: &Space<'_>) {
    let names = ["foo-", "kernel.shmmax", "safe-and-unsafe", "bar.."];
    let list: Vec<_> = names.iter().map(|name| json!({"name": name, "value": "100000000"})).collect();
    let body = json!({"metadata": {"name": "odd"}, "spec": {"securityContext": {"sysctls": list},
        "containers": [shell("main", "true")]}});
    let (code, status) = space.rest.call("POST", &space.path("pods"), Some(&body));
    let message = status["message"].as_str().unwrap();
    assert_eq!(code, 422, "{message}");
    let has = |text: &str| assert!(message.contains(text), "{text} not in {message}");
    has(r#"Invalid value: "foo-""#);
    has(r#"Invalid value: "bar..""#);
    assert!(!message.contains("safe-and-unsafe") && !message.contains("kernel.shmmax"), "{message}");
}
