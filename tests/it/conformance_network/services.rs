//! Services carry connections: on their addresses, on node ports, with and without affinity, on several ports.

use std::net::SocketAddr;

use serde_json::json;

use super::{Lab, SERVER, ask_udp, front, pod, service};
use crate::cluster::fetch;

pub fn check(lab: &Lab) {
    node_port(lab);
    affinity(lab, false);
    affinity(lab, true);
    switched_affinity(lab, false);
    switched_affinity(lab, true);
    same_port_two_protocols(lab);
    basic_endpoint(lab);
    several_ports(lab);
    collections(lab);
    status(lab);
    latency(lab);
}

// conformance: [sig-network] Services should be able to create a functioning NodePort service
pub fn node_port(lab: &Lab) {
    lab.create(&service("outside", front(json!({"type": "NodePort"}))));
    for place in lab.places("outside") {
        lab.until_all_answer(&place);
    }
    let port = lab.field("svc/outside", ".spec.ports[0].nodePort");
    assert!((30_000..=32_767).contains(&port.parse::<u32>().unwrap()));
    for (_, address) in &lab.nodes {
        lab.until("the machine itself", |_| fetch(&format!("{address}:{port}")).is_ok());
    }
    lab.delete(&["svc/outside"]);
}

/// Whether all of several requests are answered by one.
fn is_sticky(lab: &Lab, place: &str) -> bool {
    let script = format!("for i in $(seq 1 16); do wget -q -O - http://{place}/hostname; done");
    let answers = lab.ask(&script);
    let names: std::collections::BTreeSet<&str> = answers.lines().collect();
    names.len() == 1 && answers.lines().count() == 16
}

fn with_affinity(lab: &Lab, name: &str, node_port: bool, affinity: &str) {
    let kind = if node_port { "NodePort" } else { "ClusterIP" };
    lab.create(&service(name, front(json!({"type": kind, "sessionAffinity": affinity}))));
}

// conformance: [sig-network] Services should have session affinity work for service with type clusterIP [LinuxOnly]
// conformance: [sig-network] Services should have session affinity work for NodePort service [LinuxOnly]
pub fn affinity(lab: &Lab, node_port: bool) {
    with_affinity(lab, "sticky", node_port, "ClientIP");
    for place in lab.places("sticky") {
        lab.until(&format!("{place} sticks"), |lab| is_sticky(lab, &place));
    }
    lab.cluster.kubectl(&["delete", "svc/sticky"]);
}

// conformance: [sig-network] Services should be able to switch session affinity for service with type clusterIP [LinuxOnly]
// conformance: [sig-network] Services should be able to switch session affinity for NodePort service [LinuxOnly]
fn switched_affinity(lab: &Lab, node_port: bool) {
    with_affinity(lab, "switched", node_port, "ClientIP");
    for (affinity, sticks) in [("None", false), ("ClientIP", true)] {
        let patch = json!({"spec": {"sessionAffinity": affinity}}).to_string();
        lab.cluster.kubectl(&["patch", "svc", "switched", "-p", &patch]);
        for place in lab.places("switched") {
            match sticks {
                true => lab.until(&format!("{place} sticks"), |lab| is_sticky(lab, &place)),
                false => lab.until_all_answer(&place),
            }
        }
    }
    lab.cluster.kubectl(&["delete", "svc/switched"]);
}

// conformance: [sig-network] Services should serve endpoints on same port and different protocols
fn same_port_two_protocols(lab: &Lab) {
    let port = |protocol: &str, name: &str| json!({"name": name, "protocol": protocol, "port": 80, "targetPort": 8080});
    let (tcp, udp) = (port("TCP", "tcp"), port("UDP", "udp"));
    lab.create(&pod("both", json!({"app": "both"}), json!({}), SERVER));
    lab.create(&service("both", json!({"selector": {"app": "both"}, "ports": [tcp, udp]})));
    let address = lab.cluster.wait_for_pods("app=both", 1)[0].1.clone();
    lab.serve_udp(&address, 8080, "both");
    let at = lab.field("svc/both", ".spec.clusterIP");
    let by_udp: SocketAddr = format!("{at}:80").parse().unwrap();
    let asker = lab.field("pod/asker", ".status.podIP");
    let seen = |lab: &Lab| (lab.who(&at) == "both", lab.inside(&asker, || ask_udp(by_udp)) == "both");
    lab.until("both protocols answer", |lab| seen(lab) == (true, true));
    for (ports, expected) in [(json!([tcp]), (true, false)), (json!([udp]), (false, true))] {
        let patch = json!([{"op": "replace", "path": "/spec/ports", "value": ports}]).to_string();
        lab.cluster.kubectl(&["patch", "svc", "both", "--type=json", "-p", &patch]);
        lab.until(&format!("{ports} answer"), |lab| seen(lab) == expected);
    }
    lab.delete(&["pod/both", "svc/both"]);
}

