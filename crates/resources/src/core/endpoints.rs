//! Endpoints: the older form of EndpointSlices.

use jiff::Timestamp;
use machinery::FieldError;
use serde_json::Value;

use crate::check::Errors;
use crate::table_format::none_if_empty;
use crate::value::{Access, Fill};
use crate::{Context, Strategy, row};

/// How many addresses a table row shows.
const SHOWN: usize = 3;

pub struct EndpointsStrategy;

impl Strategy for EndpointsStrategy {
    fn default(&self, object: &mut Value) {
        for subset in object.each("subsets") {
            subset.each("ports").for_each(|port| port.default_zero("protocol", "TCP"));
        }
    }

    fn prepare_create(&self, _context: &Context, _object: &mut Value) {}

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        for (index, subset) in object.items("/subsets").iter().enumerate() {
            let path = format!("subsets[{index}]");
            let addresses = ["addresses", "notReadyAddresses"];
            if addresses.iter().all(|list| subset.items(&format!("/{list}")).is_empty()) {
                errors.required(&path, "must specify `addresses` or `notReadyAddresses`");
            }
            for list in addresses {
                for (index, address) in subset.items(&format!("/{list}")).iter().enumerate() {
                    ip(&mut errors, &format!("{path}.{list}[{index}].ip"), address.text("/ip"));
                }
            }
            let ports = subset.items("/ports");
            for (index, port) in ports.iter().enumerate() {
                let path = format!("{path}.ports[{index}]");
                if ports.len() > 1 && port.text("/name").is_empty() {
                    errors.required(format!("{path}.name"), "");
                }
                errors.format(&format!("{path}.name"), port.text("/name"), crate::names::dns_label);
                errors.port_number(&format!("{path}.port"), port.int("/port").unwrap_or(0));
                errors.required_one_of(
                    &format!("{path}.protocol"),
                    port.text("/protocol"),
                    &["SCTP", "TCP", "UDP"],
                );
            }
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        self.validate_create(new)
    }

    fn warnings(&self, _new: &Value, _old: Option<&Value>) -> Vec<String> {
        vec!["v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".to_owned()]
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        vec![row::name(object), shown(object).into(), row::created(now, object)]
    }
}

/// An address that is not the node's own.
pub fn ip(errors: &mut Errors, path: &str, text: &str) {
    use std::net::IpAddr;
    let Ok(address) = text.parse::<IpAddr>() else {
        errors.ip(path, text);
        return;
    };
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => (address.segments()[0] & 0xffc0) == 0xfe80,
    };
    if address.is_unspecified() {
        errors.invalid(path, text, format!("may not be unspecified ({text})"));
    } else if address.is_loopback() {
        errors.invalid(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    } else if is_link_local {
        errors.invalid(path, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    } else if address.is_multicast() {
        errors.invalid(path, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

fn shown(object: &Value) -> String {
    let mut texts = Vec::new();
    for subset in object.items("/subsets") {
        let ports = subset.items("/ports");
        for address in subset.items("/addresses") {
            let ip = address.text("/ip");
            match ports {
                [] => texts.push(ip.to_owned()),
                ports => texts.extend(ports.iter().map(|port| {
                    let port = port.int("/port").unwrap_or(0);
                    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
                })),
            }
        }
    }
    if texts.len() > SHOWN {
        return format!("{} + {} more...", texts[..SHOWN].join(","), texts.len() - SHOWN);
    }
    none_if_empty(&texts.join(","))
}
