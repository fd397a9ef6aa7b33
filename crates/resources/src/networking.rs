//! Ingresses, their classes, IPAddresses, ServiceCIDRs, and EndpointSlices.

use std::collections::BTreeSet;

use jiff::Timestamp;
use machinery::FieldError;
use serde_json::Value;

use crate::check::Errors;
use crate::table_format::{none_if_empty, plain};
use crate::value::{Access, Fill};
use crate::{Context, Strategy, names, row};

const SHOWN: usize = 3;

pub struct Ingresses;

impl Strategy for Ingresses {
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let spec = object.at("/spec");
        if spec.items("/rules").is_empty() && !spec.has("/defaultBackend") {
            errors.invalid(
                "spec",
                spec.items("/rules"),
                "either `defaultBackend` or `rules` must be specified",
            );
        }
        if spec.has("/defaultBackend") {
            backend(&mut errors, "spec.defaultBackend", spec.at("/defaultBackend"));
        }
        for (index, rule) in spec.items("/rules").iter().enumerate() {
            let path = format!("spec.rules[{index}]");
            let host = rule.text("/host");
            errors.format(
                &format!("{path}.host"),
                host.strip_prefix("*.").unwrap_or(host),
                names::dns_subdomain,
            );
            for (index, entry) in rule.items("/http/paths").iter().enumerate() {
                ingress_path(&mut errors, &format!("{path}.http.paths[{index}]"), entry);
            }
        }
        errors.format("spec.ingressClassName", spec.text("/ingressClassName"), names::dns_subdomain);
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        self.validate_create(new)
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        let hosts: Vec<_> = object
            .items("/spec/rules")
            .iter()
            .map(|rule| rule.text("/host"))
            .filter(|host| !host.is_empty())
            .collect();
        let hosts = match hosts.len() {
            0 => "*".to_owned(),
            count if count > SHOWN => format!("{} + {} more...", hosts[..SHOWN].join(","), count - SHOWN),
            _ => hosts.join(","),
        };
        let class = match object.text("/spec/ingressClassName") {
            "" => {
                object.at("/metadata/annotations").get("kubernetes.io/ingress.class").and_then(Value::as_str)
            }
            class => Some(class),
        };
        let addresses: Vec<_> = object
            .items("/status/loadBalancer/ingress")
            .iter()
            .map(|ingress| crate::table_format::or(ingress.text("/ip"), ingress.text("/hostname")))
            .collect();
        let ports = if object.items("/spec/tls").is_empty() { "80" } else { "80, 443" };
        vec![
            row::name(object),
            none_if_empty(class.unwrap_or_default()).into(),
            hosts.into(),
            addresses.join(",").into(),
            ports.into(),
            row::created(now, object),
        ]
    }
}

fn ingress_path(errors: &mut Errors, path: &str, entry: &Value) {
    let kinds = ["Exact", "ImplementationSpecific", "Prefix"];
    let kind = entry.text("/pathType");
    match kind {
        "" => errors.required(format!("{path}.pathType"), "pathType must be specified"),
        kind => errors.one_of(&format!("{path}.pathType"), kind, &kinds),
    }
    let text = entry.text("/path");
    let must_be_absolute = kind != "ImplementationSpecific" || !text.is_empty();
    if must_be_absolute && !text.starts_with('/') {
        errors.invalid(format!("{path}.path"), text, "must be an absolute path");
    }
    backend(errors, &format!("{path}.backend"), entry.at("/backend"));
}

fn backend(errors: &mut Errors, path: &str, backend: &Value) {
    match (backend.has("/service"), backend.has("/resource")) {
        (true, true) => errors.invalid(path, "", "cannot set both resource and service backends"),
        (false, false) => errors.required(path, "resource or service backend is required"),
        (false, true) => {}
        (true, false) => {
            let service = backend.at("/service");
            errors.name(&format!("{path}.service.name"), service.text("/name"), names::dns_1035_label);
            match (service.text("/port/name"), service.int("/port/number").unwrap_or(0)) {
                ("", 0) => errors.required(path, "port name or number is required"),
                ("", number) => errors.port_number(&format!("{path}.service.port.number"), number),
                (name, 0) => errors.format(&format!("{path}.service.port.name"), name, names::port_name),
                _ => errors.invalid(path, "", "cannot set both port name & port number"),
            }
        }
    }
}

pub struct IngressClasses;

impl Strategy for IngressClasses {
    fn default(&self, object: &mut Value) {
        if let Some(parameters) = object.existing("spec").and_then(|spec| spec.existing("parameters")) {
            parameters.default_absent("scope", "Cluster");
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        errors.name("spec.controller", object.text("/spec/controller"), |name| {
            if name.contains('/') {
                Ok(())
            } else {
                Err("must be a domain-prefixed path (such as \"acme.io/foo\")".to_owned())
            }
        });
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        errors.immutable("spec.controller", new.at("/spec/controller"), old.at("/spec/controller"));
        errors.extend(self.validate_create(new));
        errors.into_vec()
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        let parameters = object.at("/spec/parameters");
        let text = match parameters {
            Value::Null => "<none>".to_owned(),
            found => {
                let group = found.text("/apiGroup");
                let kind = if group.is_empty() {
                    found.text("/kind").to_owned()
                } else {
                    format!("{}.{group}", found.text("/kind"))
                };
                format!("{kind}/{}", found.text("/name"))
            }
        };
        vec![
            row::name(object),
            row::text(object, "/spec/controller", ""),
            text.into(),
            row::created(now, object),
        ]
    }
}

pub struct IpAddresses;

impl Strategy for IpAddresses {
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        for field in ["resource", "name"] {
            if object.text(&format!("/spec/parentRef/{field}")).is_empty() {
                errors.required(format!("spec.parentRef.{field}"), "");
            }
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        errors.immutable("spec.parentRef", new.at("/spec/parentRef"), old.at("/spec/parentRef"));
        errors.into_vec()
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        name.parse::<std::net::IpAddr>().map(|_| ()).map_err(|_| crate::check::IP_TEXT.to_owned())
    }

