//! "API operations": create, get, list, watch, patch, update, delete and deletecollection of a kind, on the wire.

use serde_json::{Value, json};

use super::wire::{MERGE, Wire};
use super::world::World;

/// A kind under test.
struct Case {
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    namespaced: bool,
    /// Subresources that discovery must name.
    subresources: &'static [&'static str],
    /// All of the object but type, name and labels.
    body: Value,
    /// A merge patch of the object's own fields, and what it must make of a place of the object.
    change: (Value, &'static str, Value),
}

impl Case {
    fn api(&self) -> String {
        match self.group {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        }
    }

    fn collection(&self, namespace: &str) -> String {
        match (self.namespaced, namespace) {
            (true, namespace) if !namespace.is_empty() => {
                format!("{}/namespaces/{namespace}/{}", self.api(), self.resource)
            }
            _ => format!("{}/{}", self.api(), self.resource),
        }
    }

    /// Names of three objects.
    fn names(&self) -> [&'static str; 3] {
        match self.resource {
            "ipaddresses" => ["10.96.200.1", "10.96.200.2", "2001:db8::ffff"],
            _ => ["first", "second", "third"],
        }
    }

    fn object(&self, name: &str) -> Value {
        let mut object = self.body.clone();
        object["metadata"]["name"] = json!(name);
        object["metadata"]["labels"] = json!({"special-label": self.resource});
        object
    }
}

async fn discovery_names(wire: &Wire, case: &Case) {
    if !case.group.is_empty() {
        let groups = wire.get("/apis").await.unwrap();
        let names = |group: &&Value| group["name"] == case.group;
        let group = groups["groups"].as_array().unwrap().iter().find(names).unwrap().clone();
        let versions = group["versions"].as_array().unwrap();
        assert!(versions.iter().any(|one| one["version"] == case.version), "{group}");
        let group = wire.get(&format!("/apis/{}", case.group)).await.unwrap();
        let versions = group["versions"].as_array().unwrap();
        assert!(versions.iter().any(|one| one["version"] == case.version), "{group}");
    }
    let document = wire.get(&case.api()).await.unwrap();
    let found: Vec<_> = document["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap().to_owned())
        .collect();
    assert!(found.iter().any(|name| name == case.resource), "{found:?}");
    for subresource in case.subresources {
        let name = format!("{}/{subresource}", case.resource);
        assert!(found.contains(&name), "{name}: {found:?}");
    }
}

/// All operations of the kind; leaves nothing behind.
async fn operations(world: &World, case: Case) {
    let wire = &world.admin;
    discovery_names(wire, &case).await;
    let namespace = if case.namespaced { "default" } else { "" };
    let collection = case.collection(namespace);
    let labelled = format!("labelSelector=special-label%3D{}", case.resource);
    let [first, second, third] = case.names();
    let made = wire.post(&collection, &case.object(first)).await.unwrap();
    assert!(made["metadata"]["uid"].is_string() && made["metadata"]["creationTimestamp"].is_string());
    let again = wire.post(&collection, &case.object(first)).await.unwrap_err();
    assert!(again.is_already_exists(), "{again}");
    for name in [second, third] {
        wire.post(&collection, &case.object(name)).await.unwrap();
    }
    let path = format!("{collection}/{first}");
    assert_eq!(wire.get(&path).await.unwrap(), made);

    let list = wire.get(&format!("{collection}?{labelled}")).await.unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 3);
    let everywhere = case.collection("");
    assert_eq!(wire.items(&format!("{everywhere}?{labelled}")).await.len(), 3);
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch =
        wire.watch(&format!("{collection}?watch=true&resourceVersion={revision}&{labelled}")).await;

    changes(wire, &case, &path, &mut watch).await;

    wire.delete(&path).await.unwrap();
    wire.until_gone(&path).await;
    watch.until("DELETED", |object| object["metadata"]["name"] == first).await;
    assert_eq!(wire.items(&format!("{collection}?{labelled}")).await.len(), 2);
    let answer = wire.delete(&format!("{collection}?{labelled}")).await.unwrap();
    assert!(answer["kind"].as_str().unwrap().ends_with("List"), "{answer}");
    assert!(wire.items(&format!("{collection}?{labelled}")).await.is_empty());
    for _ in 0..2 {
        watch.until("DELETED", |_| true).await;
    }
}

