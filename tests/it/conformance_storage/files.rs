//! Files from the API: config maps, secrets, the downward API, alone and projected together.

use serde_json::{Value, json};

use crate::space::{IDLE, Space, shell, with};

/// The same source as a volume of its own kind, and as part of a projected one.
fn forms(source: &Value) -> [Value; 2] {
    let alone = source.clone();
    let mut part = source.clone();
    let (kind, inner) = part.as_object_mut().unwrap().iter_mut().next().unwrap();
    // Modes belong to the projected volume, and its secrets have a `name`.
    let mode = inner.as_object_mut().unwrap().remove("defaultMode");
    if kind == "secret"
        && let Some(name) = inner.as_object_mut().unwrap().remove("secretName")
    {
        inner["name"] = name;
    }
    let mut projected = json!({"sources": [part]});
    if let Some(mode) = mode {
        projected["defaultMode"] = mode;
    }
    [alone, json!({"projected": projected})]
}

/// Prints mode, owner and content of every file below `/etc/volume`.
const SHOW: &str = "cd /etc/volume; find . -follow -type f -not -path './..*' | sort | while read f; do \
    stat -L -c '%n %a %u %g' $f; cat $f; echo; done";

fn shown(space: &Space<'_>, name: &str, volume: &Value, pod: Value, own: Value) -> String {
    let mount = json!({"volumeMounts": [{"name": "v", "mountPath": "/etc/volume", "readOnly": true}]});
    let main = with(with(shell("main", SHOW), mount), own);
    let spec = json!({"containers": [main], "volumes": [with(volume.clone(), json!({"name": "v"}))]});
    space.output(name, with(spec, pod))
}

/// What both forms of the source show.
fn both(space: &Space<'_>, name: &str, source: Value, pod: Value, expected: &str) {
    for (form, volume) in forms(&source).iter().enumerate() {
        let text = shown(space, &format!("{name}-{form}"), volume, pod.clone(), json!({}));
        assert_eq!(text, expected, "{volume}");
    }
}

fn non_root() -> Value {
    json!({"securityContext": {"runAsUser": 1000}})
}

fn map(space: &Space<'_>) {
    space.create(
        "configmaps",
        &json!({"metadata": {"name": "m"}, "data": {"data-1": "value-1", "data-2": "value-2"}}),
    );
}

fn secret(space: &Space<'_>) {
    space.create("secrets", &json!({"metadata": {"name": "s"}, "stringData": {"data-1": "value-1"}}));
}

// conformance: [sig-storage] ConfigMap should be consumable from pods in volume [NodeConformance]
// conformance: [sig-storage] ConfigMap should be consumable from pods in volume as non-root [NodeConformance]
// conformance: [sig-storage] ConfigMap should be consumable from pods in volume with defaultMode set [LinuxOnly] [NodeConformance]
// conformance: [sig-storage] ConfigMap should be consumable from pods in volume with mappings [NodeConformance]
// conformance: [sig-storage] ConfigMap should be consumable from pods in volume with mappings as non-root [NodeConformance]
// conformance: [sig-storage] ConfigMap should be consumable from pods in volume with mappings and Item mode set [LinuxOnly] [NodeConformance]
// conformance: [sig-storage] Projected configMap should be consumable from pods in volume [NodeConformance]
// conformance: [sig-storage] Projected configMap should be consumable from pods in volume as non-root [NodeConformance]
// conformance: [sig-storage] Projected configMap should be consumable from pods in volume with defaultMode set [LinuxOnly] [NodeConformance]
// conformance: [sig-storage] Projected configMap should be consumable from pods in volume with mappings [NodeConformance]
// conformance: [sig-storage] Projected configMap should be consumable from pods in volume with mappings as non-root [NodeConformance]
// conformance: [sig-storage] Projected configMap should be consumable from pods in volume with mappings and Item mode set [LinuxOnly] [NodeConformance]
pub fn config_maps(space: &Space<'_>) {
    map(space);
    let whole = "./data-1 644 0 0\nvalue-1\n./data-2 644 0 0\nvalue-2\n";
    both(space, "plain", json!({"configMap": {"name": "m"}}), json!({}), whole);
    both(space, "user", json!({"configMap": {"name": "m"}}), non_root(), whole);
    let moded = "./data-1 400 0 0\nvalue-1\n./data-2 400 0 0\nvalue-2\n";
    both(space, "mode", json!({"configMap": {"name": "m", "defaultMode": 0o400}}), json!({}), moded);
    let items = json!([{"key": "data-2", "path": "path/to/data-2"}]);
    let mapped = "./path/to/data-2 644 0 0\nvalue-2\n";
    both(space, "mapped", json!({"configMap": {"name": "m", "items": items}}), json!({}), mapped);
    both(space, "mapped-user", json!({"configMap": {"name": "m", "items": items}}), non_root(), mapped);
    let items = json!([{"key": "data-2", "path": "path/to/data-2", "mode": 0o400}]);
    let mapped = "./path/to/data-2 400 0 0\nvalue-2\n";
    both(space, "mapped-mode", json!({"configMap": {"name": "m", "items": items}}), json!({}), mapped);
}

