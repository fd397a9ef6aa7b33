//! Services. Addresses and node ports are given out by admission; here is what they must look like.

use std::collections::BTreeSet;

use jiff::Timestamp;
use machinery::{FieldError, Object};
use serde_json::{Value, json};

use crate::check::Errors;
use crate::table_format::{labels, none_if_empty};
use crate::value::{Access, Fill, is_zero};
use crate::{Context, Strategy, names, row};

const AFFINITY_SECONDS: i64 = 10_800;
const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

pub struct Services;

impl Strategy for Services {
    fn default(&self, object: &mut Value) {
        let spec = object.child("spec");
        spec.default_zero("sessionAffinity", "None");
        spec.default_zero("type", "ClusterIP");
        match spec.text("/sessionAffinity") {
            "ClientIP" => {
                spec.child("sessionAffinityConfig")
                    .child("clientIP")
                    .default_absent("timeoutSeconds", AFFINITY_SECONDS);
            }
            _ => drop(spec.unset("sessionAffinityConfig")),
        }
        for port in spec.each("ports") {
            port.default_zero("protocol", "TCP");
            let number = port.at("/port").clone();
            port.default_zero("targetPort", number);
        }
        let kind = spec.text("/type").to_owned();
        if is_exposed(&kind) {
            spec.default_zero("externalTrafficPolicy", "Cluster");
        }
        if kind != "ExternalName" {
            spec.default_absent("internalTrafficPolicy", "Cluster");
        }
        if kind == "LoadBalancer" {
            spec.default_absent("allocateLoadBalancerNodePorts", true);
        }
    }

    fn prepare_create(&self, _context: &Context, object: &mut Value) {
        object.set("status", json!({"loadBalancer": {}}));
    }

    fn prepare_update(&self, _context: &Context, new: &mut Value, old: &Value) {
        new.copy_from(old, "status");
        keep_allocated(new, old);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let spec = object.at("/spec");
        let kind = spec.text("/type");
        errors.required_one_of("spec.type", kind, &TYPES);
        ports(&mut errors, spec);
        addresses(&mut errors, spec);
        errors.labels("spec.selector", spec.at("/selector"));
        errors.required_one_of("spec.sessionAffinity", spec.text("/sessionAffinity"), &["ClientIP", "None"]);
        let seconds = spec.int("/sessionAffinityConfig/clientIP/timeoutSeconds");
        if seconds.is_some_and(|seconds| !(1..=86_400).contains(&seconds)) {
            let path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
            errors.invalid(path, seconds, "must be greater than 0 and less than 86400");
        }
        policies(&mut errors, spec);
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let keeps_address = [new, old].iter().all(|object| object.text("/spec/type") != "ExternalName");
        let [new_ip, old_ip] = [new, old].map(|object| object.text("/spec/clusterIP"));
        if keeps_address && !old_ip.is_empty() && new_ip != old_ip {
            errors.invalid("spec.clusterIPs[0]", new.at("/spec/clusterIPs"), "may not change once set");
        }
        errors.extend(self.validate_create(new));
        errors.into_vec()
    }

    fn fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        let object = object.value();
        vec![
            ("spec.clusterIP", object.text("/spec/clusterIP").to_owned()),
            ("spec.type", object.text("/spec/type").to_owned()),
        ]
    }

    fn field_names(&self) -> &'static [&'static str] {
        &["spec.clusterIP", "spec.type"]
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        names::dns_1035_label(name)
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        let spec = object.at("/spec");
        let first = spec.text("/clusterIPs/0");
        let address = if first.is_empty() { spec.text("/clusterIP") } else { first };
        vec![
            row::name(object),
            row::text(object, "/spec/type", ""),
            none_if_empty(address).into(),
            external(object).into(),
            port_list(spec).into(),
            row::created(now, object),
            labels(spec.at("/selector")).into(),
        ]
    }
}

/// Whether a type has node ports.
pub fn is_exposed(kind: &str) -> bool {
    matches!(kind, "NodePort" | "LoadBalancer")
}

/// In an update: what was given out stays, unless the type no longer has it; and what another type had goes.
pub fn keep_allocated(new: &mut Value, old: &Value) {
    let [kind, old_kind] = [&*new, old].map(|object| object.text("/spec/type").to_owned());
    let before = old.at("/spec");
    let spec = new.child("spec");
    if kind == "ExternalName" {
        forget_stale(spec, before, &old_kind);
        return;
    }
    if old_kind != "ExternalName" {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if spec.get(field).is_none_or(is_zero) {
                spec.copy_from(before, field);
            }
        }
    }
    if is_exposed(&kind) && is_exposed(&old_kind) {
        keep_node_ports(spec, before);
        let checked = |spec: &Value, kind: &str| {
            kind == "LoadBalancer" && spec.text("/externalTrafficPolicy") == "Local"
        };
        if checked(spec, &kind)
            && checked(before, &old_kind)
            && spec.get("healthCheckNodePort").is_none_or(is_zero)
        {
            spec.copy_from(before, "healthCheckNodePort");
        }
    }
    if !is_exposed(&kind) && is_exposed(&old_kind) {
        forget_node_ports(spec, before);
    }
}

