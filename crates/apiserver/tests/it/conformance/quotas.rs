//! ResourceQuota and LimitRange: what is used is shown, what goes too far is refused.

use machinery::Status;
use serde_json::{Value, json};

use super::wire::{MERGE, STRATEGIC, Wire};
use super::world::World;

/// A namespace with quotas.
struct Place<'a> {
    wire: &'a Wire,
    path: String,
}

fn hard() -> Value {
    json!({
        "pods": "5", "services": "10", "services.nodeports": "1", "services.loadbalancers": "1",
        "replicationcontrollers": "10", "resourcequotas": "1", "cpu": "1", "memory": "500Mi",
        "configmaps": "10", "secrets": "10", "persistentvolumeclaims": "10", "requests.storage": "10Gi",
        "ephemeral-storage": "50Gi", "count/replicasets.apps": "5", "requests.example.com/dongle": "3",
        "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "10",
        "gold.storageclass.storage.k8s.io/requests.storage": "10Gi",
    })
}

fn pod(name: &str, amounts: &Value) -> Value {
    let resources = json!({"requests": amounts, "limits": amounts});
    json!({"metadata": {"name": name}, "spec": {"containers": [
        {"name": "pause", "image": "registry.k8s.io/pause:3.10", "resources": resources}]}})
}

impl<'a> Place<'a> {
    async fn new(world: &'a World, name: &str) -> Self {
        Self { wire: &world.admin, path: world.namespace(name).await }
    }

    async fn quota(&self, name: &str, spec: Value) {
        let body = json!({"metadata": {"name": name}, "spec": spec});
        self.wire.post(&format!("{}/resourcequotas", self.path), &body).await.unwrap();
    }

    async fn create(&self, resource: &str, body: &Value) -> Result<Value, Status> {
        self.wire.post(&format!("{}/{resource}", self.path), body).await
    }

    async fn delete(&self, resource: &str, name: &str) {
        self.wire.delete(&format!("{}/{resource}/{name}", self.path)).await.unwrap();
    }

    /// Waits until a quota's status says that this much is used.
    async fn uses(&self, quota: &str, expected: &[(&str, &str)]) {
        let path = format!("{}/resourcequotas/{quota}", self.path);
        let what = format!("{quota} uses {expected:?}");
        self.wire
            .until(&what, &path, |answer| {
                let status = &answer.as_ref().unwrap()["status"];
                let hard = &answer.as_ref().unwrap()["spec"]["hard"];
                status["hard"] == *hard
                    && expected.iter().all(|(name, amount)| status["used"][*name] == *amount)
            })
            .await;
    }

    /// An object comes and goes, and is counted while it is there.
    async fn counts(&self, resource: &str, body: &Value, name: &str, base: u32) {
        let (before, after) = (base.to_string(), (base + 1).to_string());
        self.uses("test-quota", &[(name, &before)]).await;
        let made = self.create(resource, body).await.unwrap();
        self.uses("test-quota", &[(name, &after)]).await;
        self.delete(resource, made["metadata"]["name"].as_str().unwrap()).await;
        self.uses("test-quota", &[(name, &before)]).await;
    }
}

// conformance: [sig-api-machinery] ResourceQuota should create a ResourceQuota and ensure its status is promptly calculated.
// conformance: [sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a secret.
// conformance: [sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a configMap.
// conformance: [sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a replication controller.
async fn counted_objects(world: &World) {
    let place = Place::new(world, "quota-counts").await;
    place
        .wire
        .until(
            "the ConfigMap of every namespace",
            &format!("{}/configmaps/kube-root-ca.crt", place.path),
            Result::is_ok,
        )
        .await;
    place.quota("test-quota", json!({"hard": hard()})).await;
    place.uses("test-quota", &[("resourcequotas", "1"), ("pods", "0"), ("cpu", "0"), ("memory", "0")]).await;
    let secret = json!({"metadata": {"name": "test-secret"}, "data": {"data-1": "dmFsdWUtMQo="}});
    place.counts("secrets", &secret, "secrets", 0).await;
    let map = json!({"metadata": {"name": "test-configmap"}, "data": {"a": "b"}});
    place.counts("configmaps", &map, "configmaps", 1).await;
    let controller = json!({"metadata": {"name": "test-rc"}, "spec": {"replicas": 0, "selector": {"name": "test-rc"},
        "template": {"metadata": {"labels": {"name": "test-rc"}}, "spec": pod("x", &json!({}))["spec"]}}});
    place.counts("replicationcontrollers", &controller, "replicationcontrollers", 0).await;
}