// conformance: [sig-storage] Secrets should be consumable from pods in volume [NodeConformance]
// conformance: [sig-storage] Secrets should be consumable from pods in volume with defaultMode set [LinuxOnly] [NodeConformance]
// conformance: [sig-storage] Secrets should be consumable from pods in volume as non-root with defaultMode and fsGroup set [LinuxOnly] [NodeConformance]
// conformance: [sig-storage] Secrets should be consumable from pods in volume with mappings [NodeConformance]
// conformance: [sig-storage] Secrets should be consumable from pods in volume with mappings and Item Mode set [LinuxOnly] [NodeConformance]
// conformance: [sig-storage] Projected secret should be consumable from pods in volume [NodeConformance]
// conformance: [sig-storage] Projected secret should be consumable from pods in volume with defaultMode set [LinuxOnly] [NodeConformance]
// conformance: [sig-storage] Projected secret should be consumable from pods in volume as non-root with defaultMode and fsGroup set [LinuxOnly] [NodeConformance]
// conformance: [sig-storage] Projected secret should be consumable from pods in volume with mappings [NodeConformance]
// conformance: [sig-storage] Projected secret should be consumable from pods in volume with mappings and Item Mode set [LinuxOnly] [NodeConformance]
pub fn secrets(space: &Space<'_>) {
    secret(space);
    both(space, "plain", json!({"secret": {"secretName": "s"}}), json!({}), "./data-1 644 0 0\nvalue-1\n");
    let moded = json!({"secret": {"secretName": "s", "defaultMode": 0o400}});
    both(space, "mode", moded, json!({}), "./data-1 400 0 0\nvalue-1\n");
    let moded = json!({"secret": {"secretName": "s", "defaultMode": 0o440}});
    let grouped = json!({"securityContext": {"runAsUser": 1000, "fsGroup": 1001}});
    both(space, "group", moded, grouped, "./data-1 440 0 1001\nvalue-1\n");
    let items = json!([{"key": "data-1", "path": "new-path-data-1"}]);
    let mapped = json!({"secret": {"secretName": "s", "items": items}});
    both(space, "mapped", mapped, json!({}), "./new-path-data-1 644 0 0\nvalue-1\n");
    let items = json!([{"key": "data-1", "path": "new-path-data-1", "mode": 0o400}]);
    let mapped = json!({"secret": {"secretName": "s", "items": items}});
    both(space, "mapped-mode", mapped, json!({}), "./new-path-data-1 400 0 0\nvalue-1\n");
}

// conformance: [sig-storage] Secrets should be able to mount in a volume regardless of a different secret existing with same name in different namespace [NodeConformance]
pub fn a_secret_of_the_same_name_elsewhere(space: &Space<'_>) {
    secret(space);
    let other = Space::new(space.cluster, space.rest, "secret-of-the-same-name");
    other.create("secrets", &json!({"metadata": {"name": "s"}, "stringData": {"data-1": "other"}}));
    both(space, "own", json!({"secret": {"secretName": "s"}}), json!({}), "./data-1 644 0 0\nvalue-1\n");
    other.rest.ok("DELETE", &format!("/api/v1/namespaces/{}", other.name), None);
}

