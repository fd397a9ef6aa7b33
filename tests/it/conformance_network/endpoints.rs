//! Endpoints and EndpointSlices: made for pods, mirrored from one another, made by hand.

use serde_json::{Value, json};

use super::{Lab, front, service};

pub fn check(lab: &Lab) {
    of_pods(lab);
    of_nobody(lab);
    lifecycle(lab);
    mirrored(lab);
    several_addresses(lab);
    several_ports(lab);
}

fn slices(lab: &Lab, service: &str) -> Vec<Value> {
    let label = format!("kubernetes.io/service-name={service}");
    let list = lab.cluster.json(&["get", "endpointslices", "-l", &label]);
    list["items"].as_array().unwrap().clone()
}

fn addresses(slices: &[Value]) -> Vec<String> {
    let endpoints = slices.iter().flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    let mut found: Vec<String> =
        endpoints.filter_map(|endpoint| Some(endpoint["addresses"][0].as_str()?.to_owned())).collect();
    found.sort();
    found
}

fn legacy_addresses(lab: &Lab, name: &str) -> Vec<String> {
    let output =
        lab.cluster.try_kubectl(&["get", "endpoints", name, "-o", "jsonpath={.subsets[*].addresses[*].ip}"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut found: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    found.sort();
    found
}

fn exists(lab: &Lab, what: &str) -> bool {
    lab.cluster.try_kubectl(&["get", what]).status.success()
}

// conformance: [sig-network] EndpointSlice should create Endpoints and EndpointSlices for Pods matching a Service
// conformance: [sig-network] EndpointsController should create Endpoints for Pods matching a Service
fn of_pods(lab: &Lab) {
    lab.create(&service(
        "matching",
        front(json!({"ports": [{"name": "web", "port": 80, "targetPort": "http"}]})),
    ));
    let mut pods: Vec<String> = lab.backends.iter().map(|(_, address)| address.clone()).collect();
    pods.sort();
    lab.until("both forms have the pods", |lab| {
        addresses(&slices(lab, "matching")) == pods && legacy_addresses(lab, "matching") == pods
    });
    let slice = slices(lab, "matching").remove(0);
    assert_eq!(slice["ports"], json!([{"name": "web", "port": 8080, "protocol": "TCP"}]));
    assert_eq!(
        slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"],
        "endpointslice-controller.k8s.io"
    );
    assert_eq!(
        slice["endpoints"][0]["conditions"],
        json!({"ready": true, "serving": true, "terminating": false})
    );
    let targets: Vec<&str> = slice["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|e| e["targetRef"]["name"].as_str())
        .collect();
    assert!(lab.backends.iter().all(|(name, _)| targets.contains(&name.as_str())), "{targets:?}");
    lab.cluster.kubectl(&["delete", "svc/matching"]);
    lab.until("both forms are gone", |lab| {
        slices(lab, "matching").is_empty() && !exists(lab, "endpoints/matching")
    });
}

// conformance: [sig-network] EndpointSlice should create and delete EndpointSlices for a Service with a selector that matches no pods
// conformance: [sig-network] EndpointsController should create and delete Endpoints for a Service with a selector that matches no pods
fn of_nobody(lab: &Lab) {
    lab.create(&service(
        "empty",
        json!({"selector": {"app": "nobody"}, "ports": [{"name": "example", "port": 80}]}),
    ));
    lab.until("both forms are there", |lab| {
        !slices(lab, "empty").is_empty() && exists(lab, "endpoints/empty")
    });
    assert_eq!(addresses(&slices(lab, "empty")), Vec::<String>::new());
    assert_eq!(legacy_addresses(lab, "empty"), Vec::<String>::new());
    lab.cluster.kubectl(&["delete", "svc/empty"]);
    lab.until("both forms are gone", |lab| {
        slices(lab, "empty").is_empty() && !exists(lab, "endpoints/empty")
    });
}

fn endpoints(name: &str, address: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": name, "labels": {"by": "hand"}},
        "subsets": [{"addresses": [{"ip": address}], "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}]})
}

// conformance: [sig-network] Endpoints should test the lifecycle of an Endpoint
fn lifecycle(lab: &Lab) {
    lab.create(&endpoints("life", "10.0.0.24"));
    let listed = lab.cluster.json(&["get", "endpoints", "-A", "-l", "by=hand"]);
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    let mut updated = lab.cluster.json(&["get", "endpoints", "life"]);
    updated["metadata"]["labels"]["updated"] = json!("yes");
    lab.cluster.feed(&["replace"], &updated.to_string());
    assert_eq!(lab.field("endpoints/life", ".metadata.labels.updated"), "yes");
    let patch = json!({"metadata": {"labels": {"patched": "yes"}}, "subsets": [{"addresses": [{"ip": "10.0.0.25"}],
        "ports": [{"name": "http-test", "port": 8080, "protocol": "TCP"}]}]});
    lab.cluster.kubectl(&["patch", "endpoints", "life", "-p", &patch.to_string()]);
    assert_eq!(lab.field("endpoints/life", ".subsets[0].addresses[0].ip"), "10.0.0.25");
    assert_eq!(lab.field("endpoints/life", ".subsets[0].ports[0].port"), "8080");
    lab.cluster.kubectl(&["delete", "--raw", "/api/v1/namespaces/default/endpoints?labelSelector=by%3Dhand"]);
    lab.until("it is gone", |lab| !exists(lab, "endpoints/life"));
}

// conformance: [sig-network] EndpointSliceMirroring should mirror a custom Endpoints resource through create update and delete
fn mirrored(lab: &Lab) {
    lab.create(&service("mirrored", json!({"ports": [{"name": "http", "port": 80}]})));
    lab.create(&endpoints("mirrored", "10.1.2.3"));
    lab.until("the mirror is there", |lab| addresses(&slices(lab, "mirrored")) == ["10.1.2.3"]);
    let slice = slices(lab, "mirrored").remove(0);
    assert_eq!(slice["ports"][0]["port"], 80);
    assert_eq!(
        slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"],
        "endpointslicemirroring-controller.k8s.io"
    );
    lab.cluster.feed(&["replace"], &endpoints("mirrored", "10.2.3.4").to_string());
    lab.until("the mirror follows", |lab| addresses(&slices(lab, "mirrored")) == ["10.2.3.4"]);
    lab.cluster.kubectl(&["delete", "endpoints/mirrored"]);
    lab.until("the mirror is gone", |lab| slices(lab, "mirrored").is_empty());
    lab.delete(&["svc/mirrored"]);
}

fn by_hand(name: &str, service: &str, ports: Value, addresses: &[&str]) -> Value {
    let endpoints: Vec<Value> = addresses.iter().map(|address| json!({"addresses": [address]})).collect();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service,
            "endpointslice.kubernetes.io/managed-by": "e2e-test"}},
        "ports": ports, "endpoints": endpoints})
}

// conformance: [sig-network] EndpointSlice should support a Service with multiple endpoint IPs specified in multiple EndpointSlices
fn several_addresses(lab: &Lab) {
    lab.create(&service(
        "addresses",
        json!({"ports": [{"name": "http", "port": 80}, {"name": "other", "port": 81}]}),
    ));
    let (first, second) = (&lab.backends[0], &lab.backends[1]);
    let port = |name: &str| json!([{"name": name, "port": 8080, "protocol": "TCP"}]);
    lab.create(&by_hand("addresses-1", "addresses", port("http"), &[&first.1]));
    lab.create(&by_hand("addresses-2", "addresses", port("other"), &[&second.1]));
    let at = lab.field("svc/addresses", ".spec.clusterIP");
    lab.until("each port has its address", |lab| {
        lab.who(&format!("{at}:80")) == first.0 && lab.who(&format!("{at}:81")) == second.0
    });
    lab.delete(&["svc/addresses", "endpointslice/addresses-1", "endpointslice/addresses-2"]);
}

// conformance: [sig-network] EndpointSlice should support a Service with multiple ports specified in multiple EndpointSlices
fn several_ports(lab: &Lab) {
    lab.create(&service(
        "ports",
        json!({"ports": [{"name": "http", "port": 80}, {"name": "other", "port": 81}]}),
    ));
    let (name, address) = &lab.backends[0];
    lab.ask_in(name, "httpd -p 8090 -h /tmp");
    let port = |name: &str, number: u16| json!([{"name": name, "port": number, "protocol": "TCP"}]);
    lab.create(&by_hand("ports-1", "ports", port("http", 8080), &[address]));
    lab.create(&by_hand("ports-2", "ports", port("other", 8090), &[address]));
    let at = lab.field("svc/ports", ".spec.clusterIP");
    lab.until("both ports answer", |lab| {
        lab.who(&format!("{at}:80")) == *name && lab.who(&format!("{at}:81")) == *name
    });
    lab.delete(&["svc/ports", "endpointslice/ports-1", "endpointslice/ports-2"]);
}
