//! Names: of Services, endpoints and pods, in full and in part.

use serde_json::json;

use super::{IDLE, Lab, front, pod, service};

pub fn check(lab: &Lab) {
    cluster_names(lab);
    services(lab);
    hostnames(lab);
    external_names(lab);
    configured(lab);
}

/// The addresses that `asker` gets for a name.
fn addresses(lab: &Lab, name: &str) -> Vec<String> {
    let text = lab.ask(&format!("nslookup -type=a {name}"));
    let (_, answer) = text.split_once("\n\n").unwrap_or_default();
    let lines = answer.lines().filter_map(|line| line.strip_prefix("Address: "));
    let mut found: Vec<String> = lines.map(str::to_owned).collect();
    found.sort();
    found
}

fn until_is(lab: &Lab, name: &str, expected: &[String]) {
    let mut expected = expected.to_vec();
    expected.sort();
    lab.until(&format!("{name} is {expected:?}"), |lab| addresses(lab, name) == expected);
}

// conformance: [sig-network] DNS should provide DNS for the cluster
fn cluster_names(lab: &Lab) {
    let address = lab.field("svc/kubernetes", ".spec.clusterIP");
    until_is(lab, "kubernetes.default.svc.cluster.local", std::slice::from_ref(&address));
    // By the search path, as programs ask.
    let found = lab.ask("ping -c 1 -W 1 kubernetes.default | head -1");
    assert!(found.contains(&format!("({address})")), "{found}");
    let own = lab.field("pod/asker", ".status.podIP");
    let name = format!("{}.default.pod.cluster.local", own.replace('.', "-"));
    until_is(lab, &name, &[own]);
}

// conformance: [sig-network] DNS should provide DNS for services
// conformance: [sig-network] DNS should resolve DNS of partial qualified names for services [LinuxOnly]
fn services(lab: &Lab) {
    let ports = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
    lab.create(&service("named", front(json!({"ports": ports}))));
    lab.create(&service("bare", front(json!({"ports": ports, "clusterIP": "None"}))));
    let address = lab.field("svc/named", ".spec.clusterIP");
    let pods: Vec<String> = lab.backends.iter().map(|(_, address)| address.clone()).collect();
    until_is(lab, "named.default.svc.cluster.local", std::slice::from_ref(&address));
    until_is(lab, "bare.default.svc.cluster.local", &pods);
    for partial in ["named", "named.default", "named.default.svc"] {
        let found = lab.ask(&format!("ping -c 1 -W 1 {partial} | head -1"));
        assert!(found.contains(&format!("({address})")), "{partial}: {found}");
    }
    for partial in ["bare", "bare.default", "bare.default.svc"] {
        let found = lab.ask(&format!("ping -c 1 -W 1 {partial} | head -1"));
        assert!(pods.iter().any(|pod| found.contains(&format!("({pod})"))), "{partial}: {found}");
    }
    let known = lab.ask("nslookup -type=srv _http._tcp.named.default.svc.cluster.local");
    assert!(known.contains("80 named.default.svc.cluster.local"), "{known}");
    let known = lab.ask("nslookup -type=srv _http._tcp.bare.default.svc.cluster.local");
    for pod in &pods {
        let label = pod.replace('.', "-");
        assert!(known.contains(&format!("8080 {label}.bare.default.svc.cluster.local")), "{known}");
    }
    let back = lab.ask(&format!("nslookup {address}"));
    assert!(back.contains("name = named.default.svc.cluster.local"), "{back}");
    let back = lab.ask(&format!("nslookup {}", pods[0]));
    assert!(back.contains(&format!("name = {}.", pods[0].replace('.', "-"))), "{back}");
    lab.delete(&["svc/named", "svc/bare"]);
}

// conformance: [sig-network] DNS should provide DNS for pods for Hostname
// conformance: [sig-network] DNS should provide DNS for pods for Subdomain
fn hostnames(lab: &Lab) {
    lab.create(&service(
        "headless",
        json!({"clusterIP": "None", "selector": {"app": "hosted"},
        "ports": [{"name": "http", "port": 80}]}),
    ));
    let extra = json!({"hostname": "webserver", "subdomain": "headless"});
    lab.create(&pod("hosted", json!({"app": "hosted"}), extra, IDLE));
    let address = lab.cluster.wait_for_pods("app=hosted", 1)[0].1.clone();
    until_is(lab, "webserver.headless.default.svc.cluster.local", std::slice::from_ref(&address));
    until_is(lab, "headless.default.svc.cluster.local", std::slice::from_ref(&address));
    assert_eq!(lab.ask_in("hosted", "hostname"), "webserver");
    assert!(lab.ask_in("hosted", "cat /etc/hosts").contains("webserver.headless.default.svc.cluster.local"));
    lab.delete(&["pod/hosted", "svc/headless"]);
}

// conformance: [sig-network] DNS should provide DNS for ExternalName services
fn external_names(lab: &Lab) {
    lab.create(&service("alias", json!({"type": "ExternalName", "externalName": "foo.example.com"})));
    let name = "alias.default.svc.cluster.local";
    let alias = |lab: &Lab| lab.ask(&format!("nslookup -type=cname {name}"));
    lab.until("the alias is known", |lab| alias(lab).contains("canonical name = foo.example.com"));
    lab.cluster.kubectl(&["patch", "svc", "alias", "-p", r#"{"spec":{"externalName":"bar.example.com"}}"#]);
    lab.until("the alias is changed", |lab| alias(lab).contains("canonical name = bar.example.com"));
    let to_address = r#"{"spec":{"type":"ClusterIP","externalName":null,"ports":[{"name":"http","port":80,"protocol":"TCP"}]}}"#;
    lab.cluster.kubectl(&["patch", "svc", "alias", "-p", to_address]);
    let address = lab.field("svc/alias", ".spec.clusterIP");
    until_is(lab, name, &[address]);
    lab.delete(&["svc/alias"]);
}

// conformance: [sig-network] DNS should support configurable pod DNS nameservers
fn configured(lab: &Lab) {
    let extra = json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["resolv.conf.local"]}});
    lab.create(&pod("configured", json!({"app": "configured"}), extra, IDLE));
    lab.cluster.wait_for_pods("app=configured", 1);
    let file = lab.ask_in("configured", "cat /etc/resolv.conf");
    let lines: Vec<&str> = file.lines().collect();
    assert!(lines.contains(&"nameserver 1.1.1.1") && lines.contains(&"search resolv.conf.local"), "{file}");
    assert_eq!(lines.iter().filter(|line| line.starts_with("nameserver")).count(), 1, "{file}");
    lab.delete(&["pod/configured"]);
}