// conformance: [sig-storage] ConfigMap should be consumable in multiple volumes in the same pod [NodeConformance]
// conformance: [sig-storage] Projected configMap should be consumable in multiple volumes in the same pod [NodeConformance]
// conformance: [sig-storage] Secrets should be consumable in multiple volumes in a pod [NodeConformance]
// conformance: [sig-storage] Projected secret should be consumable in multiple volumes in a pod [NodeConformance]
pub fn in_several_volumes(space: &Space<'_>) {
    map(space);
    secret(space);
    for (kind, source) in
        [("map", json!({"configMap": {"name": "m"}})), ("secret", json!({"secret": {"secretName": "s"}}))]
    {
        for (form, volume) in forms(&source).iter().enumerate() {
            let mounts = json!([{"name": "one", "mountPath": "/one"}, {"name": "two", "mountPath": "/two"}]);
            let main = with(shell("main", "cat /one/data-1 /two/data-1"), json!({"volumeMounts": mounts}));
            let volumes: Vec<_> =
                ["one", "two"].iter().map(|name| with(volume.clone(), json!({"name": name}))).collect();
            let spec = json!({"containers": [main], "volumes": volumes});
            assert_eq!(space.output(&format!("{kind}-{form}"), spec), "value-1value-1");
        }
    }
}

// conformance: [sig-storage] ConfigMap binary data should be reflected in volume [NodeConformance]
pub fn binary_data(space: &Space<'_>) {
    let body = json!({"metadata": {"name": "m"}, "data": {"data-1": "value-1"}, "binaryData": {"dump.bin": "3sr+DAo="}});
    space.create("configmaps", &body);
    let mount = json!({"volumeMounts": [{"name": "v", "mountPath": "/etc/volume"}]});
    let main = with(shell("main", "cat /etc/volume/data-1; hexdump -C /etc/volume/dump.bin"), mount);
    let spec = json!({"containers": [main], "volumes": [{"name": "v", "configMap": {"name": "m"}}]});
    let text = space.output("reader", spec);
    assert!(text.starts_with("value-1") && text.contains("de ca fe 0c 0a"), "{text}");
}

/// A pod that has both forms of the source mounted at `/0` and `/1`.
fn reader(space: &Space<'_>, source: &Value) {
    let mounts = json!([{"name": "v0", "mountPath": "/0"}, {"name": "v1", "mountPath": "/1"}]);
    let main = with(shell("main", IDLE), json!({"volumeMounts": mounts}));
    let [alone, projected] = forms(source);
    let volumes = json!([with(alone, json!({"name": "v0"})), with(projected, json!({"name": "v1"}))]);
    let metadata = json!({"labels": {"key1": "value1"}, "annotations": {"builder": "bar"}});
    space.pod_with("reader", metadata, json!({"containers": [main], "volumes": volumes}));
    space.ready("reader");
}

fn becomes(space: &Space<'_>, file: &str, expected: &str) {
    for form in [0, 1] {
        let script = format!("cat /{form}/{file} 2>&1 || true");
        let read = || space.exec("reader", "main", &["sh", "-c", &script]);
        space.wait(&format!("/{form}/{file} is {expected:?}"), || read().contains(expected).then_some(()));
    }
}

// conformance: [sig-storage] ConfigMap updates should be reflected in volume [NodeConformance]
// conformance: [sig-storage] Projected configMap updates should be reflected in volume [NodeConformance]
pub fn updates(space: &Space<'_>) {
    map(space);
    reader(space, &json!({"configMap": {"name": "m"}}));
    becomes(space, "data-1", "value-1");
    space.patch("configmaps/m", &json!({"data": {"data-1": "value-2"}}));
    becomes(space, "data-1", "value-2");
}

fn optional_updates(space: &Space<'_>, kind: &str, source: &str, name: &str, value: fn(&str) -> Value) {
    let make = |object: &str, key: &str| {
        let body = json!({"metadata": {"name": object}, "data": {key: value("value-1")}});
        space.create(kind, &body);
    };
    make("del", "data-1");
    make("upd", "data-1");
    let mut mounts = Vec::new();
    let mut volumes = Vec::new();
    for object in ["del", "upd", "create"] {
        for (form, volume) in forms(&json!({source: {name: object, "optional": true}})).iter().enumerate() {
            mounts.push(json!({"name": format!("{object}{form}"), "mountPath": format!("/{form}/{object}")}));
            volumes.push(with(volume.clone(), json!({"name": format!("{object}{form}")})));
        }
    }
    let main = with(shell("main", IDLE), json!({"volumeMounts": mounts}));
    space.pod("reader", json!({"containers": [main], "volumes": volumes}));
    space.ready("reader");
    becomes(space, "create/data-1", "No such file or directory");
    becomes(space, "del/data-1", "value-1");
    space.delete(&format!("{kind}/del"));
    space.patch(&format!("{kind}/upd"), &json!({"data": {"data-1": null, "data-3": value("value-3")}}));
    make("create", "data-1");
    becomes(space, "create/data-1", "value-1");
    becomes(space, "upd/data-3", "value-3");
    becomes(space, "del/data-1", "No such file or directory");
}