    fn cells(&self, _now: Timestamp, object: &Value) -> Vec<Value> {
        let parent = object.at("/spec/parentRef");
        let parts = ["/group", "/resource", "/namespace", "/name"].map(|pointer| parent.text(pointer));
        let [group, resource, namespace, name] = parts;
        let resource = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
        let namespace = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        vec![row::name(object), format!("{resource}/{namespace}{name}").trim_matches('/').into()]
    }
}

pub struct ServiceCidrs;

impl Strategy for ServiceCidrs {
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let ranges = object.items("/spec/cidrs");
        if ranges.is_empty() {
            errors.required("spec.cidrs", "at least one CIDR required");
        }
        if ranges.len() > 2 {
            errors.invalid("spec.cidrs", ranges, "may only hold up to 2 values");
        }
        for (index, range) in ranges.iter().enumerate() {
            let text = range.as_str().unwrap_or_default();
            if text.parse::<ipnet::IpNet>().is_err() {
                let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
                errors.invalid(format!("spec.cidrs[{index}]"), text, detail);
            }
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        errors.immutable("spec.cidrs", new.at("/spec/cidrs"), old.at("/spec/cidrs"));
        errors.into_vec()
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        let ranges: Vec<_> = object.items("/spec/cidrs").iter().filter_map(Value::as_str).collect();
        vec![row::name(object), ranges.join(",").into(), row::created(now, object)]
    }
}

pub struct EndpointSlices;

impl Strategy for EndpointSlices {
    fn default(&self, object: &mut Value) {
        for port in object.each("ports") {
            port.default_absent("name", "");
            port.default_absent("protocol", "TCP");
        }
    }

    fn prepare_create(&self, _context: &Context, _object: &mut Value) {}

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let kind = object.text("/addressType");
        errors.required_one_of("addressType", kind, &["FQDN", "IPv4", "IPv6"]);
        if object.items("/endpoints").len() > 1000 {
            errors.push(FieldError::too_many("endpoints", object.items("/endpoints").len(), 1000));
        }
        for (index, endpoint) in object.items("/endpoints").iter().enumerate() {
            let path = format!("endpoints[{index}]");
            if endpoint.items("/addresses").is_empty() {
                errors.required(format!("{path}.addresses"), "must contain at least 1 address");
            }
            for (index, address) in endpoint.items("/addresses").iter().enumerate() {
                endpoint_address(&mut errors, &format!("{path}.addresses[{index}]"), kind, address);
            }
        }
        let mut seen = BTreeSet::new();
        for (index, port) in object.items("/ports").iter().enumerate() {
            let path = format!("ports[{index}]");
            let name = port.text("/name");
            errors.format(&format!("{path}.name"), name, names::dns_label);
            if !seen.insert(name) {
                errors.push(FieldError::duplicate(format!("{path}.name"), name));
            }
            errors.required_one_of(
                &format!("{path}.protocol"),
                port.text("/protocol"),
                &["SCTP", "TCP", "UDP"],
            );
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        errors.extend(self.validate_create(new));
        errors.immutable("addressType", new.at("/addressType"), old.at("/addressType"));
        errors.into_vec()
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn changes_generation(&self, new: &Value, old: &Value) -> bool {
        ["/endpoints", "/ports", "/addressType"].iter().any(|field| new.at(field) != old.at(field))
            || new.at("/metadata/labels") != old.at("/metadata/labels")
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        let ports: Vec<_> = object
            .items("/ports")
            .iter()
            .map(|port| if port.has("/port") { plain(port.at("/port")) } else { "*".to_owned() })
            .collect();
        let addresses: Vec<_> = object
            .items("/endpoints")
            .iter()
            .flat_map(|e| e.items("/addresses"))
            .filter_map(Value::as_str)
            .collect();
        vec![
            row::name(object),
            row::text(object, "/addressType", ""),
            shortened(&ports.iter().map(String::as_str).collect::<Vec<_>>(), "<unset>").into(),
            shortened(&addresses, "<unset>").into(),
            row::created(now, object),
        ]
    }
}

fn endpoint_address(errors: &mut Errors, path: &str, kind: &str, address: &Value) {
    let text = address.as_str().unwrap_or_default();
    match kind {
        "IPv4" if text.parse::<std::net::Ipv4Addr>().is_err() => {
            errors.invalid(path, text, "must be a valid IPv4 address");
        }
        "IPv6" if text.parse::<std::net::Ipv6Addr>().is_err() => {
            errors.invalid(path, text, "must be a valid IPv6 address");
        }
        "FQDN" => errors.format(path, text, names::dns_subdomain),
        _ => crate::core::endpoints::ip(errors, path, text),
    }
}

fn shortened(texts: &[&str], nothing: &str) -> String {
    match texts.len() {
        0 => nothing.to_owned(),
        count if count > SHOWN => format!("{} + {} more...", texts[..SHOWN].join(","), count - SHOWN),
        _ => texts.join(","),
    }
}
