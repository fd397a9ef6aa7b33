//! Pods reach each other and the machine reaches them; host ports; the API server's proxy.

use std::net::SocketAddr;

use serde_json::json;

use super::{Lab, SERVER, ask_udp, pod};
use crate::cluster::fetch;

pub fn check(lab: &Lab) {
    api_server_is_a_service(lab);
    http_between_pods(lab);
    udp_between_pods(lab);
    host_ports(lab);
    hosts_file(lab);
    proxy(lab);
}

// conformance: [sig-network] API Server should provide secure master service
// conformance: [sig-network] API Server should have Endpoints and EndpointSlices pointing to API Server
fn api_server_is_a_service(lab: &Lab) {
    assert_eq!(lab.field("svc/kubernetes", ".spec.ports[0].port"), "443");
    let endpoints = lab.field("endpoints/kubernetes", ".subsets[0].addresses[0].ip");
    let slice = lab.cluster.json(&["get", "endpointslices", "-l", "kubernetes.io/service-name=kubernetes"]);
    assert_eq!(slice["items"][0]["endpoints"][0]["addresses"][0], endpoints.as_str());
    assert_eq!(slice["items"][0]["ports"][0]["name"], "https");
    let address = lab.field("svc/kubernetes", ".spec.clusterIP");
    let banner = lab.ask(&format!("nc -w 2 {address} 443 < /dev/null && echo open"));
    assert!(banner.contains("open"), "{banner}");
}

// conformance: [sig-network] Networking Granular Checks: Pods should function for intra-pod communication: http [NodeConformance]
// conformance: [sig-network] Networking Granular Checks: Pods should function for node-pod communication: http [LinuxOnly] [NodeConformance]
pub fn http_between_pods(lab: &Lab) {
    let names: Vec<&str> = lab.backends.iter().map(|(name, _)| name.as_str()).collect();
    let addresses: Vec<&str> = lab.backends.iter().map(|(_, address)| address.as_str()).collect();
    let script = format!(
        "for at in {}; do timeout 5 wget -q -O - http://$at:8080/hostname; done",
        addresses.join(" ")
    );
    for from in &names {
        lab.until(&format!("{from} reaches all"), |lab| {
            lab.ask_in(from, &script).lines().eq(names.iter().copied())
        });
    }
    lab.on_nodes(|node| {
        for (name, address) in &lab.backends {
            let page = fetch_path(&format!("{address}:8080"), "/hostname");
            assert_eq!(page, *name, "{node} reaches the pod");
        }
    });
}

// conformance: [sig-network] Networking Granular Checks: Pods should function for intra-pod communication: udp [NodeConformance]
// conformance: [sig-network] Networking Granular Checks: Pods should function for node-pod communication: udp [LinuxOnly] [NodeConformance]
pub fn udp_between_pods(lab: &Lab) {
    for (name, address) in &lab.backends {
        lab.serve_udp(address, 8081, name);
    }
    for (name, address) in &lab.backends {
        let at: SocketAddr = format!("{address}:8081").parse().unwrap();
        for (_, from) in &lab.backends {
            assert_eq!(lab.inside(from, || ask_udp(at)), *name);
        }
        lab.on_nodes(|node| assert_eq!(ask_udp(at), *name, "{node} reaches the pod"));
    }
}

pub fn fetch_path(at: &str, path: &str) -> String {
    try_fetch_path(at, path).unwrap()
}

pub fn try_fetch_path(at: &str, path: &str) -> std::io::Result<String> {
    use std::io::{Read, Write};
    let patience = std::time::Duration::from_secs(5);
    let to = at.parse().map_err(std::io::Error::other)?;
    let mut stream = std::net::TcpStream::connect_timeout(&to, patience)?;
    stream.set_read_timeout(Some(patience))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: test\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).trim().to_owned())
}