// conformance: [sig-storage] ConfigMap optional updates should be reflected in volume [NodeConformance]
// conformance: [sig-storage] Projected configMap optional updates should be reflected in volume [NodeConformance]
pub fn optional_updates_of_config_maps(space: &Space<'_>) {
    optional_updates(space, "configmaps", "configMap", "name", |text| json!(text));
}

// conformance: [sig-storage] Secrets optional updates should be reflected in volume [NodeConformance]
// conformance: [sig-storage] Projected secret optional updates should be reflected in volume [NodeConformance]
pub fn optional_updates_of_secrets(space: &Space<'_>) {
    let encoded = |text: &str| json!(if text == "value-1" { "dmFsdWUtMQ==" } else { "dmFsdWUtMw==" });
    optional_updates(space, "secrets", "secret", "secretName", encoded);
}

// conformance: [sig-storage] ConfigMap should be immutable if `immutable` field is set
// conformance: [sig-storage] Secrets should be immutable if `immutable` field is set
pub fn immutable(space: &Space<'_>) {
    for (kind, value, other) in [("configmaps", "a", "b"), ("secrets", "YQ==", "Yg==")] {
        space.create(kind, &json!({"metadata": {"name": "x"}, "data": {"key": value}}));
        let path = format!("{kind}/x");
        space.patch(&path, &json!({"data": {"key": other}}));
        space.patch(&path, &json!({"immutable": true}));
        for patch in
            [json!({"immutable": false}), json!({"data": {"key": value}}), json!({"data": {"new": value}})]
        {
            let (code, status) = space.rest.call("PATCH", &space.path(&path), Some(&patch));
            assert_eq!((code, &status["reason"]), (422, &json!("Invalid")), "{status}");
        }
        space.patch(&path, &json!({"metadata": {"labels": {"still": "allowed"}}}));
        space.delete(&path);
    }
}

// conformance: [sig-storage] Downward API volume should provide podname only [NodeConformance]
// conformance: [sig-storage] Downward API volume should set DefaultMode on files [LinuxOnly] [NodeConformance]
// conformance: [sig-storage] Downward API volume should set mode on item file [LinuxOnly] [NodeConformance]
// conformance: [sig-storage] Projected downwardAPI should provide podname only [NodeConformance]
// conformance: [sig-storage] Projected downwardAPI should set DefaultMode on files [LinuxOnly] [NodeConformance]
// conformance: [sig-storage] Projected downwardAPI should set mode on item file [LinuxOnly] [NodeConformance]
pub fn fields(space: &Space<'_>) {
    let name = json!({"path": "podname", "fieldRef": {"fieldPath": "metadata.name"}});
    let sources = [
        ("only", json!({"items": [name]}), "644"),
        ("default", json!({"items": [name], "defaultMode": 0o400}), "400"),
        ("item", json!({"items": [with(name, json!({"mode": 0o400}))]}), "400"),
    ];
    for (label, source, mode) in sources {
        for (form, volume) in forms(&json!({"downwardAPI": source})).iter().enumerate() {
            let pod = format!("{label}-{form}");
            let text = shown(space, &pod, volume, json!({}), json!({}));
            assert_eq!(text, format!("./podname {mode} 0 0\n{pod}\n"));
        }
    }
}

