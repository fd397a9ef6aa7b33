//! What a container is started with: command, arguments, variables.

use serde_json::{Value, json};

use crate::space::{BUSYBOX, Space, condition, container, shell, with};

/// A pod that prints its environment.
fn printed(space: &Space<'_>, more: Value) -> String {
    space.output("printer", json!({"containers": [with(bare(), more)]}))
}

/// No shell, which would drop what it cannot name.
fn bare() -> Value {
    json!({"name": "main", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["env"]})
}

fn has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|one| one == *line), "no {line:?} in\n{text}");
    }
}

// conformance: [sig-node] ConfigMap should be consumable via environment variable [NodeConformance]
// conformance: [sig-node] ConfigMap should be consumable via the environment [NodeConformance]
// conformance: [sig-node] ConfigMap should be consumable as environment variable names with various prefixes
pub fn variables_of_config_maps(space: &Space<'_>) {
    space.create(
        "configmaps",
        &json!({"metadata": {"name": "c"}, "data": {"data-1": "value-1", "data-2": "value-2", "p.x": "3"}}),
    );
    let from = |prefix: &str| json!({"prefix": prefix, "configMapRef": {"name": "c"}});
    let text = printed(
        space,
        json!({
            "env": [{"name": "CONFIG_DATA_1", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "data-1"}}}],
            "envFrom": [from(""), from("p-"), from("#$%&"), from("1-")],
        }),
    );
    has(&text, &["CONFIG_DATA_1=value-1", "data-1=value-1", "data-2=value-2", "p.x=3"]);
    has(&text, &["p-data-1=value-1", "#$%&data-2=value-2", "1-p.x=3"]);
}

// conformance: [sig-node] Secrets should be consumable from pods in env vars [NodeConformance]
// conformance: [sig-node] Secrets should be consumable via the environment [NodeConformance]
// conformance: [sig-node] Secrets should be consumable as environment variable names variable names with various prefixes
pub fn variables_of_secrets(space: &Space<'_>) {
    space.create(
        "secrets",
        &json!({"metadata": {"name": "s"}, "stringData": {"data-1": "value-1", "p_1": "v"}}),
    );
    let from = |prefix: &str| json!({"prefix": prefix, "secretRef": {"name": "s"}});
    let text = printed(
        space,
        json!({
            "env": [{"name": "SECRET_DATA", "valueFrom": {"secretKeyRef": {"name": "s", "key": "data-1"}}}],
            "envFrom": [from(""), from("p-"), from("#$%&"), from("1-")],
        }),
    );
    has(
        &text,
        &["SECRET_DATA=value-1", "data-1=value-1", "p_1=v", "p-data-1=value-1", "#$%&p_1=v", "1-p_1=v"],
    );
}

// conformance: [sig-node] Downward API should provide pod name, namespace and IP address as env vars [NodeConformance]
// conformance: [sig-node] Downward API should provide host IP as an env var [NodeConformance]
// conformance: [sig-node] Downward API should provide hostIPs as an env var [NodeConformance]
// conformance: [sig-node] Downward API should provide pod UID as env vars [NodeConformance]
pub fn variables_of_fields(space: &Space<'_>) {
    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let text = printed(
        space,
        json!({"env": [
            field("POD_NAME", "metadata.name"), field("POD_NAMESPACE", "metadata.namespace"),
            field("POD_UID", "metadata.uid"), field("POD_IP", "status.podIP"), field("HOST_IP", "status.hostIP"),
            field("HOST_IPS", "status.hostIPs"),
        ]}),
    );
    let pod = space.get("pods/printer");
    let word = |name: &str, value: &Value| format!("{name}={}", value.as_str().unwrap());
    let expected = [
        "POD_NAME=printer".to_owned(),
        format!("POD_NAMESPACE={}", space.name),
        word("POD_UID", &pod["metadata"]["uid"]),
        word("POD_IP", &pod["status"]["podIP"]),
        word("HOST_IP", &pod["status"]["hostIP"]),
        word("HOST_IPS", &pod["status"]["hostIPs"][0]["ip"]),
    ];
    has(&text, &expected.each_ref().map(String::as_str));
}

// conformance: [sig-node] Downward API should provide container's limits.cpu/memory and requests.cpu/memory as env vars [NodeConformance]
// conformance: [sig-node] Downward API should provide default limits.cpu/memory from node allocatable [NodeConformance]
pub fn variables_of_resources(space: &Space<'_>) {
    let of = |name: &str, resource: &str| json!({"name": name, "valueFrom": {"resourceFieldRef": {"resource": resource}}});
    let all = json!([
        of("CPU_LIMIT", "limits.cpu"),
        of("MEMORY_LIMIT", "limits.memory"),
        of("CPU_REQUEST", "requests.cpu"),
        of("MEMORY_REQUEST", "requests.memory")
    ]);
    let resources =
        json!({"requests": {"cpu": "250m", "memory": "32Mi"}, "limits": {"cpu": "1250m", "memory": "64Mi"}});
    let text = printed(space, json!({"env": all, "resources": resources}));
    has(&text, &["CPU_LIMIT=2", "MEMORY_LIMIT=67108864", "CPU_REQUEST=1", "MEMORY_REQUEST=33554432"]);
    let text = space.output("without", json!({"containers": [with(bare(), json!({"env": all}))]}));
    let node = space.rest.get("/api/v1/nodes")["items"][0]["status"]["allocatable"].clone();
    let kibibytes: u64 = node["memory"].as_str().unwrap().trim_end_matches("Ki").parse().unwrap();
    let memory = format!("MEMORY_LIMIT={}", kibibytes * 1024);
    let cpu = node["cpu"].as_str().unwrap();
    let cores = match cpu.strip_suffix('m') {
        Some(millis) => millis.parse::<u64>().unwrap().div_ceil(1000).to_string(),
        None => cpu.to_owned(),
    };
    has(&text, &[&memory, &format!("CPU_LIMIT={cores}")]);
}

