//! Directories: emptyDir in all its forms, parts of volumes, many volumes at once, hostPath, claims.

use serde_json::{Value, json};

use crate::space::{IDLE, Space, condition, shell, with};

const MODES: [(&str, &str); 3] = [("0644", "-rw-r--r--"), ("0666", "-rw-rw-rw-"), ("0777", "-rwxrwxrwx")];

/// A file of each mode is written, read and looked at.
fn of_medium(space: &Space<'_>, medium: &str, user: u64, kind: &str) {
    let steps: Vec<String> = MODES
        .iter()
        .map(|(mode, _)| format!("echo content > /volume/{mode}; chmod {mode} /volume/{mode}; cat /volume/{mode}; ls -l /volume/{mode}"))
        .collect();
    let script = format!("grep ' /volume ' /proc/mounts; {}", steps.join("; "));
    let main = with(shell("main", &script), json!({"volumeMounts": [{"name": "v", "mountPath": "/volume"}]}));
    let spec = json!({"securityContext": {"runAsUser": user}, "containers": [main],
        "volumes": [{"name": "v", "emptyDir": {"medium": medium}}]});
    let text = space.output("writer", spec);
    assert!(kind.is_empty() || text.lines().next().unwrap().contains(&format!(" {kind} ")), "{text}");
    for (mode, shown) in MODES {
        let line = text.lines().find(|line| line.ends_with(&format!("/volume/{mode}"))).unwrap();
        assert!(line.starts_with(shown), "{line}");
    }
    assert_eq!(text.matches("content").count(), 3);
}

// conformance: [sig-storage] EmptyDir volumes should support (root,0644,default) [LinuxOnly] [NodeConformance]
// conformance: [sig-storage] EmptyDir volumes should support (root,0666,default) [LinuxOnly] [NodeConformance]
// conformance: [sig-storage] EmptyDir volumes should support (root,0777,default) [LinuxOnly] [NodeConformance]
pub fn as_root_on_disk(space: &Space<'_>) {
    of_medium(space, "", 0, "");
}

// conformance: [sig-storage] EmptyDir volumes should support (non-root,0644,default) [LinuxOnly] [NodeConformance]
// conformance: [sig-storage] EmptyDir volumes should support (non-root,0666,default) [LinuxOnly] [NodeConformance]
// conformance: [sig-storage] EmptyDir volumes should support (non-root,0777,default) [LinuxOnly] [NodeConformance]
pub fn as_a_user_on_disk(space: &Space<'_>) {
    of_medium(space, "", 1001, "");
}

// conformance: [sig-storage] EmptyDir volumes should support (root,0644,tmpfs) [LinuxOnly] [NodeConformance]
// conformance: [sig-storage] EmptyDir volumes should support (root,0666,tmpfs) [LinuxOnly] [NodeConformance]
// conformance: [sig-storage] EmptyDir volumes should support (root,0777,tmpfs) [LinuxOnly] [NodeConformance]
pub fn as_root_in_memory(space: &Space<'_>) {
    of_medium(space, "Memory", 0, "tmpfs");
}

// conformance: [sig-storage] EmptyDir volumes should support (non-root,0644,tmpfs) [LinuxOnly] [NodeConformance]
// conformance: [sig-storage] EmptyDir volumes should support (non-root,0666,tmpfs) [LinuxOnly] [NodeConformance]
// conformance: [sig-storage] EmptyDir volumes should support (non-root,0777,tmpfs) [LinuxOnly] [NodeConformance]
pub fn as_a_user_in_memory(space: &Space<'_>) {
    of_medium(space, "Memory", 1001, "tmpfs");
}

// conformance: [sig-storage] EmptyDir volumes volume on default medium should have the correct mode [LinuxOnly] [NodeConformance]
// conformance: [sig-storage] EmptyDir volumes volume on tmpfs should have the correct mode [LinuxOnly] [NodeConformance]
pub fn the_mode_of_the_volume(space: &Space<'_>) {
    for (name, medium) in [("disk", ""), ("memory", "Memory")] {
        let main = with(
            shell("main", "ls -ld /volume"),
            json!({"volumeMounts": [{"name": "v", "mountPath": "/volume"}]}),
        );
        let volume = json!({"name": "v", "emptyDir": {"medium": medium}});
        let text = space.output(name, json!({"containers": [main], "volumes": [volume]}));
        assert!(text.starts_with("drwxrwxrwx"), "{text}");
    }
}