/// The ports of the ready endpoints of a Service, by pod.
fn endpoints(lab: &Lab, name: &str) -> Vec<(String, i64)> {
    let list =
        lab.cluster.json(&["get", "endpointslices", "-l", &format!("kubernetes.io/service-name={name}")]);
    let mut found = Vec::new();
    for slice in list["items"].as_array().unwrap() {
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            for port in slice["ports"].as_array().into_iter().flatten() {
                let pod = endpoint["targetRef"]["name"].as_str().unwrap_or_default();
                if endpoint["conditions"]["ready"] == true {
                    found.push((pod.to_owned(), port["port"].as_i64().unwrap()));
                }
            }
        }
    }
    found.sort();
    found
}

fn until_endpoints(lab: &Lab, name: &str, expected: &[(&str, i64)]) {
    let expected: Vec<(String, i64)> =
        expected.iter().map(|(pod, port)| ((*pod).to_owned(), *port)).collect();
    lab.until(&format!("{name} has {expected:?}"), |lab| endpoints(lab, name) == expected);
}

// conformance: [sig-network] Services should serve a basic endpoint from pods
fn basic_endpoint(lab: &Lab) {
    lab.create(&service(
        "basic",
        json!({"selector": {"app": "basic"}, "ports": [{"port": 80, "targetPort": 8080}]}),
    ));
    until_endpoints(lab, "basic", &[]);
    let at = lab.field("svc/basic", ".spec.clusterIP");
    lab.create(&pod("basic1", json!({"app": "basic"}), json!({}), SERVER));
    until_endpoints(lab, "basic", &[("basic1", 8080)]);
    lab.until("the first answers", |lab| lab.who(&at) == "basic1");
    lab.create(&pod("basic2", json!({"app": "basic"}), json!({}), SERVER));
    until_endpoints(lab, "basic", &[("basic1", 8080), ("basic2", 8080)]);
    lab.until("the second answers", |lab| lab.who(&at) == "basic2");
    lab.delete(&["pod/basic1"]);
    until_endpoints(lab, "basic", &[("basic2", 8080)]);
    lab.until("only the second answers", |lab| lab.who(&at) == "basic2");
    lab.delete(&["pod/basic2"]);
    until_endpoints(lab, "basic", &[]);
    lab.delete(&["svc/basic"]);
}

// conformance: [sig-network] Services should serve multiport endpoints from pods
fn several_ports(lab: &Lab) {
    lab.create(&service(
        "several",
        json!({"selector": {"app": "several"}, "ports": [
            {"name": "one", "port": 80, "targetPort": "one"}, {"name": "two", "port": 81, "targetPort": "two"}]}),
    ));
    until_endpoints(lab, "several", &[]);
    let with = |name: &str, port: &str, number: u16| {
        let script = SERVER.replace("8080", &number.to_string());
        let mut object = pod(name, json!({"app": "several"}), json!({}), &script);
        object["spec"]["containers"][0]["ports"] = json!([{"name": port, "containerPort": number}]);
        lab.create(&object);
    };
    with("several1", "one", 100);
    until_endpoints(lab, "several", &[("several1", 100)]);
    with("several2", "two", 101);
    until_endpoints(lab, "several", &[("several1", 100), ("several2", 101)]);
    let at = lab.field("svc/several", ".spec.clusterIP");
    lab.until("both ports answer", |lab| {
        lab.who(&format!("{at}:80")) == "several1" && lab.who(&format!("{at}:81")) == "several2"
    });
    lab.delete(&["pod/several1"]);
    until_endpoints(lab, "several", &[("several2", 101)]);
    lab.delete(&["pod/several2"]);
    until_endpoints(lab, "several", &[]);
    lab.delete(&["svc/several"]);
}

