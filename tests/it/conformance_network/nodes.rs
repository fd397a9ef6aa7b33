//! What depends on the number of nodes: every pod reaches every Service from its own node, and policies hold on each.

use std::collections::BTreeSet;

use serde_json::json;

use super::{Lab, front, service};

pub fn check(lab: &Lab) {
    untainted(lab);
    backends_everywhere(lab);
    every_pod_reaches_services(lab);
    policies(lab);
}

// conformance: [sig-architecture] Conformance Tests should have at least two untainted nodes
fn untainted(lab: &Lab) {
    let list = lab.cluster.json(&["get", "nodes"]);
    let takes_pods = |node: &&serde_json::Value| {
        let spec = &node["spec"];
        spec["taints"].as_array().is_none_or(Vec::is_empty) && spec["unschedulable"] != true
    };
    let count = list["items"].as_array().unwrap().iter().filter(takes_pods).count();
    assert_eq!(count, lab.nodes.len(), "{list:#}");
}

fn backends_everywhere(lab: &Lab) {
    let path = "jsonpath={.items[*].spec.nodeName}";
    let nodes = lab.cluster.kubectl(&["get", "pods", "-l", "app=backend", "-o", path]);
    let nodes: BTreeSet<&str> = nodes.split_whitespace().collect();
    assert_eq!(nodes.len(), lab.nodes.len(), "{nodes:?}");
}

/// By address and by name; the name is asked of the DNS server of each node.
pub fn every_pod_reaches_services(lab: &Lab) {
    lab.create(&service("everywhere", front(json!({}))));
    let at = lab.field("svc/everywhere", ".spec.clusterIP");
    for (from, _) in &lab.backends {
        lab.until_all_answer_to(from, &at);
        lab.until_all_answer_to(from, "everywhere.default");
    }
    lab.delete(&["svc/everywhere"]);
}

/// Only `asker` may ask, and only on one port, wherever it and the asked are.
fn policies(lab: &Lab) {
    let from = json!([{"podSelector": {"matchLabels": {"app": "asker"}}}]);
    lab.create(
        &json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "guard"},
        "spec": {"podSelector": {"matchLabels": {"app": "backend"}}, "policyTypes": ["Ingress"],
            "ingress": [{"from": from, "ports": [{"port": 8080}]}]}}),
    );
    let addresses: Vec<&str> = lab.backends.iter().map(|(_, address)| address.as_str()).collect();
    let all = addresses.join(" ");
    let script = format!("for at in {all}; do timeout 1 wget -q -O - http://$at:8080/hostname; done");
    let names = || lab.backends.iter().map(|(name, _)| name.as_str());
    for (name, own) in &lab.backends {
        // A pod always reaches itself.
        let others = script.replace(own.as_str(), "");
        lab.until(&format!("{name} is refused"), |lab| lab.ask_in(name, &others).is_empty());
    }
    assert!(lab.ask(&script).lines().eq(names()), "the one that may ask is answered by all");
    lab.cluster.kubectl(&["delete", "networkpolicy", "guard"]);
    for (name, _) in &lab.backends {
        lab.until(&format!("{name} is let in again"), |lab| lab.ask_in(name, &script).lines().eq(names()));
    }
}