// conformance: [sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a replica set.
async fn replica_sets(world: &World) {
    let place = Place::new(world, "quota-sets").await;
    place.quota("test-quota", json!({"hard": hard()})).await;
    place.uses("test-quota", &[("count/replicasets.apps", "0")]).await;
    let body = json!({"metadata": {"name": "test-rs"}, "spec": {"replicas": 0,
        "selector": {"matchLabels": {"name": "test-rs"}},
        "template": {"metadata": {"labels": {"name": "test-rs"}}, "spec": pod("x", &json!({}))["spec"]}}});
    let sets = "/apis/apps/v1/namespaces/quota-sets/replicasets";
    place.wire.post(sets, &body).await.unwrap();
    place.uses("test-quota", &[("count/replicasets.apps", "1")]).await;
    place.wire.delete(&format!("{sets}/test-rs")).await.unwrap();
    place.uses("test-quota", &[("count/replicasets.apps", "0")]).await;
}

// conformance: [sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a service.
async fn services(world: &World) {
    let place = Place::new(world, "quota-services").await;
    place.quota("test-quota", json!({"hard": hard()})).await;
    place.uses("test-quota", &[("services", "0")]).await;
    let service = |name: &str, kind: &str, node_ports: bool| {
        let mut spec = json!({"type": kind, "ports": [{"port": 80, "targetPort": 80}]});
        if kind == "LoadBalancer" {
            spec["allocateLoadBalancerNodePorts"] = json!(node_ports);
        }
        json!({"metadata": {"name": name}, "spec": spec})
    };
    place.create("services", &service("test-service", "ClusterIP", false)).await.unwrap();
    place.create("services", &service("test-service-np", "NodePort", true)).await.unwrap();
    let refused =
        place.create("services", &service("test-service-lbnp", "LoadBalancer", true)).await.unwrap_err();
    assert_eq!(refused.code, 403);
    assert!(
        refused.message.contains(
            "exceeded quota: test-quota, requested: services.nodeports=1, used: services.nodeports=1, limited: services.nodeports=1"
        ),
        "{refused}"
    );
    place.create("services", &service("test-service-lb", "LoadBalancer", false)).await.unwrap();
    let full = [("services", "3"), ("services.nodeports", "1"), ("services.loadbalancers", "1")];
    place.uses("test-quota", &full).await;
    for name in ["test-service", "test-service-np", "test-service-lb"] {
        place.delete("services", name).await;
    }
    let empty = [("services", "0"), ("services.nodeports", "0"), ("services.loadbalancers", "0")];
    place.uses("test-quota", &empty).await;
}