// conformance: [sig-network] Services should delete a collection of services
// conformance: [sig-network] Services should find a service from listing all namespaces
fn collections(lab: &Lab) {
    lab.cluster.kubectl(&["create", "namespace", "many"]);
    for name in ["one", "two", "three"] {
        let mut object = service(name, json!({"ports": [{"port": 80}]}));
        let wanted = if name == "three" { "stays" } else { "goes" };
        object["metadata"] = json!({"name": name, "namespace": "many", "labels": {"fate": wanted}});
        lab.create(&object);
    }
    let names =
        || lab.cluster.kubectl(&["get", "svc", "-n", "many", "-o", "jsonpath={.items[*].metadata.name}"]);
    assert_eq!(names(), "one three two");
    lab.cluster.kubectl(&["delete", "--raw", "/api/v1/namespaces/many/services?labelSelector=fate%3Dgoes"]);
    lab.until("two are gone", |_| names() == "three");
    let all = lab.cluster.kubectl(&["get", "svc", "-A", "--no-headers"]);
    assert!(all.lines().any(|line| line.starts_with("default ") && line.contains(" kubernetes ")), "{all}");
    lab.delete(&["namespace/many"]);
}

// conformance: [sig-network] Services should complete a service status lifecycle
fn status(lab: &Lab) {
    lab.create(&service(
        "states",
        json!({"type": "LoadBalancer", "loadBalancerClass": "example.com/internal-vip",
        "selector": {"app": "nobody"}, "ports": [{"name": "http", "port": 80}]}),
    ));
    let read = || lab.cluster.json(&["get", "svc", "states", "--subresource=status"]);
    assert_eq!(read()["status"]["loadBalancer"], json!({}), "a class of somebody else is left alone");
    let patch = r#"{"metadata":{"annotations":{"patchedstatus":"true"}},"status":{"loadBalancer":{"ingress":[{"ip":"203.0.113.1"}]}}}"#;
    lab.cluster.kubectl(&["patch", "svc", "states", "--subresource=status", "--type=merge", "-p", patch]);
    let patched = read();
    assert_eq!(patched["status"]["loadBalancer"]["ingress"][0]["ip"], "203.0.113.1");
    assert_eq!(patched["metadata"]["annotations"]["patchedstatus"], "true");
    let mut updated = patched;
    updated["status"]["conditions"] = json!([{"type": "StatusUpdate", "status": "True", "reason": "E2E",
        "message": "Set from e2e test", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    lab.cluster.feed(&["replace", "--subresource=status"], &updated.to_string());
    let status = read()["status"].clone();
    assert_eq!(
        (status["conditions"][0]["reason"].as_str(), status["conditions"].as_array().unwrap().len()),
        (Some("E2E"), 1)
    );
    let label = r#"{"metadata":{"labels":{"test-service":"patched"}}}"#;
    lab.cluster.kubectl(&["patch", "svc", "states", "-p", label]);
    assert_eq!(lab.field("svc/states", ".metadata.labels.test-service"), "patched");
    assert_eq!(lab.field("svc/states", ".status.loadBalancer.ingress[0].ip"), "203.0.113.1");
    lab.delete(&["svc/states"]);
}

// conformance: [sig-network] Service endpoints latency should not be very high
fn latency(lab: &Lab) {
    const COUNT: usize = 100;
    let list: Vec<_> =
        (0..COUNT).map(|number| service(&format!("quick-{number}"), front(json!({})))).collect();
    let start = std::time::Instant::now();
    lab.cluster.feed(&["create"], &json!({"apiVersion": "v1", "kind": "List", "items": list}).to_string());
    let complete = || {
        let all = lab.cluster.json(&["get", "endpointslices"]);
        let slices = all["items"].as_array().unwrap().iter();
        let full = slices.filter(|slice| {
            slice["metadata"]["generateName"].as_str().is_some_and(|name| name.starts_with("quick-"))
                && slice["endpoints"]
                    .as_array()
                    .is_some_and(|endpoints| endpoints.len() == lab.backends.len())
        });
        full.count() == COUNT
    };
    lab.until("all have endpoints", |_| complete());
    // Half of them within 20 s and nine tenths within 50 s, so all within 20 s is more than is asked.
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    lab.cluster.kubectl(&["delete", "--raw", "/api/v1/namespaces/default/services?labelSelector=test"]);
}