// conformance: [sig-network] HostPort validates that there is no conflict between pods with same hostPort but different hostIP and protocol [LinuxOnly]
fn host_ports(lab: &Lab) {
    let (node, own) = &lab.nodes[0];
    let with = |name: &str, host: &str, protocol: &str| {
        let mut object = pod(name, json!({"test": "host-port"}), json!({"nodeName": node}), SERVER);
        object["spec"]["containers"][0]["ports"] =
            json!([{"containerPort": 8080, "hostPort": 54323, "hostIP": host, "protocol": protocol}]);
        lab.create(&object);
    };
    with("port1", "127.0.0.1", "TCP");
    with("port2", own, "TCP");
    with("port3", own, "UDP");
    let pods = lab.cluster.wait_for_pods("test=host-port", 3);
    let third = &pods.iter().find(|(name, _)| name == "port3").unwrap().1;
    lab.serve_udp(third, 8080, "port3");
    let at = |host: &str| format!("{host}:54323");
    lab.until("host ports answer", |lab| {
        lab.cluster.on_node(0, || fetch(&at("127.0.0.1")).is_ok() && fetch(&at(own)).is_ok())
    });
    lab.cluster.on_node(0, || {
        assert_eq!(fetch_path(&at("127.0.0.1"), "/hostname"), "port1");
        assert_eq!(fetch_path(&at(own), "/hostname"), "port2");
        assert_eq!(ask_udp(at(own).parse().unwrap()), "port3");
    });
    lab.delete(&["pods", "-l", "test=host-port"]);
}

// conformance: [sig-network] DNS should provide /etc/hosts entries for the cluster
fn hosts_file(lab: &Lab) {
    let mut object =
        pod("querier-1", json!({}), json!({"hostname": "querier-1", "subdomain": "sub"}), super::IDLE);
    object["metadata"]["labels"] = json!({"app": "querier"});
    lab.create(&super::service("sub", json!({"clusterIP": "None", "selector": {"app": "querier"}})));
    lab.create(&object);
    lab.cluster.wait_for_pods("app=querier", 1);
    let hosts = lab.ask_in("querier-1", "cat /etc/hosts");
    let address = lab.field("pod/querier-1", ".status.podIP");
    let line = hosts.lines().find(|line| line.starts_with(&address)).unwrap_or_default();
    let names: Vec<&str> = line.split_whitespace().skip(1).collect();
    assert_eq!(names, ["querier-1.sub.default.svc.cluster.local", "querier-1"], "{hosts}");
    assert!(hosts.lines().any(|line| line.starts_with("127.0.0.1") && line.contains("localhost")), "{hosts}");
    lab.delete(&["pod/querier-1", "svc/sub"]);
}

// conformance: [sig-network] Proxy version v1 should proxy through a service and a pod
// conformance: [sig-network] Proxy version v1 A set of valid responses are returned for both pod and service ProxyWithPath
// conformance: [sig-network] Proxy version v1 A set of valid responses are returned for both pod and service Proxy
fn proxy(lab: &Lab) {
    // Its own server, since the answers must tell the method.
    let script = "mkdir -p /tmp/cgi-bin; printf '#!/bin/sh\\necho Content-Type: text/plain; echo; echo $REQUEST_METHOD $PATH_INFO' > /tmp/cgi-bin/method; \
        chmod +x /tmp/cgi-bin/method; echo front > /tmp/index.html; httpd -p 8080 -h /tmp; sleep 3600";
    lab.create(&pod("proxied", json!({"app": "proxied"}), json!({}), script));
    lab.create(&super::service(
        "proxied",
        json!({"selector": {"app": "proxied"}, "ports": [{"name": "web", "port": 81, "targetPort": "http"}]}),
    ));
    lab.cluster.wait_for_pods("app=proxied", 1);
    let base = "/api/v1/namespaces/default";
    let get = |path: String| {
        let output = lab.cluster.try_kubectl(&["get", "--raw", &path]);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    for path in [
        "pods/proxied:8080/proxy/",
        "pods/http:proxied:8080/proxy/",
        "services/proxied:81/proxy/",
        "services/http:proxied:81/proxy/",
        "services/proxied:web/proxy/",
        "services/http:proxied:web/proxy/",
    ] {
        lab.until(&format!("{path} answers"), |_| get(format!("{base}/{path}")) == "front");
    }
    for (verb, method) in [("create", "POST"), ("replace", "PUT"), ("get", "GET")] {
        for target in ["pods/http:proxied:8080", "services/http:proxied:web"] {
            let path = format!("{base}/{target}/proxy/cgi-bin/method/some/path");
            let mut arguments = vec![verb, "--raw", &path];
            if verb != "get" {
                arguments.extend(["-f", "/dev/null"]);
            }
            let output = lab.cluster.try_kubectl(&arguments);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(text.trim(), format!("{method} /some/path"), "{output:?}");
        }
    }
    lab.delete(&["pod/proxied", "svc/proxied"]);
}
