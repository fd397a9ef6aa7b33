//! Services.

use serde_json::Value;

use super::page::{Page, items, or, text};
use crate::output::table::labels;

pub fn describe(page: &mut Page, service: &Value, slices: &[Value]) {
    let spec = &service["spec"];
    page.head(service);
    page.field(0, "Selector", labels(&spec["selector"]));
    page.field(0, "Type", or(&spec["type"], "ClusterIP"));
    page.optional(0, "IP Family Policy", &spec["ipFamilyPolicy"]);
    let join = |list: &Value| items(list).map(text).collect::<Vec<_>>().join(",");
    page.field(0, "IP Families", or(&Value::from(join(&spec["ipFamilies"])), "<none>"));
    page.field(0, "IP", or(&spec["clusterIP"], "<none>"));
    page.field(0, "IPs", or(&Value::from(join(&spec["clusterIPs"])), "<none>"));
    if spec["externalIPs"].is_array() {
        page.field(0, "External IPs", join(&spec["externalIPs"]));
    }
    page.optional(0, "External Name", &spec["externalName"]);
    let ingress = items(&service["status"]["loadBalancer"]["ingress"]);
    let ingress: Vec<_> =
        ingress.map(|at| text(if at["ip"].is_null() { &at["hostname"] } else { &at["ip"] })).collect();
    if !ingress.is_empty() {
        page.field(0, "LoadBalancer Ingress", ingress.join(", "));
    }
    for port in items(&spec["ports"]) {
        let name = or(&port["name"], "<unset>");
        let protocol = or(&port["protocol"], "TCP");
        page.field(0, "Port", format!("{name}\t{}/{protocol}", text(&port["port"])));
        page.field(0, "TargetPort", format!("{}/{protocol}", text(&port["targetPort"])));
        if port["nodePort"].as_u64().is_some_and(|port| port > 0) {
            page.field(0, "NodePort", format!("{name}\t{}/{protocol}", text(&port["nodePort"])));
        }
        page.field(0, "Endpoints", endpoints(slices, port));
    }
    page.field(0, "Session Affinity", or(&spec["sessionAffinity"], "None"));
    page.optional(0, "External Traffic Policy", &spec["externalTrafficPolicy"]);
    page.optional(0, "Internal Traffic Policy", &spec["internalTrafficPolicy"]);
}

/// The ready endpoints of a port, the first few by name.
fn endpoints(slices: &[Value], port: &Value) -> String {
    let mut all = Vec::new();
    for slice in slices {
        let number = items(&slice["ports"]).find(|other| {
            other["name"].as_str().unwrap_or_default() == port["name"].as_str().unwrap_or_default()
        });
        let Some(number) = number.and_then(|port| port["port"].as_u64()) else { continue };
        for endpoint in items(&slice["endpoints"]) {
            if endpoint["conditions"]["ready"] != false {
                all.extend(
                    items(&endpoint["addresses"]).map(|address| format!("{}:{number}", text(address))),
                );
            }
        }
    }
    match all.len() {
        0 => String::new(),
        1..=3 => all.join(","),
        count => format!("{} + {} more...", all[..3].join(","), count - 3),
    }
}
