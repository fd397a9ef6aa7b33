//! Services that change their type.

use serde_json::json;

use super::{Lab, front, service};

pub fn check(lab: &Lab) {
    lab.create(&service("target", front(json!({}))));
    from_external(lab, "ClusterIP");
    from_external(lab, "NodePort");
    to_external(lab, "ClusterIP");
    to_external(lab, "NodePort");
    lab.delete(&["svc/target"]);
}

// conformance: [sig-network] Services should be able to change the type from ExternalName to ClusterIP
// conformance: [sig-network] Services should be able to change the type from ExternalName to NodePort
fn from_external(lab: &Lab, kind: &str) {
    lab.create(&service("turning", json!({"type": "ExternalName", "externalName": "foo.example.com"})));
    assert_eq!(lab.field("svc/turning", ".spec.clusterIP"), "");
    let spec = json!({"spec": front(json!({"type": kind, "externalName": null}))}).to_string();
    lab.cluster.kubectl(&["patch", "svc", "turning", "-p", &spec]);
    let address = lab.field("svc/turning", ".spec.clusterIP");
    let port = lab.field("svc/turning", ".spec.ports[0].nodePort");
    assert!(!address.is_empty());
    assert_eq!(port.is_empty(), kind == "ClusterIP");
    for place in lab.places("turning") {
        lab.until_all_answer(&place);
    }
    lab.cluster.kubectl(&["delete", "svc/turning"]);
}

// conformance: [sig-network] Services should be able to change the type from ClusterIP to ExternalName
// conformance: [sig-network] Services should be able to change the type from NodePort to ExternalName
fn to_external(lab: &Lab, kind: &str) {
    lab.create(&service("turning", front(json!({"type": kind}))));
    let address = lab.field("svc/turning", ".spec.clusterIP");
    let port = lab.field("svc/turning", ".spec.ports[0].nodePort");
    lab.until_all_answer(&address);
    let name = "target.default.svc.cluster.local";
    let spec = json!({"spec": {"type": "ExternalName", "externalName": name, "clusterIP": null, "clusterIPs": null}});
    lab.cluster.kubectl(&["patch", "svc", "turning", "--type=merge", "-p", &spec.to_string()]);
    assert_eq!(lab.field("svc/turning", ".spec.clusterIP"), "");
    assert_eq!(lab.field("svc/turning", ".spec.ports[0].nodePort"), "", "the port is released");
    let target = lab.field("svc/target", ".spec.clusterIP");
    lab.until("the name leads elsewhere", |lab| {
        let known = lab.ask("nslookup -type=a turning.default.svc.cluster.local");
        known.contains(&format!("canonical name = {name}")) && known.contains(&format!("Address: {target}"))
    });
    lab.until("nobody answers at the old place", |lab| {
        lab.who(&address).is_empty()
            && (port.is_empty()
                || lab.nodes.iter().all(|(_, node)| lab.who(&format!("{node}:{port}")).is_empty()))
    });
    lab.cluster.kubectl(&["delete", "svc/turning"]);
}