// conformance: [sig-node] Containers should use the image defaults if command and args are blank [NodeConformance]
// conformance: [sig-node] Containers should be able to override the image's default arguments (container cmd) [NodeConformance]
// conformance: [sig-node] Containers should be able to override the image's default command (container entrypoint) [NodeConformance]
// conformance: [sig-node] Containers should be able to override the image's default command and arguments [NodeConformance]
pub fn commands_and_arguments(space: &Space<'_>) {
    // The image says: entrypoint `echo entrypoint`, command `default arguments`.
    let run = |name: &str, more: Value| {
        let base = json!({"name": "main", "image": super::ENTRYPOINT, "imagePullPolicy": "Never"});
        space.output(name, json!({"containers": [with(base, more)]}))
    };
    assert_eq!(run("blank", json!({})), "entrypoint default arguments\n");
    assert_eq!(
        run("arguments", json!({"args": ["override", "arguments"]})),
        "entrypoint override arguments\n"
    );
    assert_eq!(run("command", json!({"command": ["echo", "-n", "mine"]})), "mine");
    assert_eq!(run("both", json!({"command": ["echo"], "args": ["mine", "too"]})), "mine too\n");
}

// conformance: [sig-node] Variable Expansion should allow composing env vars into new env vars [NodeConformance]
// conformance: [sig-node] Variable Expansion should allow substituting values in a container's command [NodeConformance]
// conformance: [sig-node] Variable Expansion should allow substituting values in a container's args [NodeConformance]
pub fn variables_are_expanded(space: &Space<'_>) {
    let env = json!([{"name": "FOO", "value": "foo-value"}, {"name": "BAR", "value": "bar-value"},
        {"name": "FOOBAR", "value": "$(FOO);;$(BAR)"}, {"name": "KEPT", "value": "$(NONE) $$(FOO)"}]);
    has(&printed(space, json!({"env": env})), &["FOOBAR=foo-value;;bar-value", "KEPT=$(NONE) $(FOO)"]);
    let base =
        json!({"name": "main", "image": BUSYBOX, "env": [{"name": "TEST_VAR", "value": "test-value"}]});
    let command = with(base.clone(), json!({"command": ["sh", "-c", "TEST_VAR=wrong echo \"$(TEST_VAR)\""]}));
    assert_eq!(space.output("command", json!({"containers": [command]})), "test-value\n");
    let args = with(base, json!({"command": ["sh", "-c"], "args": ["TEST_VAR=wrong echo \"$(TEST_VAR)\""]}));
    assert_eq!(space.output("arguments", json!({"containers": [args]})), "test-value\n");
}

fn with_sub_path(script: &str, expression: &str, env: Value) -> Value {
    let main = with(
        shell("main", script),
        json!({"env": [env], "volumeMounts": [
            {"name": "work", "mountPath": "/logscontainer", "subPathExpr": expression},
            {"name": "work", "mountPath": "/testcontainer"}]}),
    );
    json!({"containers": [main], "volumes": [{"name": "work", "emptyDir": {}}]})
}