/// A service that becomes external has no address any more; one that the caller changed is left to validation.
fn forget_stale(spec: &mut Value, before: &Value, old_kind: &str) {
    if old_kind == "ExternalName" {
        return;
    }
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
        if spec.get(field) == before.get(field) {
            spec.unset(field);
        }
    }
    forget_node_ports(spec, before);
}

fn forget_node_ports(spec: &mut Value, before: &Value) {
    let known: Vec<_> = before.items("/ports").iter().filter_map(|port| port.int("/nodePort")).collect();
    for port in spec.each("ports") {
        if port.int("/nodePort").is_some_and(|number| known.contains(&number)) {
            port.unset("nodePort");
        }
    }
    for field in ["externalTrafficPolicy", "healthCheckNodePort", "allocateLoadBalancerNodePorts"] {
        if spec.get(field) == before.get(field) {
            spec.unset(field);
        }
    }
}

fn keep_node_ports(spec: &mut Value, before: &Value) {
    let mut taken: BTreeSet<_> =
        spec.items("/ports").iter().filter_map(|port| port.int("/nodePort")).collect();
    for port in spec.each("ports").filter(|port| port.int("/nodePort").unwrap_or(0) == 0) {
        let same = |other: &&Value| {
            other.at("/port") == port.at("/port") && other.text("/protocol") == port.text("/protocol")
        };
        let number = before.items("/ports").iter().find(same).and_then(|other| other.int("/nodePort"));
        if let Some(number) = number.filter(|number| *number != 0 && taken.insert(*number)) {
            port.set("nodePort", number);
        }
    }
}

fn ports(errors: &mut Errors, spec: &Value) {
    let kind = spec.text("/type");
    let ports = spec.items("/ports");
    if ports.is_empty() && kind != "ExternalName" && spec.text("/clusterIP") != "None" {
        errors.required("spec.ports", "");
    }
    let (mut seen_names, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for (index, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        let name = port.text("/name");
        if ports.len() > 1 && name.is_empty() {
            errors.required(format!("{path}.name"), "");
        }
        errors.format(&format!("{path}.name"), name, names::dns_label);
        if !name.is_empty() && !seen_names.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), name));
        }
        let number = port.int("/port").unwrap_or(0);
        errors.port_number(&format!("{path}.port"), number);
        errors.required_one_of(&format!("{path}.protocol"), port.text("/protocol"), &["SCTP", "TCP", "UDP"]);
        errors.port(&format!("{path}.targetPort"), port.at("/targetPort"));
        if !is_exposed(kind) && port.int("/nodePort").is_some_and(|port| port != 0) {
            errors.forbidden(format!("{path}.nodePort"), &format!("may not be used when `type` is '{kind}'"));
        }
        if !seen.insert((port.text("/protocol"), number)) {
            let value = json!({"port": number, "protocol": port.text("/protocol")});
            errors.push(FieldError::duplicate(path, value));
        }
    }
}

fn addresses(errors: &mut Errors, spec: &Value) {
    let kind = spec.text("/type");
    let addresses: Vec<_> = spec.items("/clusterIPs").iter().filter_map(Value::as_str).collect();
    if kind == "ExternalName" {
        if !addresses.is_empty() {
            errors.forbidden("spec.clusterIPs", "may not be set for ExternalName services");
        }
        let name = spec.text("/externalName").trim_end_matches('.');
        errors.name("spec.externalName", name, names::dns_subdomain);
    }
    if is_exposed(kind) && spec.text("/clusterIP") == "None" {
        errors.invalid("spec.clusterIPs[0]", "None", format!("may not be set to 'None' for {kind} services"));
    }
    if addresses.first().is_some_and(|first| *first != spec.text("/clusterIP")) {
        let detail = "first value must match `clusterIP`";
        errors.invalid("spec.clusterIPs", &addresses, detail);
    }
    for (index, address) in addresses.iter().enumerate().filter(|(_, address)| **address != "None") {
        errors.ip(&format!("spec.clusterIPs[{index}]"), address);
    }
    for (index, address) in spec.items("/externalIPs").iter().enumerate() {
        errors.ip(&format!("spec.externalIPs[{index}]"), address.as_str().unwrap_or_default());
    }
    for (index, range) in spec.items("/loadBalancerSourceRanges").iter().enumerate() {
        let text = range.as_str().unwrap_or_default().trim();
        if text.parse::<ipnet::IpNet>().is_err() {
            let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            errors.invalid(format!("spec.loadBalancerSourceRanges[{index}]"), text, detail);
        }
    }
}

