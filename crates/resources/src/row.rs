//! Cells of table rows, the parts that kinds share.

use jiff::Timestamp;
use serde_json::Value;

use crate::table_format::{age, plain};
use crate::value::Access;

/// The object's name.
pub fn name(object: &Value) -> Value {
    Value::String(object.text("/metadata/name").to_owned())
}

/// The time since the object was made.
pub fn created(now: Timestamp, object: &Value) -> Value {
    Value::String(age(now, object.pointer("/metadata/creationTimestamp")))
}

/// The text at a pointer, `instead` when there is none.
pub fn text(object: &Value, pointer: &str, instead: &str) -> Value {
    let found = plain(object.at(pointer));
    Value::String(if found.is_empty() { instead.to_owned() } else { found })
}

/// The number at a pointer, 0 when there is none.
pub fn number(object: &Value, pointer: &str) -> Value {
    object.int(pointer).unwrap_or(0).into()
}

/// How many elements a list or map has.
pub fn count(object: &Value, pointer: &str) -> Value {
    let found = object.at(pointer);
    found.as_array().map(Vec::len).or(found.as_object().map(serde_json::Map::len)).unwrap_or(0).into()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use crate::builtin_table;

    /// The row of an object as kubectl would print it with `-o wide`, cells separated by bars.
    fn check(path: &str, mut object: serde_json::Value, expected: Expect) {
        let (group, resource) = path.rsplit_once('/').unwrap_or(("", path));
        let table = builtin_table();
        let row = table.rows().iter().find(|row| row.group == group && row.resource == resource).unwrap();
        object["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        let cells = row.strategy.cells("2026-01-01T00:05:00Z".parse().unwrap(), &object);
        let texts: Vec<_> = cells.iter().map(crate::table_format::plain).collect();
        expected.assert_eq(&texts.join(" | "));
    }

    #[test]
    fn workloads() {
        let spec = json!({"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
            "template": {"spec": {"containers": [{"name": "c", "image": "nginx"}, {"name": "d", "image": "x"}]}}});
        check(
            "apps/deployments",
            json!({"metadata": {"name": "d"}, "spec": spec, "status": {"readyReplicas": 2, "updatedReplicas": 1}}),
            expect!["d | 2/3 | 1 | 0 | 5m | c,d | nginx,x | app=web"],
        );
        check(
            "apps/replicasets",
            json!({"metadata": {"name": "r"}, "spec": spec, "status": {"replicas": 2, "readyReplicas": 1}}),
            expect!["r | 3 | 2 | 1 | 5m | c,d | nginx,x | app=web"],
        );
        check(
            "apps/statefulsets",
            json!({"metadata": {"name": "s"}, "spec": spec}),
            expect!["s | 0/3 | 5m | c,d | nginx,x"],
        );
        check(
            "apps/daemonsets",
            json!({"metadata": {"name": "d"}, "spec": spec, "status": {"desiredNumberScheduled": 1}}),
            expect!["d | 1 | 0 | 0 | 0 | 0 | <none> | 5m | c,d | nginx,x | app=web"],
        );
        check(
            "replicationcontrollers",
            json!({"metadata": {"name": "r"}, "spec": {"replicas": 2, "selector": {"run": "a"}, "template": spec["template"]}}),
            expect!["r | 2 | 0 | 0 | 5m | c,d | nginx,x | run=a"],
        );
        check(
            "batch/jobs",
            json!({"metadata": {"name": "j"}, "spec": {"completions": 2, "template": spec["template"], "selector": {}},
                "status": {"succeeded": 2, "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:09Z",
                "conditions": [{"type": "Complete", "status": "True"}]}}),
            expect!["j | Complete | 2/2 | 9s | 5m | c,d | nginx,x | <none>"],
        );
    }

    #[test]
    fn networks_and_nodes() {
        check(
            "services",
            json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "clusterIPs": ["10.0.0.1"], "selector": {"a": "b"},
                "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}}),
            expect!["s | NodePort | 10.0.0.1 | <none> | 80:30080/TCP,53/UDP | 5m | a=b"],
        );
        check(
            "services",
            json!({"metadata": {"name": "s"}, "spec": {"type": "LoadBalancer", "clusterIPs": ["10.0.0.1"]}}),
            expect!["s | LoadBalancer | 10.0.0.1 | <pending> | <none> | 5m | <none>"],
        );
        check(
            "endpoints",
            json!({"metadata": {"name": "e"}, "subsets": [{"addresses": [{"ip": "10.1.0.1"}, {"ip": "10.1.0.2"}],
                "ports": [{"port": 80}, {"port": 81}]}]}),
            expect!["e | 10.1.0.1:80,10.1.0.1:81,10.1.0.2:80 + 1 more... | 5m"],
        );
        check(
            "discovery.k8s.io/endpointslices",
            json!({"metadata": {"name": "e"}, "addressType": "IPv4", "ports": [{"port": 80}],
                "endpoints": [{"addresses": ["10.1.0.1"]}]}),
            expect!["e | IPv4 | 80 | 10.1.0.1 | 5m"],
        );
        check(
            "nodes",
            json!({"metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": ""}},
                "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
                "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Debian", "kernelVersion": "6.1",
                    "containerRuntimeVersion": "kobune://0.1"}}}),
            expect![
                "n | Ready,SchedulingDisabled | control-plane | 5m | v1.36.0 | 192.0.2.1 | <none> | Debian | 6.1 | kobune://0.1"
            ],
        );
    }

    #[test]
    fn configuration_and_storage() {
        check(
            "configmaps",
            json!({"metadata": {"name": "c"}, "data": {"a": "", "b": ""}}),
            expect!["c | 2 | 5m"],
        );
        check(
            "secrets",
            json!({"metadata": {"name": "s"}, "type": "Opaque"}),
            expect!["s | Opaque | 0 | 5m"],
        );
        check(
            "namespaces",
            json!({"metadata": {"name": "n"}, "status": {"phase": "Active"}}),
            expect!["n | Active | 5m"],
        );
        check(
            "events",
            json!({"metadata": {"name": "e"}, "type": "Normal", "reason": "Scheduled", "message": "done\n",
                "involvedObject": {"kind": "Pod", "name": "p"}, "count": 3, "firstTimestamp": "2026-01-01T00:00:00Z",
                "lastTimestamp": "2026-01-01T00:04:30Z", "source": {"component": "kubelet", "host": "n"}}),
            expect!["30s | Normal | Scheduled | pod/p |  | kubelet, n | done | 5m | 3 | e"],
        );
        check(
            "persistentvolumeclaims",
            json!({"metadata": {"name": "c"}, "spec": {"volumeName": "v", "volumeMode": "Filesystem"},
                "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]}}),
            expect!["c | Bound | v | 1Gi | RWO |  | <unset> | 5m | Filesystem"],
        );
        check(
            "resourcequotas",
            json!({"metadata": {"name": "q"}, "status": {"hard": {"pods": "2", "limits.cpu": "4"}, "used": {"pods": "1"}}}),
            expect!["q | pods: 1/2 | limits.cpu: 0/4 | 5m"],
        );
        check(
            "rbac.authorization.k8s.io/roles",
            json!({"metadata": {"name": "r"}}),
            expect!["r | 2026-01-01T00:00:00Z"],
        );
        check(
            "rbac.authorization.k8s.io/rolebindings",
            json!({"metadata": {"name": "b"}, "roleRef": {"kind": "Role", "name": "r"},
                "subjects": [{"kind": "ServiceAccount", "namespace": "d", "name": "s"}, {"kind": "User", "name": "u"}]}),
            expect!["b | Role/r | 5m | u |  | d/s"],
        );
        check(
            "certificates.k8s.io/certificatesigningrequests",
            json!({"metadata": {"name": "c"}, "spec": {"signerName": "x/y", "username": "u"},
                "status": {"certificate": "Zg==", "conditions": [{"type": "Approved"}]}}),
            expect!["c | 5m | x/y | u | <none> | Approved,Issued"],
        );
    }
}