// conformance: [sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a pod.
async fn pods(world: &World) {
    let place = Place::new(world, "quota-pods").await;
    place.quota("test-quota", json!({"hard": hard()})).await;
    place.uses("test-quota", &[("pods", "0")]).await;
    let amounts = |cpu: &str, dongles: &str| json!({"cpu": cpu, "memory": "252Mi", "ephemeral-storage": "30Gi", "example.com/dongle": dongles});
    let made = place.create("pods", &pod("test-pod", &amounts("500m", "2"))).await.unwrap();
    let used = [
        ("pods", "1"),
        ("cpu", "500m"),
        ("memory", "252Mi"),
        ("ephemeral-storage", "30Gi"),
        ("requests.example.com/dongle", "2"),
    ];
    place.uses("test-quota", &used).await;
    let refused = place.create("pods", &pod("fail-pod", &amounts("600m", "1"))).await.unwrap_err();
    assert_eq!(refused.code, 403);
    assert!(refused.message.contains("exceeded quota: test-quota, requested: cpu=600m"), "{refused}");
    let small =
        json!({"cpu": "100m", "memory": "1Mi", "ephemeral-storage": "1Gi", "example.com/dongle": "2"});
    let refused = place.create("pods", &pod("fail-pod", &small)).await.unwrap_err();
    assert!(refused.message.contains("requested: requests.example.com/dongle=2"), "{refused}");
    let silent = place.create("pods", &pod("fail-pod", &json!({}))).await.unwrap_err();
    assert!(silent.message.contains("failed quota: test-quota: must specify cpu for: pause"), "{silent}");

    let mut changed = made;
    changed["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("100m");
    let refused = place.wire.put(&format!("{}/pods/test-pod", place.path), &changed).await.unwrap_err();
    assert_eq!(refused.code, 422, "{refused}");
    place.uses("test-quota", &used).await;
    place.delete("pods", "test-pod").await;
    place.uses("test-quota", &[("pods", "0"), ("cpu", "0"), ("requests.example.com/dongle", "0")]).await;
}

// conformance: [sig-api-machinery] ResourceQuota should verify ResourceQuota with best effort scope.
async fn best_effort(world: &World) {
    let place = Place::new(world, "quota-effort").await;
    for (name, scope) in [("quota-besteffort", "BestEffort"), ("quota-not-besteffort", "NotBestEffort")] {
        place.quota(name, json!({"hard": {"pods": "5"}, "scopes": [scope]})).await;
        place.uses(name, &[("pods", "0")]).await;
    }
    let asking = json!({"cpu": "100m", "memory": "1Mi"});
    for (amounts, counted, other) in [
        (json!({}), "quota-besteffort", "quota-not-besteffort"),
        (asking, "quota-not-besteffort", "quota-besteffort"),
    ] {
        place.create("pods", &pod("test-pod", &amounts)).await.unwrap();
        place.uses(counted, &[("pods", "1")]).await;
        place.uses(other, &[("pods", "0")]).await;
        place.delete("pods", "test-pod").await;
        place.uses(counted, &[("pods", "0")]).await;
    }
}

// conformance: [sig-api-machinery] ResourceQuota should verify ResourceQuota with terminating scopes.
async fn terminating(world: &World) {
    let place = Place::new(world, "quota-terminating").await;
    let hard = json!({"pods": "5", "requests.cpu": "1", "requests.memory": "500Mi", "limits.cpu": "2", "limits.memory": "1Gi"});
    for (name, scope) in [("quota-terminating", "Terminating"), ("quota-not-terminating", "NotTerminating")] {
        place.quota(name, json!({"hard": hard, "scopes": [scope]})).await;
        place.uses(name, &[("pods", "0")]).await;
    }
    let nothing = [("pods", "0"), ("requests.cpu", "0"), ("limits.memory", "0")];
    let used = [
        ("pods", "1"),
        ("requests.cpu", "500m"),
        ("requests.memory", "200Mi"),
        ("limits.cpu", "1"),
        ("limits.memory", "400Mi"),
    ];
    let resources =
        json!({"requests": {"cpu": "500m", "memory": "200Mi"}, "limits": {"cpu": "1", "memory": "400Mi"}});
    for (deadline, counted, other) in [
        (Value::Null, "quota-not-terminating", "quota-terminating"),
        (json!(3600), "quota-terminating", "quota-not-terminating"),
    ] {
        let mut body = pod("test-pod", &json!({}));
        body["spec"]["containers"][0]["resources"] = resources.clone();
        body["spec"]["activeDeadlineSeconds"] = deadline;
        place.create("pods", &body).await.unwrap();
        place.uses(counted, &used).await;
        place.uses(other, &nothing).await;
        place.delete("pods", "test-pod").await;
        place.uses(counted, &nothing).await;
    }
}

/// Scopes by priority class; not in the list, but what clusters use.
async fn priority_classes(world: &World) {
    let place = Place::new(world, "quota-priority").await;
    for name in ["gold", "silver"] {
        let body = json!({"metadata": {"name": name}, "value": 1000});
        place.wire.post("/apis/scheduling.k8s.io/v1/priorityclasses", &body).await.unwrap();
    }
    let selector = |operator: &str| {
        let expression = json!({"scopeName": "PriorityClass", "operator": operator, "values": ["gold"]});
        json!({"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [expression]}})
    };
    place.quota("quota-gold", selector("In")).await;
    place.uses("quota-gold", &[("pods", "0")]).await;
    let body = |name: &str, class: &str| {
        let mut body = pod(name, &json!({}));
        body["spec"]["priorityClassName"] = json!(class);
        body
    };
    place.create("pods", &body("a", "gold")).await.unwrap();
    place.create("pods", &body("b", "silver")).await.unwrap();
    place.uses("quota-gold", &[("pods", "1")]).await;
    let refused = place.create("pods", &body("c", "gold")).await.unwrap_err();
    assert!(refused.message.contains("exceeded quota: quota-gold, requested: pods=1"), "{refused}");
}

// conformance: [sig-api-machinery] ResourceQuota should be able to update and delete ResourceQuota.
async fn update_and_delete(world: &World) {
    let place = Place::new(world, "quota-update").await;
    place.quota("test-quota", json!({"hard": {"cpu": "1", "memory": "500Mi"}})).await;
    let path = format!("{}/resourcequotas/test-quota", place.path);
    let mut quota = place.wire.get(&path).await.unwrap();
    assert_eq!(quota["spec"]["hard"], json!({"cpu": "1", "memory": "500Mi"}));
    // The status may have been written in the meantime.
    quota["metadata"]["resourceVersion"] = Value::Null;
    quota["spec"]["hard"] = json!({"cpu": "2", "memory": "1Gi"});
    let updated = place.wire.put(&path, &quota).await.unwrap();
    assert_eq!(updated["spec"]["hard"], quota["spec"]["hard"]);
    assert_eq!(place.wire.get(&path).await.unwrap()["spec"]["hard"], quota["spec"]["hard"]);
    place.wire.delete(&path).await.unwrap();
    assert!(place.wire.get(&path).await.unwrap_err().is_not_found());
}

// conformance: [sig-api-machinery] ResourceQuota should manage the lifecycle of a ResourceQuota
async fn lifecycle(world: &World) {
    let place = Place::new(world, "quota-life").await;
    let body = json!({"metadata": {"name": "e2e-quota", "labels": {"e2e-rq-label": "one"}},
        "spec": {"hard": {"cpu": "1", "memory": "500Mi"}}});
    place.create("resourcequotas", &body).await.unwrap();
    let selected = "labelSelector=e2e-rq-label%3Done";
    assert_eq!(place.wire.items(&format!("/api/v1/resourcequotas?{selected}")).await.len(), 1);
    let patch =
        json!({"metadata": {"labels": {"e2e-quota": "patched"}}, "spec": {"hard": {"memory": "750Mi"}}});
    let path = format!("{}/resourcequotas/e2e-quota", place.path);
    let patched = place.wire.patch(&path, STRATEGIC, &patch).await.unwrap();
    assert_eq!(patched["metadata"]["labels"], json!({"e2e-rq-label": "one", "e2e-quota": "patched"}));
    assert_eq!(patched["spec"]["hard"], json!({"cpu": "1", "memory": "750Mi"}));
    place.wire.delete(&format!("{}/resourcequotas?{selected}", place.path)).await.unwrap();
    assert!(place.wire.items(&format!("/api/v1/resourcequotas?{selected}")).await.is_empty());
}

// conformance: [sig-api-machinery] ResourceQuota should apply changes to a resourcequota status
async fn status_changes(world: &World) {
    let place = Place::new(world, "quota-status").await;
    let collection = format!("{}/resourcequotas", place.path);
    let path = format!("{collection}/e2e-rq-status");
    let revision = place.wire.get(&collection).await.unwrap()["metadata"]["resourceVersion"].clone();
    let revision = revision.as_str().unwrap();
    let mut watch = place.wire.watch(&format!("{collection}?watch=true&resourceVersion={revision}")).await;
    place.quota("e2e-rq-status", json!({"hard": {"cpu": "500m", "memory": "500Mi"}})).await;
    place.uses("e2e-rq-status", &[("cpu", "0")]).await;

    let mut quota = place.wire.get(&format!("{path}/status")).await.unwrap();
    quota["status"] = json!({"hard": quota["spec"]["hard"]});
    let updated = place.wire.put(&format!("{path}/status"), &quota).await.unwrap();
    assert_eq!(updated["status"]["hard"], updated["spec"]["hard"]);
    watch.until("MODIFIED", |seen| seen["status"]["hard"] == updated["spec"]["hard"]).await;

    let patch = json!({"spec": {"hard": {"cpu": "1", "memory": "1Gi"}}});
    let patched = place.wire.patch(&path, MERGE, &patch).await.unwrap();
    assert_eq!(patched["spec"]["hard"], json!({"cpu": "1", "memory": "1Gi"}));
    let patch = json!({"status": {"hard": {"cpu": "1", "memory": "1Gi"}}});
    place.wire.patch(&format!("{path}/status"), MERGE, &patch).await.unwrap();
    watch.until("MODIFIED", |seen| seen["status"]["hard"] == json!({"cpu": "1", "memory": "1Gi"})).await;

    // What somebody else writes there does not stay, and never touches the spec.
    let patch = json!({"status": {"hard": {"cpu": "2", "memory": "2Gi"}}});
    let repatched = place.wire.patch(&format!("{path}/status"), STRATEGIC, &patch).await.unwrap();
    assert_eq!(repatched["status"]["hard"], json!({"cpu": "2", "memory": "2Gi"}));
    assert_eq!(repatched["spec"]["hard"], json!({"cpu": "1", "memory": "1Gi"}));
    place.uses("e2e-rq-status", &[("cpu", "0"), ("memory", "0")]).await;
}

#[tokio::test]
async fn quotas_show_what_is_used_and_hold() {
    let world = World::start().await;
    counted_objects(&world).await;
    replica_sets(&world).await;
    services(&world).await;
    pods(&world).await;
    best_effort(&world).await;
    terminating(&world).await;
    priority_classes(&world).await;
    update_and_delete(&world).await;
    lifecycle(&world).await;
    status_changes(&world).await;
}

/// However many ask at once, no more are let in than the quota allows.
#[tokio::test]
async fn a_rush_does_not_get_past_a_quota() {
    let world = World::start().await;
    let place = Place::new(&world, "rush").await;
    place.quota("test-quota", json!({"hard": {"pods": "7"}})).await;
    let bodies: Vec<_> = (0..20).map(|index| pod(&format!("p{index}"), &json!({}))).collect();
    let answers = futures::future::join_all(bodies.iter().map(|body| place.create("pods", body))).await;
    let let_in = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(let_in, 7);
    assert!(answers.iter().flat_map(|answer| answer.as_ref().err()).all(|status| status.code == 403));
    place.uses("test-quota", &[("pods", "7")]).await;
}

// conformance: [sig-scheduling] LimitRange should create a LimitRange with defaults and ensure pod has those defaults applied.
async fn limits_give_defaults(world: &World) {
    let place = Place::new(world, "limits").await;
    let range = json!({"type": "Container",
        "min": {"cpu": "50m", "memory": "100Mi", "ephemeral-storage": "100Gi"},
        "max": {"cpu": "500m", "memory": "500Mi", "ephemeral-storage": "500Gi"},
        "default": {"cpu": "500m", "memory": "500Mi", "ephemeral-storage": "500Gi"},
        "defaultRequest": {"cpu": "100m", "memory": "200Mi", "ephemeral-storage": "200Gi"},
        "maxLimitRequestRatio": {}});
    let ranges = format!("{}/limitranges", place.path);
    let mut watch = place.wire.watch(&format!("{ranges}?watch=true")).await;
    let made = place
        .create("limitranges", &json!({"metadata": {"name": "limit-range"}, "spec": {"limits": [range]}}))
        .await
        .unwrap();
    watch.until("ADDED", |seen| seen["spec"] == made["spec"]).await;

    let plain = place.create("pods", &pod("pod-no-resources", &json!({}))).await.unwrap();
    let resources = &plain["spec"]["containers"][0]["resources"];
    assert_eq!(resources["requests"], range["defaultRequest"]);
    assert_eq!(resources["limits"], range["default"]);
    let mut partly = pod("pod-partial-resources", &json!({}));
    partly["spec"]["containers"][0]["resources"] =
        json!({"requests": {"cpu": "300m", "memory": "150Mi"}, "limits": {"cpu": "300m"}});
    let partly = place.create("pods", &partly).await.unwrap();
    let resources = &partly["spec"]["containers"][0]["resources"];
    assert_eq!(
        resources["requests"],
        json!({"cpu": "300m", "memory": "150Mi", "ephemeral-storage": "200Gi"})
    );
    assert_eq!(resources["limits"], json!({"cpu": "300m", "memory": "500Mi", "ephemeral-storage": "500Gi"}));
    for amounts in [
        json!({"cpu": "10m", "memory": "50Mi", "ephemeral-storage": "50Gi"}),
        json!({"cpu": "600m", "memory": "600Mi", "ephemeral-storage": "600Gi"}),
    ] {
        let refused = place.create("pods", &pod("too-far", &amounts)).await.unwrap_err();
        assert_eq!(refused.code, 403, "{refused}");
    }

    let mut changed = place.wire.get(&format!("{ranges}/limit-range")).await.unwrap();
    changed["spec"]["limits"][0]["min"] = json!({"cpu": "9m", "memory": "49Mi", "ephemeral-storage": "49Gi"});
    place.wire.put(&format!("{ranges}/limit-range"), &changed).await.unwrap();
    let small = json!({"cpu": "10m", "memory": "50Mi", "ephemeral-storage": "50Gi"});
    place.create("pods", &pod("pod-small", &small)).await.unwrap();
    let big = json!({"cpu": "600m", "memory": "600Mi", "ephemeral-storage": "600Gi"});
    assert_eq!(place.create("pods", &pod("pod-big", &big)).await.unwrap_err().code, 403);
    place.wire.delete(&format!("{ranges}/limit-range")).await.unwrap();
    assert!(place.wire.items(&ranges).await.is_empty());
    place.create("pods", &pod("pod-big", &big)).await.unwrap();
}

// conformance: [sig-scheduling] LimitRange should list, patch and delete a LimitRange by collection
async fn limits_by_collection(world: &World) {
    let place = Place::new(world, "limits-two").await;
    let spec = json!({"limits": [{"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}}]});
    let body = json!({"metadata": {"name": "e2e-limitrange", "labels": {"e2e": "limits"}}, "spec": spec});
    place.create("limitranges", &body).await.unwrap();
    let selected = "labelSelector=e2e%3Dlimits";
    assert_eq!(place.wire.items(&format!("/api/v1/limitranges?{selected}")).await.len(), 1);
    let patch = json!({"metadata": {"labels": {"e2e-patched": "yes"}},
        "spec": {"limits": [{"type": "Container", "default": {"cpu": "400m"}, "defaultRequest": {"cpu": "40m"}}]}});
    let path = format!("{}/limitranges", place.path);
    let patched = place.wire.patch(&format!("{path}/e2e-limitrange"), STRATEGIC, &patch).await.unwrap();
    assert_eq!(patched["spec"]["limits"][0]["defaultRequest"]["cpu"], "40m");
    assert_eq!(patched["metadata"]["labels"]["e2e-patched"], "yes");
    place.wire.delete(&format!("{path}?labelSelector=e2e-patched%3Dyes")).await.unwrap();
    assert!(place.wire.items(&format!("/api/v1/limitranges?{selected}")).await.is_empty());
}

#[tokio::test]
async fn limit_ranges() {
    let world = World::start().await;
    limits_give_defaults(&world).await;
    limits_by_collection(&world).await;
}