fn policies(errors: &mut Errors, spec: &Value) {
    let kind = spec.text("/type");
    for field in ["internalTrafficPolicy", "externalTrafficPolicy"] {
        errors.one_of(&format!("spec.{field}"), spec.text(&format!("/{field}")), &["Cluster", "Local"]);
    }
    let external = spec.text("/externalTrafficPolicy");
    if !external.is_empty() && !is_exposed(kind) && spec.items("/externalIPs").is_empty() {
        errors.invalid(
            "spec.externalTrafficPolicy",
            external,
            "may only be set for externally-accessible services",
        );
    }
    let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    errors.one_of("spec.ipFamilyPolicy", spec.text("/ipFamilyPolicy"), &policies);
    for (index, family) in spec.items("/ipFamilies").iter().enumerate() {
        let family = family.as_str().unwrap_or_default();
        errors.one_of(&format!("spec.ipFamilies[{index}]"), family, &["IPv4", "IPv6"]);
    }
    let checked = kind == "LoadBalancer" && external == "Local";
    let health = spec.int("/healthCheckNodePort").unwrap_or(0);
    if health != 0 && !checked {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.invalid("spec.healthCheckNodePort", health, detail);
    }
    if kind != "LoadBalancer" && spec.has("/loadBalancerClass") {
        errors.forbidden("spec.loadBalancerClass", "may only be used when `type` is 'LoadBalancer'");
    }
}

fn external(object: &Value) -> String {
    let mut addresses: Vec<&str> = Vec::new();
    match object.text("/spec/type") {
        "ExternalName" => return object.text("/spec/externalName").to_owned(),
        "LoadBalancer" => {
            for ingress in object.items("/status/loadBalancer/ingress") {
                let ip = ingress.text("/ip");
                addresses.push(if ip.is_empty() { ingress.text("/hostname") } else { ip });
            }
        }
        _ => {}
    }
    addresses.extend(object.items("/spec/externalIPs").iter().filter_map(Value::as_str));
    match (addresses.is_empty(), object.text("/spec/type")) {
        (true, "LoadBalancer") => "<pending>".to_owned(),
        (true, _) => "<none>".to_owned(),
        _ => addresses.join(","),
    }
}

fn port_list(spec: &Value) -> String {
    let texts: Vec<_> = spec
        .items("/ports")
        .iter()
        .map(|port| {
            let node_port = port.int("/nodePort").filter(|number| *number > 0);
            let node_port = node_port.map(|number| format!(":{number}")).unwrap_or_default();
            format!("{}{node_port}/{}", port.int("/port").unwrap_or(0), port.text("/protocol"))
        })
        .collect();
    none_if_empty(&texts.join(","))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(spec: Value, expected: Expect) {
        let mut object = json!({"metadata": {"name": "s"}, "spec": spec});
        Services.default(&mut object);
        let texts: Vec<_> = Services.validate_create(&object).iter().map(ToString::to_string).collect();
        expected.assert_eq(&texts.join("\n"));
    }

    #[test]
    fn services_are_checked() {
        check(json!({"ports": [{"port": 80}]}), expect![""]);
        check(json!({}), expect!["spec.ports: Required value"]);
        check(json!({"clusterIP": "None", "clusterIPs": ["None"]}), expect![""]);
        check(json!({"type": "ExternalName", "externalName": "example.com"}), expect![""]);
        check(
            json!({"type": "Other", "ports": [{"port": 0}, {"name": "b", "port": 80, "nodePort": 3}]}),
            expect![[r#"
                spec.type: Unsupported value: "Other": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"
                spec.ports[0].name: Required value
                spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive
                spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive
                spec.ports[1].nodePort: Forbidden: may not be used when `type` is 'Other'"#]],
        );
    }

    #[test]
    fn an_update_keeps_what_was_given_out() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]}});
        let mut new = json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]}});
        keep_allocated(&mut new, &old);
        assert_eq!(new, old);
        new["spec"]["type"] = json!("ClusterIP");
        keep_allocated(&mut new, &old);
        assert_eq!(new["spec"]["ports"][0].get("nodePort"), None);
        assert_eq!(new["spec"]["clusterIP"], "10.0.0.1");
        new["spec"]["type"] = json!("ExternalName");
        keep_allocated(&mut new, &old);
        assert_eq!(new["spec"].get("clusterIP"), None);
    }
}