/// Patch and update, seen by the watch.
async fn changes(wire: &Wire, case: &Case, path: &str, watch: &mut super::wire::Events) {
    let mut patch = case.change.0.clone();
    patch["metadata"]["annotations"] = json!({"patched": "true"});
    let patched = wire.patch(path, MERGE, &patch).await.unwrap();
    assert_eq!(patched["metadata"]["annotations"]["patched"], "true");
    assert_eq!(patched.pointer(case.change.1), Some(&case.change.2), "{patched:#}");
    let seen = watch.until("MODIFIED", |_| true).await;
    assert_eq!(seen["metadata"]["annotations"]["patched"], "true");

    let mut update = patched.clone();
    update["metadata"]["annotations"]["updated"] = json!("true");
    let updated = wire.put(path, &update).await.unwrap();
    assert_eq!(updated["metadata"]["annotations"], json!({"patched": "true", "updated": "true"}));
    let stale = wire.put(path, &update).await.unwrap_err();
    assert!(stale.is_conflict(), "{stale}");
    let seen = watch.until("MODIFIED", |_| true).await;
    assert_eq!(seen["metadata"]["annotations"]["updated"], "true");
    if case.subresources.contains(&"status") {
        status(wire, case, path).await;
    }
}

/// get, patch and update of `status`; the object itself does not follow.
async fn status(wire: &Wire, case: &Case, path: &str) {
    let path = format!("{path}/status");
    let got = wire.get(&path).await.unwrap();
    let mut patch = json!({"metadata": {"annotations": {"patchedstatus": "true"}}});
    if case.resource == "ingresses" {
        patch["status"] = json!({"loadBalancer": {"ingress": [{"ip": "169.1.1.1"}]}});
    } else {
        patch["status"] = json!({"conditions": [{"type": "PatchStatusFailed", "status": "False",
            "reason": "Patched", "message": "by a test", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    }
    let patched = wire.patch(&path, MERGE, &patch).await.unwrap();
    for field in ["conditions", "loadBalancer"] {
        assert_eq!(patched["status"].get(field), patch["status"].get(field), "{}", case.resource);
    }
    assert_eq!(patched["metadata"]["annotations"]["patchedstatus"], "true", "{}", case.resource);
    assert_eq!(patched.get("spec"), got.get("spec"));
    let mut update = patched;
    update["metadata"]["annotations"]["updatedstatus"] = json!("true");
    let updated = wire.put(&path, &update).await.unwrap();
    assert_eq!(updated["metadata"]["annotations"]["updatedstatus"], "true");
}

// conformance: [sig-api-machinery] API priority and fairness should support FlowSchema API operations
async fn flow_schemas(world: &World) {
    let spec = json!({
        "matchingPrecedence": 10_000,
        "priorityLevelConfiguration": {"name": "global-default"},
        "distinguisherMethod": {"type": "ByUser"},
        "rules": [{
            "subjects": [{"kind": "User", "user": {"name": "example-e2e-non-existent-user"}}],
            "nonResourceRules": [{"nonResourceURLs": ["*"], "verbs": ["*"]}],
        }],
    });
    operations(
        world,
        Case {
            group: "flowcontrol.apiserver.k8s.io",
            version: "v1",
            resource: "flowschemas",
            namespaced: false,
            subresources: &["status"],
            body: json!({"spec": spec}),
            change: (json!({"spec": {"matchingPrecedence": 9999}}), "/spec/matchingPrecedence", json!(9999)),
        },
    )
    .await;
}

// conformance: [sig-api-machinery] API priority and fairness should support PriorityLevelConfiguration API operations
async fn priority_levels(world: &World) {
    let spec = json!({"type": "Limited", "limited": {
        "nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"},
    }});
    operations(
        world,
        Case {
            group: "flowcontrol.apiserver.k8s.io",
            version: "v1",
            resource: "prioritylevelconfigurations",
            namespaced: false,
            subresources: &["status"],
            body: json!({"spec": spec}),
            change: (
                json!({"spec": {"limited": {"nominalConcurrencyShares": 4}}}),
                "/spec/limited/nominalConcurrencyShares",
                json!(4),
            ),
        },
    )
    .await;
}

fn policy_spec() -> Value {
    json!({
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [{
            "apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"],
        }]},
        "validations": [{"expression": "object.spec.replicas <= 100"}],
    })
}

// conformance: [sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should support ValidatingAdmissionPolicy API operations
async fn validating_policies(world: &World) {
    operations(
        world,
        Case {
            group: "admissionregistration.k8s.io",
            version: "v1",
            resource: "validatingadmissionpolicies",
            namespaced: false,
            subresources: &["status"],
            body: json!({"spec": policy_spec()}),
            change: (json!({"spec": {"failurePolicy": "Ignore"}}), "/spec/failurePolicy", json!("Ignore")),
        },
    )
    .await;
}

// conformance: [sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should support ValidatingAdmissionPolicyBinding API operations
async fn validating_bindings(world: &World) {
    operations(
        world,
        Case {
            group: "admissionregistration.k8s.io",
            version: "v1",
            resource: "validatingadmissionpolicybindings",
            namespaced: false,
            subresources: &[],
            body: json!({"spec": {"policyName": "replicalimit-policy.example.com", "validationActions": ["Deny"]}}),
            change: (
                json!({"spec": {"validationActions": ["Warn"]}}),
                "/spec/validationActions",
                json!(["Warn"]),
            ),
        },
    )
    .await;
}

// conformance: [sig-api-machinery] MutatingAdmissionPolicy [Privileged:ClusterAdmin] should support MutatingAdmissionPolicy API operations
async fn mutating_policies(world: &World) {
    let mut spec = policy_spec();
    spec["validations"].take();
    spec.as_object_mut().unwrap().remove("validations");
    spec["reinvocationPolicy"] = json!("Never");
    spec["mutations"] = json!([{"patchType": "ApplyConfiguration", "applyConfiguration": {
        "expression": "Object{metadata: Object.metadata{labels: {\"a\": \"b\"}}}",
    }}]);
    operations(
        world,
        Case {
            group: "admissionregistration.k8s.io",
            version: "v1",
            resource: "mutatingadmissionpolicies",
            namespaced: false,
            subresources: &[],
            body: json!({"spec": spec}),
            change: (json!({"spec": {"failurePolicy": "Ignore"}}), "/spec/failurePolicy", json!("Ignore")),
        },
    )
    .await;
}

// conformance: [sig-api-machinery] MutatingAdmissionPolicy [Privileged:ClusterAdmin] should support MutatingAdmissionPolicyBinding API operations
async fn mutating_bindings(world: &World) {
    operations(
        world,
        Case {
            group: "admissionregistration.k8s.io",
            version: "v1",
            resource: "mutatingadmissionpolicybindings",
            namespaced: false,
            subresources: &[],
            body: json!({"spec": {"policyName": "policy.example.com"}}),
            change: (
                json!({"spec": {"policyName": "other.example.com"}}),
                "/spec/policyName",
                json!("other.example.com"),
            ),
        },
    )
    .await;
}

// conformance: [sig-network] IngressClass API should support creating IngressClass API operations
async fn ingress_classes(world: &World) {
    operations(
        world,
        Case {
            group: "networking.k8s.io",
            version: "v1",
            resource: "ingressclasses",
            namespaced: false,
            subresources: &[],
            body: json!({"spec": {"controller": "example.com/controller"}}),
            change: (json!({}), "/spec/controller", json!("example.com/controller")),
        },
    )
    .await;
}

// conformance: [sig-network] Ingress API should support creating Ingress API operations
async fn ingresses(world: &World) {
    let backend = json!({"service": {"name": "default-backend", "port": {"number": 80}}});
    operations(
        world,
        Case {
            group: "networking.k8s.io",
            version: "v1",
            resource: "ingresses",
            namespaced: true,
            subresources: &["status"],
            body: json!({"spec": {"defaultBackend": backend, "rules": []}}),
            change: (
                json!({"spec": {"defaultBackend": {"service": {"port": {"number": 81}}}}}),
                "/spec/defaultBackend/service/port/number",
                json!(81),
            ),
        },
    )
    .await;
}

// conformance: [sig-network] EndpointSlice should support creating EndpointSlice API operations
async fn endpoint_slices(world: &World) {
    operations(
        world,
        Case {
            group: "discovery.k8s.io",
            version: "v1",
            resource: "endpointslices",
            namespaced: true,
            subresources: &[],
            body: json!({
                "addressType": "IPv4",
                "endpoints": [{"addresses": ["1.2.3.4", "5.6.7.8"]}],
                "ports": [{"port": 8080}],
            }),
            change: (json!({"ports": [{"port": 81}]}), "/ports/0/port", json!(81)),
        },
    )
    .await;
}

// conformance: [sig-network] ServiceCIDR and IPAddress API should support ServiceCIDR API operations
async fn service_cidrs(world: &World) {
    let default = world.admin.get("/apis/networking.k8s.io/v1/servicecidrs/kubernetes").await.unwrap();
    assert_eq!(default["spec"]["cidrs"], json!(["10.96.0.0/16"]), "{default:#}");
    operations(
        world,
        Case {
            group: "networking.k8s.io",
            version: "v1",
            resource: "servicecidrs",
            namespaced: false,
            subresources: &["status"],
            body: json!({"spec": {"cidrs": ["10.196.196.0/24"]}}),
            change: (json!({}), "/spec/cidrs/0", json!("10.196.196.0/24")),
        },
    )
    .await;
}

// conformance: [sig-network] ServiceCIDR and IPAddress API should support IPAddress API operations
async fn ip_addresses(world: &World) {
    let spec = json!({"parentRef": {"resource": "services", "name": "service", "namespace": "default"}});
    operations(
        world,
        Case {
            group: "networking.k8s.io",
            version: "v1",
            resource: "ipaddresses",
            namespaced: false,
            subresources: &[],
            body: json!({"spec": spec}),
            change: (json!({}), "/spec/parentRef/name", json!("service")),
        },
    )
    .await;
    let named = json!({"metadata": {"name": "first"}, "spec": spec});
    let refused = world.admin.post("/apis/networking.k8s.io/v1/ipaddresses", &named).await.unwrap_err();
    assert_eq!(refused.code, 422, "the name is an address");
}

// conformance: [sig-node] RuntimeClass should support RuntimeClasses API operations
async fn runtime_classes(world: &World) {
    operations(
        world,
        Case {
            group: "node.k8s.io",
            version: "v1",
            resource: "runtimeclasses",
            namespaced: false,
            subresources: &[],
            body: json!({"handler": "non-existent"}),
            change: (json!({}), "/handler", json!("non-existent")),
        },
    )
    .await;
}

// conformance: [sig-storage] CSIStorageCapacity should support CSIStorageCapacities API operations
async fn storage_capacities(world: &World) {
    operations(
        world,
        Case {
            group: "storage.k8s.io",
            version: "v1",
            resource: "csistoragecapacities",
            namespaced: true,
            subresources: &[],
            body: json!({"storageClassName": "class", "capacity": "1Gi", "nodeTopology": {}}),
            change: (json!({"capacity": "2Gi"}), "/capacity", json!("2Gi")),
        },
    )
    .await;
}

// conformance: [sig-node] PodTemplates should run the lifecycle of PodTemplates
// conformance: [sig-node] PodTemplates should delete a collection of pod templates
// conformance: [sig-node] PodTemplates should replace a pod template
async fn pod_templates(world: &World) {
    let spec = json!({"containers": [{"name": "nginx", "image": "nginx:1"}]});
    operations(
        world,
        Case {
            group: "",
            version: "v1",
            resource: "podtemplates",
            namespaced: true,
            subresources: &[],
            body: json!({"template": {"metadata": {"labels": {"a": "b"}}, "spec": spec}}),
            change: (
                json!({"template": {"metadata": {"labels": {"c": "d"}}}}),
                "/template/metadata/labels",
                json!({"a": "b", "c": "d"}),
            ),
        },
    )
    .await;
}

// conformance: [sig-node] Lease lease API should be available
async fn leases(world: &World) {
    let spec = json!({
        "holderIdentity": "holder", "leaseDurationSeconds": 30, "leaseTransitions": 0,
        "acquireTime": "2026-01-01T00:00:00.000000Z", "renewTime": "2026-01-01T00:00:05.123456Z",
    });
    let case = Case {
        group: "coordination.k8s.io",
        version: "v1",
        resource: "leases",
        namespaced: true,
        subresources: &[],
        body: json!({"spec": spec}),
        change: (json!({"spec": {"leaseDurationSeconds": 40}}), "/spec/leaseDurationSeconds", json!(40)),
    };
    let wire = &world.admin;
    let path = format!("{}/exact", case.collection("default"));
    let made = wire.post(&case.collection("default"), &case.object("exact")).await.unwrap();
    assert_eq!(made["spec"], spec);
    let mut update = made;
    update["spec"] = json!({"holderIdentity": "holder2", "leaseDurationSeconds": 45, "leaseTransitions": 1,
        "acquireTime": "2026-01-01T00:01:00.000000Z", "renewTime": "2026-01-01T00:01:05.000000Z"});
    assert_eq!(wire.put(&path, &update).await.unwrap()["spec"], update["spec"]);
    wire.delete(&path).await.unwrap();
    operations(world, case).await;
}

/// Answers say which FlowSchema and level their request belongs to.
async fn requests_are_sorted(world: &World) {
    let uid = async |path: &str| {
        world.admin.get(path).await.unwrap()["metadata"]["uid"].as_str().unwrap().to_owned()
    };
    let api = "/apis/flowcontrol.apiserver.k8s.io/v1";
    let anonymous = Wire(world.https.with_token(None));
    for (wire, name) in [(&world.admin, "exempt"), (&anonymous, "catch-all")] {
        let answer = wire.0.send(http::Method::GET, "/version", &[], bytes::Bytes::new()).await.unwrap();
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("x-kubernetes-pf-flowschema-uid"), uid(&format!("{api}/flowschemas/{name}")).await);
        let level = uid(&format!("{api}/prioritylevelconfigurations/{name}")).await;
        assert_eq!(header("x-kubernetes-pf-prioritylevel-uid"), level);
    }
}

#[tokio::test]
async fn api_operations_of_the_apis_own_kinds() {
    let world = World::without_controllers().await;
    requests_are_sorted(&world).await;
    flow_schemas(&world).await;
    priority_levels(&world).await;
    validating_policies(&world).await;
    validating_bindings(&world).await;
    mutating_policies(&world).await;
    mutating_bindings(&world).await;
}

#[tokio::test]
async fn api_operations_of_configuration() {
    let world = World::without_controllers().await;
    ingress_classes(&world).await;
    ingresses(&world).await;
    endpoint_slices(&world).await;
    runtime_classes(&world).await;
    storage_capacities(&world).await;
    pod_templates(&world).await;
    leases(&world).await;
    service_cidrs(&world).await;
    ip_addresses(&world).await;
}