// conformance: [sig-storage] EmptyDir volumes pod should support shared volumes between containers
pub fn shared_between_containers(space: &Space<'_>) {
    let mount = json!({"volumeMounts": [{"name": "v", "mountPath": "/share"}]});
    let writer = with(shell("writer", &format!("echo Hello > /share/file; {IDLE}")), mount.clone());
    let reader = with(shell("reader", IDLE), mount);
    space.pod("pair", json!({"containers": [reader, writer], "volumes": [{"name": "v", "emptyDir": {}}]}));
    space.ready("pair");
    space.wait("the file", || {
        let text = space.exec("pair", "reader", &["sh", "-c", "cat /share/file || true"]);
        (text == "Hello\n").then_some(())
    });
}

/// Beyond the list: a limit on memory volumes is kept.
pub fn limits_of_size(space: &Space<'_>) {
    let main = with(
        shell("main", "dd if=/dev/zero of=/volume/x bs=1M count=3 2>&1 || true"),
        json!({"volumeMounts": [{"name": "v", "mountPath": "/volume"}]}),
    );
    let volume = json!({"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}});
    let text = space.output("memory", json!({"containers": [main], "volumes": [volume]}));
    assert!(text.contains("No space left on device"), "{text}");
}

// conformance: [sig-storage] EmptyDir wrapper volumes should not conflict
pub fn secret_and_config_map_together(space: &Space<'_>) {
    space.create("secrets", &json!({"metadata": {"name": "s"}, "stringData": {"data-1": "value-1"}}));
    space.create("configmaps", &json!({"metadata": {"name": "m"}, "data": {"data-1": "value-2"}}));
    let mounts = json!([{"name": "s", "mountPath": "/etc/secret-volume", "readOnly": true}, {"name": "m", "mountPath": "/etc/configmap-volume"}]);
    let main = with(shell("main", "cat /etc/*-volume/data-1"), json!({"volumeMounts": mounts}));
    let volumes =
        json!([{"name": "s", "secret": {"secretName": "s"}}, {"name": "m", "configMap": {"name": "m"}}]);
    assert_eq!(space.output("both", json!({"containers": [main], "volumes": volumes})), "value-2value-1");
}

// conformance: [sig-storage] EmptyDir wrapper volumes should not cause race condition when used for configmaps [Serial]
pub fn fifty_config_maps(space: &Space<'_>) {
    let (mut volumes, mut mounts) = (Vec::new(), Vec::new());
    for number in 0..50 {
        let name = format!("racey-configmap-{number}");
        space.create("configmaps", &json!({"metadata": {"name": name}, "data": {"data-1": "value-1"}}));
        let items = json!([{"key": "data-1", "path": "data-1"}]);
        volumes.push(json!({"name": name, "configMap": {"name": name, "items": items}}));
        mounts.push(json!({"name": name, "mountPath": format!("/etc/config-{number}")}));
    }
    let main = with(shell("main", IDLE), json!({"volumeMounts": mounts}));
    for round in 0..3 {
        let name = format!("racing-{round}");
        let template = json!({"metadata": {"labels": {"name": name}},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [main], "volumes": volumes}});
        let spec = json!({"replicas": 5, "selector": {"name": name}, "template": template});
        space.create("replicationcontrollers", &json!({"metadata": {"name": name}, "spec": spec}));
        let list = format!("pods?labelSelector=name%3D{name}");
        space.wait("five pods run", || {
            let pods = space.get(&list);
            let running =
                pods["items"].as_array().unwrap().iter().filter(|pod| condition(pod, "Ready") == "True");
            (running.count() == 5).then_some(())
        });
        space.delete(&format!("replicationcontrollers/{name}?propagationPolicy=Background"));
        space
            .wait("they are gone", || space.get(&list)["items"].as_array().unwrap().is_empty().then_some(()));
    }
}

fn part(space: &Space<'_>, name: &str, volume: Value, sub_path: &str, at: &str, expected: &str) {
    let mounts =
        json!([{"name": "v", "mountPath": at, "subPath": sub_path}, {"name": "v", "mountPath": "/whole"}]);
    let main =
        with(shell("main", &format!("cat {at}; test -e /whole/{sub_path}")), json!({"volumeMounts": mounts}));
    let spec = json!({"containers": [main], "volumes": [with(volume, json!({"name": "v"}))]});
    assert_eq!(space.output(name, spec), expected);
}

// conformance: [sig-storage] Subpath Atomic writer volumes should support subpaths with secret pod
// conformance: [sig-storage] Subpath Atomic writer volumes should support subpaths with configmap pod
// conformance: [sig-storage] Subpath Atomic writer volumes should support subpaths with configmap pod with mountPath of existing file
// conformance: [sig-storage] Subpath Atomic writer volumes should support subpaths with downward pod
// conformance: [sig-storage] Subpath Atomic writer volumes should support subpaths with projected pod
pub fn parts_of_volumes(space: &Space<'_>) {
    space
        .create("secrets", &json!({"metadata": {"name": "s"}, "stringData": {"secret-key": "secret-value"}}));
    space.create(
        "configmaps",
        &json!({"metadata": {"name": "m"}, "data": {"configmap-key": "configmap-value"}}),
    );
    let map = json!({"configMap": {"name": "m"}});
    part(space, "secret", json!({"secret": {"secretName": "s"}}), "secret-key", "/part", "secret-value");
    part(space, "map", map.clone(), "configmap-key", "/part", "configmap-value");
    part(space, "existing", map, "configmap-key", "/etc/resolv.conf", "configmap-value");
    let items = json!([{"path": "downward/podname", "fieldRef": {"fieldPath": "metadata.name"}}]);
    part(
        space,
        "downward",
        json!({"downwardAPI": {"items": items}}),
        "downward/podname",
        "/part",
        "downward",
    );
    let sources = json!([{"configMap": {"name": "m", "items": [{"key": "configmap-key", "path": "projected/configmap-key"}]}}]);
    let projected = json!({"projected": {"sources": sources}});
    part(space, "projected", projected, "projected/configmap-key", "/part", "configmap-value");
}

/// Beyond the list: a directory of the host, also as a claim.
pub fn host_paths_and_claims(space: &Space<'_>) {
    let work = tempfile::tempdir().unwrap();
    let host = work.path().join("made");
    let mount = json!({"volumeMounts": [{"name": "v", "mountPath": "/host"}]});
    let main = with(shell("main", "echo written > /host/file"), mount.clone());
    let volume = json!({"name": "v", "hostPath": {"path": host, "type": "DirectoryOrCreate"}});
    space.output("writer", json!({"containers": [main], "volumes": [volume]}));
    assert_eq!(std::fs::read_to_string(host.join("file")).unwrap(), "written\n");
    let name = format!("{}-pv", space.name);
    let size = json!({"storage": "1Mi"});
    let pv = json!({"metadata": {"name": name}, "spec": {"capacity": size, "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": host}, "storageClassName": "", "claimRef": {"name": "c", "namespace": space.name}}});
    space.rest.ok("POST", "/api/v1/persistentvolumes", Some(&pv));
    let claim = json!({"metadata": {"name": "c", "annotations": {"pv.kubernetes.io/bind-completed": "yes"}}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "",
        "volumeName": name, "resources": {"requests": size}}});
    space.create("persistentvolumeclaims", &claim);
    let bound = json!({"status": {"phase": "Bound"}});
    space.rest.ok("PATCH", &space.path("persistentvolumeclaims/c/status"), Some(&bound));
    let main = with(shell("main", "cat /host/file"), mount);
    let volume = json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}});
    assert_eq!(space.output("claimer", json!({"containers": [main], "volumes": [volume]})), "written\n");
    space.delete("pods/claimer");
    space.delete("persistentvolumeclaims/c");
    space.rest.ok("DELETE", &format!("/api/v1/persistentvolumes/{name}"), None);
}