// conformance: [sig-storage] Downward API volume should provide container's cpu limit [NodeConformance]
// conformance: [sig-storage] Downward API volume should provide container's memory limit [NodeConformance]
// conformance: [sig-storage] Downward API volume should provide container's cpu request [NodeConformance]
// conformance: [sig-storage] Downward API volume should provide container's memory request [NodeConformance]
// conformance: [sig-storage] Downward API volume should provide node allocatable (cpu) as default cpu limit if the limit is not set [NodeConformance]
// conformance: [sig-storage] Downward API volume should provide node allocatable (memory) as default memory limit if the limit is not set [NodeConformance]
// conformance: [sig-storage] Projected downwardAPI should provide container's cpu limit [NodeConformance]
// conformance: [sig-storage] Projected downwardAPI should provide container's memory limit [NodeConformance]
// conformance: [sig-storage] Projected downwardAPI should provide container's cpu request [NodeConformance]
// conformance: [sig-storage] Projected downwardAPI should provide container's memory request [NodeConformance]
// conformance: [sig-storage] Projected downwardAPI should provide node allocatable (cpu) as default cpu limit if the limit is not set [NodeConformance]
// conformance: [sig-storage] Projected downwardAPI should provide node allocatable (memory) as default memory limit if the limit is not set [NodeConformance]
pub fn resources(space: &Space<'_>) {
    let of = |resource: &str, divisor: &str| json!({"path": resource, "resourceFieldRef": {"containerName": "main", "resource": resource, "divisor": divisor}});
    let items = json!([
        of("limits.cpu", "1m"),
        of("limits.memory", "1"),
        of("requests.cpu", "1m"),
        of("requests.memory", "1Mi")
    ]);
    let own = json!({"resources": {"requests": {"cpu": "250m", "memory": "32Mi"}, "limits": {"cpu": "1250m", "memory": "64Mi"}}});
    let expected = "./limits.cpu 644 0 0\n1250\n./limits.memory 644 0 0\n67108864\n./requests.cpu 644 0 0\n250\n\
        ./requests.memory 644 0 0\n32\n";
    let node = space.rest.get("/api/v1/nodes")["items"][0]["status"]["allocatable"].clone();
    let kibibytes: u64 = node["memory"].as_str().unwrap().trim_end_matches("Ki").parse().unwrap();
    let cpu = node["cpu"].as_str().unwrap();
    let millis = cpu.strip_suffix('m').map_or_else(|| format!("{cpu}000"), str::to_owned);
    let defaults = format!("./limits.cpu 644 0 0\n{millis}\n./limits.memory 644 0 0\n{}\n", kibibytes * 1024);
    for (form, volume) in forms(&json!({"downwardAPI": {"items": items}})).iter().enumerate() {
        let text = shown(space, &format!("set-{form}"), volume, json!({}), own.clone());
        assert_eq!(text, expected);
        let text = shown(space, &format!("unset-{form}"), volume, json!({}), json!({}));
        assert!(text.starts_with(&defaults), "{text}\n{defaults}");
    }
}

// conformance: [sig-storage] Downward API volume should update labels on modification [NodeConformance]
// conformance: [sig-storage] Downward API volume should update annotations on modification [NodeConformance]
// conformance: [sig-storage] Projected downwardAPI should update labels on modification [NodeConformance]
// conformance: [sig-storage] Projected downwardAPI should update annotations on modification [NodeConformance]
pub fn labels_and_annotations(space: &Space<'_>) {
    let items = json!([{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}}]);
    reader(space, &json!({"downwardAPI": {"items": items}}));
    becomes(space, "labels", "key1=\"value1\"");
    becomes(space, "annotations", "builder=\"bar\"");
    space.patch(
        "pods/reader",
        &json!({"metadata": {"labels": {"key3": "value3"}, "annotations": {"builder": "foo"}}}),
    );
    becomes(space, "labels", "key3=\"value3\"");
    becomes(space, "annotations", "builder=\"foo\"");
}

// conformance: [sig-storage] Projected combined should project all components that make up the projection API [Projection] [NodeConformance]
pub fn everything_projected(space: &Space<'_>) {
    space.create(
        "configmaps",
        &json!({"metadata": {"name": "m"}, "data": {"configmap-data": "configmap-value-1"}}),
    );
    space.create(
        "secrets",
        &json!({"metadata": {"name": "s"}, "stringData": {"secret-data": "secret-value-1"}}),
    );
    let sources = json!([
        {"downwardAPI": {"items": [{"path": "podname", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        {"secret": {"name": "s", "items": [{"key": "secret-data", "path": "secret-data"}]}},
        {"configMap": {"name": "m", "items": [{"key": "configmap-data", "path": "configmap-data"}]}}]);
    let text = shown(space, "all", &json!({"projected": {"sources": sources}}), json!({}), json!({}));
    for part in [
        "podname 644 0 0\nall\n",
        "secret-data 644 0 0\nsecret-value-1\n",
        "configmap-data 644 0 0\nconfigmap-value-1\n",
    ] {
        assert!(text.contains(part), "{text}");
    }
}
