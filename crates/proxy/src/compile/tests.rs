use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;

fn slice(addresses: Value) -> Value {
    json!({"metadata": {"name": "s-1"}, "addressType": "IPv4", "endpoints": addresses,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 5353, "protocol": "UDP"}]})
}

fn ready() -> Value {
    json!([{"addresses": ["10.42.0.5"], "nodeName": "here"}, {"addresses": ["10.42.1.7"], "nodeName": "there"}])
}

fn spec(extra: Value) -> Value {
    let mut spec = json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "type": "ClusterIP",
        "ports": [{"name": "http", "port": 80}]});
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    json!({"metadata": {"name": "s", "namespace": "d"}, "spec": spec})
}

fn place() -> Place {
    Place { node: "here".into(), zone: Some("z1".into()) }
}

fn check(service: Value, slices: &[Value], expected: Expect) {
    let service: Service = serde_json::from_value(service).unwrap();
    let slices: Vec<EndpointSlice> =
        slices.iter().map(|s| serde_json::from_value(s.clone()).unwrap()).collect();
    let entries = compile_service(&service, &slices.iter().collect::<Vec<_>>(), &place());
    expected.assert_eq(&entries.iter().map(|entry| format!("{entry}\n")).collect::<String>());
}

#[test]
fn a_cluster_address_is_spread_over_ready_endpoints_of_all_slices() {
    let second = slice(
        json!([{"addresses": ["10.42.2.2"], "conditions": {"ready": false, "serving": true, "terminating": true}},
        {"addresses": ["10.42.0.5"], "conditions": {"ready": true}}]),
    );
    check(
        spec(json!({})),
        &[slice(ready()), second],
        expect![[r#"
        Address 10.96.0.7:80 Tcp: one of 2
        Address 10.96.0.7:80 Tcp #0: 10.42.0.5:8080
        Address 10.96.0.7:80 Tcp #1: 10.42.1.7:8080
    "#]],
    );
}

#[test]
fn without_ready_endpoints_those_that_still_answer_are_used() {
    let draining = slice(json!([
        {"addresses": ["10.42.0.5"], "conditions": {"ready": false, "serving": true, "terminating": true}},
        {"addresses": ["10.42.0.6"], "conditions": {"ready": false, "serving": false, "terminating": true}},
        {"addresses": ["10.42.0.7"], "conditions": {"ready": false, "serving": false}}]));
    check(
        spec(json!({})),
        &[draining],
        expect![[r#"
        Address 10.96.0.7:80 Tcp: one of 1
        Address 10.96.0.7:80 Tcp #0: 10.42.0.5:8080
    "#]],
    );
}

#[test]
fn without_endpoints_it_is_refused_everywhere() {
    check(
        spec(json!({"type": "NodePort", "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
        "externalTrafficPolicy": "Local"})),
        &[],
        expect![[r#"
        Address 10.96.0.7:80 Tcp: refused, Reject
        NodePort 0.0.0.0:30080 Tcp: refused, Reject
        NodePort [::]:30080 Tcp: refused, Reject
    "#]],
    );
}

#[test]
fn several_ports_protocols_and_external_addresses() {
    check(
        spec(
            json!({"type": "LoadBalancer", "externalIPs": ["198.51.100.1"], "ipFamilies": ["IPv4"], "ports": [
        {"name": "http", "port": 80, "nodePort": 30080}, {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053},
        {"name": "other", "port": 99}]}),
        ),
        &[slice(json!([{"addresses": ["10.42.0.5"]}]))],
        expect![[r#"
            Address 10.96.0.7:80 Tcp: one of 1
            Address 10.96.0.7:53 Udp: one of 1
            Address 198.51.100.1:80 Tcp: one of 1
            Address 198.51.100.1:53 Udp: one of 1
            NodePort 0.0.0.0:30080 Tcp: one of 1
            NodePort 0.0.0.0:30053 Udp: one of 1
            Address 10.96.0.7:80 Tcp #0: 10.42.0.5:8080
            Address 10.96.0.7:53 Udp #0: 10.42.0.5:5353
            Address 198.51.100.1:80 Tcp #0: 10.42.0.5:8080
            Address 198.51.100.1:53 Udp #0: 10.42.0.5:5353
            NodePort 0.0.0.0:30080 Tcp #0: 10.42.0.5:8080
            NodePort 0.0.0.0:30053 Udp #0: 10.42.0.5:5353
            Address 10.96.0.7:99 Tcp: refused, Reject
            Address 198.51.100.1:99 Tcp: refused, Reject
        "#]],
    );
}

#[test]
fn local_policies_use_this_nodes_endpoints() {
    let policy = json!({"internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local", "type": "NodePort",
        "ipFamilies": ["IPv4"], "ports": [{"name": "http", "port": 80, "nodePort": 30080}]});
    check(
        spec(policy.clone()),
        &[slice(ready())],
        expect![[r#"
        Address 10.96.0.7:80 Tcp: one of 1
        NodePort 0.0.0.0:30080 Tcp: one of 2
        NodePortFromOutside 0.0.0.0:30080 Tcp: one of 1
        Address 10.96.0.7:80 Tcp #0: 10.42.0.5:8080
        NodePort 0.0.0.0:30080 Tcp #0: 10.42.0.5:8080
        NodePort 0.0.0.0:30080 Tcp #1: 10.42.1.7:8080
        NodePortFromOutside 0.0.0.0:30080 Tcp #0: 10.42.0.5:8080
    "#]],
    );
    check(
        spec(policy),
        &[slice(json!([{"addresses": ["10.42.1.7"], "nodeName": "there"}]))],
        expect![[r#"
        NodePort 0.0.0.0:30080 Tcp: one of 1
        NodePortFromOutside 0.0.0.0:30080 Tcp: drop
        NodePort 0.0.0.0:30080 Tcp #0: 10.42.1.7:8080
        Address 10.96.0.7:80 Tcp: refused, Drop
    "#]],
    );
}

#[test]
fn clients_stick_to_members() {
    check(
        spec(
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}}),
        ),
        &[slice(json!([{"addresses": ["10.42.0.5"]}]))],
        expect![[r#"
            Address 10.96.0.7:80 Tcp: one of 1, for 60 s
            Address 10.96.0.7:80 Tcp #0: 10.42.0.5:8080
            Address 10.96.0.7:80 Tcp may stick to 10.42.0.5:8080
        "#]],
    );
}

#[test]
fn both_families() {
    let six = json!({"metadata": {"name": "s-6"}, "addressType": "IPv6", "endpoints": [{"addresses": ["fd00::5"]}],
        "ports": [{"name": "http", "port": 8080}]});
    check(
        spec(json!({"clusterIPs": ["10.96.0.7", "fd00:96::7"]})),
        &[slice(ready()), six],
        expect![[r#"
        Address 10.96.0.7:80 Tcp: one of 2
        Address [fd00:96::7]:80 Tcp: one of 1
        Address 10.96.0.7:80 Tcp #0: 10.42.0.5:8080
        Address 10.96.0.7:80 Tcp #1: 10.42.1.7:8080
        Address [fd00:96::7]:80 Tcp #0: [fd00::5]:8080
    "#]],
    );
}

#[test]
fn services_that_are_not_ours_give_nothing() {
    check(spec(json!({"clusterIP": "None"})), &[slice(ready())], expect![""]);
    check(spec(json!({"type": "ExternalName", "externalName": "a.b"})), &[slice(ready())], expect![""]);
    let mut labelled = spec(json!({}));
    labelled["metadata"]["labels"] = json!({PROXY_NAME_LABEL: "other"});
    check(labelled, &[slice(ready())], expect![""]);
}

#[test]
fn host_ports_of_pods_on_this_node() {
    let pod = |node: &str, phase: &str| -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"nodeName": node, "containers": [
            {"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81},
                {"containerPort": 53, "hostPort": 53, "hostIP": "192.0.2.1", "protocol": "UDP"}]}]},
            "status": {"phase": phase, "podIPs": [{"ip": "10.42.0.5"}]}}))
        .unwrap()
    };
    let text =
        |pod: &Pod| compile_pod(pod, "here").iter().map(|entry| format!("{entry}\n")).collect::<String>();
    expect![[r#"
        Address 192.0.2.1:53 Udp: one of 1
        AddressFromOutside 192.0.2.1:53 Udp: one of 1
        NodePort 0.0.0.0:8080 Tcp: one of 1
        NodePortFromOutside 0.0.0.0:8080 Tcp: one of 1
        Address 192.0.2.1:53 Udp #0: 10.42.0.5:53
        AddressFromOutside 192.0.2.1:53 Udp #0: 10.42.0.5:53
        NodePort 0.0.0.0:8080 Tcp #0: 10.42.0.5:80
        NodePortFromOutside 0.0.0.0:8080 Tcp #0: 10.42.0.5:80
        local pod 10.42.0.5
    "#]]
    .assert_eq(&text(&pod("here", "Running")));
    assert_eq!(text(&pod("there", "Running")) + &text(&pod("here", "Succeeded")), "");
}

fn endpoints_chosen(endpoints: Value) -> Vec<String> {
    let service: Service = serde_json::from_value(spec(json!({}))).unwrap();
    let slice: EndpointSlice = serde_json::from_value(slice(endpoints)).unwrap();
    let entries = compile_service(&service, &[&slice], &place());
    let chosen = entries.iter().filter_map(|entry| match entry {
        Entry::Endpoint { endpoint, .. } => Some(endpoint.ip().to_string()),
        _ => None,
    });
    chosen.collect()
}

#[test]
fn hints_lead_to_the_node_or_the_zone_when_all_endpoints_have_them() {
    let endpoint = |address: &str, zone: Option<&str>, node: Option<&str>| {
        let mut hints = json!({});
        if let Some(zone) = zone {
            hints["forZones"] = json!([{"name": zone}]);
        }
        if let Some(node) = node {
            hints["forNodes"] = json!([{"name": node}]);
        }
        json!({"addresses": [address], "hints": hints})
    };
    for (endpoints, expected) in [
        (
            vec![endpoint("10.0.0.1", Some("z1"), None), endpoint("10.0.0.2", Some("z2"), None)],
            vec!["10.0.0.1"],
        ),
        (vec![endpoint("10.0.0.1", Some("z2"), None)], vec!["10.0.0.1"]),
        (
            vec![endpoint("10.0.0.1", Some("z1"), None), endpoint("10.0.0.2", None, None)],
            vec!["10.0.0.1", "10.0.0.2"],
        ),
        (
            vec![
                endpoint("10.0.0.1", Some("z1"), Some("there")),
                endpoint("10.0.0.2", Some("z2"), Some("here")),
            ],
            vec!["10.0.0.2"],
        ),
        (
            vec![
                endpoint("10.0.0.1", Some("z1"), Some("there")),
                endpoint("10.0.0.2", Some("z2"), Some("far")),
            ],
            vec!["10.0.0.1"],
        ),
    ] {
        assert_eq!(endpoints_chosen(json!(endpoints)), expected, "{endpoints:?}");
    }
}

#[test]
fn source_ranges_guard_the_balancers_addresses_only() {
    let mut service = spec(json!({"type": "LoadBalancer", "externalIPs": ["192.0.2.9"],
        "loadBalancerSourceRanges": ["198.51.100.0/25", "198.51.100.128/25", "2001:db8::/32"]}));
    service["status"] = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}});
    let service: Service = serde_json::from_value(service).unwrap();
    let slice: EndpointSlice = serde_json::from_value(slice(ready())).unwrap();
    let entries = compile_service(&service, &[&slice], &place());
    let guards: Vec<String> = entries
        .iter()
        .filter(|entry| matches!(entry, Entry::Guarded { .. } | Entry::Allowed { .. }))
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        guards,
        ["Address 203.0.113.7:80 Tcp: guarded", "Address 203.0.113.7:80 Tcp: for 198.51.100.0/24"]
    );
}

#[test]
fn health_is_the_number_of_ready_endpoints_here() {
    let health = |extra: Value, endpoints: Value| {
        let service: Service = serde_json::from_value(spec(extra)).unwrap();
        let slice: EndpointSlice = serde_json::from_value(slice(endpoints)).unwrap();
        compile_health(&service, &[&slice], &place()).map(|health| (health.port, health.local_endpoints))
    };
    let local =
        json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30100});
    assert_eq!(health(local.clone(), ready()), Some((30100, 1)));
    assert_eq!(health(local, json!([])), Some((30100, 0)));
    assert_eq!(health(json!({"type": "LoadBalancer"}), ready()), None);
}