// conformance: [sig-node] Variable Expansion should allow substituting values in a volume subpath
pub fn a_sub_path_is_expanded(space: &Space<'_>) {
    let name = json!({"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}});
    let script =
        "test -d /testcontainer/expanded && echo x > /logscontainer/file && cat /testcontainer/expanded/file";
    assert_eq!(space.output("expanded", with_sub_path(script, "$(POD_NAME)", name)), "x\n");
}

fn never_starts(space: &Space<'_>, value: &str, expression: &str) {
    let env = json!({"name": "POD_NAME", "value": value});
    space.pod("failing", with_sub_path("true", expression, env));
    let reason = |pod: &Value| container(pod, "main")["state"]["waiting"]["reason"].clone();
    space.until("failing", "refused", |pod| reason(pod) == "CreateContainerConfigError");
}

// conformance: [sig-node] Variable Expansion should fail substituting values in a volume subpath with backticks
pub fn a_sub_path_does_not_lead_out(space: &Space<'_>) {
    never_starts(space, "..", "$(POD_NAME)");
}

// conformance: [sig-node] Variable Expansion should fail substituting values in a volume subpath with absolute path
pub fn a_sub_path_is_not_absolute(space: &Space<'_>) {
    never_starts(space, "/tmp", "$(POD_NAME)");
}

// conformance: [sig-node] Variable Expansion should verify that a failing subpath expansion can be modified during the lifecycle of a container [Slow]
pub fn a_failing_sub_path_is_mended(space: &Space<'_>) {
    let env = json!({"name": "ANNOTATION", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['mysubpath']"}}});
    let metadata = json!({"annotations": {"notmysubpath": "mypath"}});
    space.pod_with(
        "mended",
        metadata,
        with_sub_path(crate::space::IDLE, "$(ANNOTATION)/$(MISSING)", env.clone()),
    );
    let reason = |pod: &Value| container(pod, "main")["state"]["waiting"]["reason"].clone();
    space.until("mended", "refused", |pod| reason(pod) == "CreateContainerConfigError");
    let metadata = json!({"annotations": {"mysubpath": "/absolute"}});
    space.pod_with("second", metadata, with_sub_path(crate::space::IDLE, "$(ANNOTATION)", env));
    space.until("second", "refused", |pod| reason(pod) == "CreateContainerConfigError");
    space.patch("pods/second", &json!({"metadata": {"annotations": {"mysubpath": "mypath"}}}));
    let pod = space.ready("second");
    assert_eq!(container(&pod, "main")["restartCount"], 0);
    assert_eq!(space.exec("second", "main", &["ls", "/testcontainer"]), "mypath\n");
}

// conformance: [sig-node] Variable Expansion should succeed in writing subpaths in container
pub fn sub_paths_are_written(space: &Space<'_>) {
    let env = json!({"name": "ANNOTATION", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['mysubpath']"}}});
    let metadata = json!({"annotations": {"mysubpath": "mypath"}});
    space.pod_with(
        "writer",
        metadata,
        with_sub_path(crate::space::IDLE, "$(ANNOTATION)/$(POD)", json!({"name": "POD", "value": "foo"})),
    );
    // The annotation's variable is not there, so the pod waits; a pod that has both runs.
    let mut spec = with_sub_path(crate::space::IDLE, "$(ANNOTATION)/$(POD)", env);
    spec["containers"][0]["env"].as_array_mut().unwrap().push(json!({"name": "POD", "value": "foo"}));
    space.pod_with("good", json!({"annotations": {"mysubpath": "mypath"}}), spec);
    space.ready("good");
    space.exec("good", "main", &["touch", "/testcontainer/mypath/foo/test.log"]);
    space.exec("good", "main", &["test", "-f", "/logscontainer/test.log"]);
    space.patch("pods/good", &json!({"metadata": {"annotations": {"mysubpath": "mynewpath"}}}));
    let pod = space.ready("good");
    assert_eq!(container(&pod, "main")["restartCount"], 0);
    let waiting = &space.get("pods/writer")["status"]["containerStatuses"][0]["state"]["waiting"];
    assert_eq!(waiting["reason"], "CreateContainerConfigError", "{waiting}");
    space.delete("pods/good");
    space.wait("the pod is gone", || {
        (space.rest.call("GET", &space.path("pods/good"), None).0 == 404).then_some(())
    });
}

// conformance: [sig-node] Pods should contain environment variables for services [NodeConformance]
pub fn variables_of_services(space: &Space<'_>) {
    let service = space.create(
        "services",
        &json!({"metadata": {"name": "fooservice"}, "spec": {"selector": {"name": "x"}, "ports": [{"port": 8765, "targetPort": 8080}]}}),
    );
    let address = service["spec"]["clusterIP"].as_str().unwrap();
    // A pod learns of the services that were there when it began.
    let text = space.wait("the variables", || {
        let _old = space.rest.call("DELETE", &space.path("pods/printer?gracePeriodSeconds=0"), None);
        let text = printed(space, json!({}));
        text.contains("FOOSERVICE").then_some(text)
    });
    has(
        &text,
        &[
            &format!("FOOSERVICE_SERVICE_HOST={address}"),
            "FOOSERVICE_SERVICE_PORT=8765",
            &format!("FOOSERVICE_PORT=tcp://{address}:8765"),
            &format!("FOOSERVICE_PORT_8765_TCP=tcp://{address}:8765"),
            "FOOSERVICE_PORT_8765_TCP_PROTO=tcp",
            "FOOSERVICE_PORT_8765_TCP_PORT=8765",
            &format!("FOOSERVICE_PORT_8765_TCP_ADDR={address}"),
        ],
    );
}

// conformance: [sig-node] Pods should get a host IP [NodeConformance]
pub fn a_pod_knows_its_host(space: &Space<'_>) {
    space.pod("hosted", json!({"containers": [shell("main", crate::space::IDLE)]}));
    let pod = space.ready("hosted");
    assert!(pod["status"]["hostIP"].as_str().is_some_and(|ip| ip.parse::<std::net::IpAddr>().is_ok()));
    assert_eq!(condition(&pod, "PodScheduled"), "True");
}
