//! What a Service must be given, by its type.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use machinery::FieldError;
use resources::core::service::is_exposed;
use resources::value::{Access, Fill};
use serde_json::Value;

use super::Ranges;
use super::ledger::{Desk, Refusal};

/// Fills addresses, families and ports of a service.
pub fn fill(service: &mut Value, ranges: &Ranges, desk: &mut Desk<'_>) -> Result<(), Vec<FieldError>> {
    let spec = service.child("spec");
    if spec.text("/type") == "ExternalName" {
        return Ok(());
    }
    same_first_address(spec);
    families(spec, ranges)?;
    addresses(spec, ranges, desk)?;
    if is_exposed(spec.text("/type")) {
        node_ports(spec, ranges, desk)?;
        health_port(spec, ranges, desk)?;
    }
    Ok(())
}

/// `clusterIP` and the first of `clusterIPs` say the same.
fn same_first_address(spec: &mut Value) {
    let (single, first) = (spec.text("/clusterIP").to_owned(), spec.text("/clusterIPs/0").to_owned());
    match (single.is_empty(), first.is_empty()) {
        (false, true) => spec.set("clusterIPs", vec![single]),
        (true, false) => spec.set("clusterIP", first),
        _ => {}
    }
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn served(ranges: &Ranges) -> Vec<&'static str> {
    ranges.addresses.iter().map(|range| family(range.addr())).collect()
}

fn families(spec: &mut Value, ranges: &Ranges) -> Result<(), Vec<FieldError>> {
    let served = served(ranges);
    let headless_without_selector =
        spec.text("/clusterIP") == "None" && spec.members("/selector").next().is_none();
    let given: Vec<_> =
        spec.items("/clusterIPs").iter().filter_map(|ip| ip.as_str()?.parse().ok()).map(family).collect();
    if spec.text("/ipFamilyPolicy").is_empty() {
        let policy = match () {
            () if headless_without_selector => "RequireDualStack",
            () if given.len() > 1 || spec.items("/ipFamilies").len() > 1 => "RequireDualStack",
            () => "SingleStack",
        };
        spec.set("ipFamilyPolicy", policy);
    }
    if spec.text("/ipFamilyPolicy") == "RequireDualStack" && served.len() < 2 && !headless_without_selector {
        let detail = "this cluster is not configured for dual-stack services";
        return Err(vec![FieldError::invalid("spec.ipFamilyPolicy", "RequireDualStack", detail)]);
    }
    let mut families: Vec<String> =
        spec.items("/ipFamilies").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let known = if given.is_empty() { vec![served.first().copied().unwrap_or("IPv4")] } else { given };
    if families.is_empty() {
        families = known.into_iter().map(str::to_owned).collect();
    }
    for (index, family) in families.iter().enumerate() {
        if !served.contains(&family.as_str()) && !headless_without_selector {
            let detail = "not configured on this cluster";
            return Err(vec![FieldError::invalid(format!("spec.ipFamilies[{index}]"), family, detail)]);
        }
    }
    if spec.text("/ipFamilyPolicy") != "SingleStack" {
        let all = if headless_without_selector { vec!["IPv4", "IPv6"] } else { served };
        for family in all {
            if !families.iter().any(|known| known == family) {
                families.push(family.to_owned());
            }
        }
    }
    spec.set("ipFamilies", families);
    Ok(())
}

fn addresses(spec: &mut Value, ranges: &Ranges, desk: &mut Desk<'_>) -> Result<(), Vec<FieldError>> {
    if spec.text("/clusterIP") == "None" {
        return Ok(());
    }
    let mut addresses: Vec<String> =
        spec.items("/clusterIPs").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let wanted: Vec<String> =
        spec.items("/ipFamilies").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let refuse = |all: &[String], address: &str, why: &str| {
        vec![FieldError::invalid("spec.clusterIPs", all, format!("failed to allocate IP {address}: {why}"))]
    };
    for text in &addresses {
        // What is no address is validation's to refuse.
        let Ok(address) = text.parse::<IpAddr>() else { continue };
        if !ranges.addresses.iter().any(|range| is_usable(range, address)) {
            let valid: Vec<_> = ranges.addresses.iter().map(ToString::to_string).collect();
            let why = format!(
                "the provided IP ({text}) is not in the valid range. The range of valid IPs is {}",
                valid.join(",")
            );
            return Err(refuse(&addresses, text, &why));
        }
        if desk.take_address(address).is_err() {
            return Err(refuse(&addresses, text, "provided IP is already allocated"));
        }
    }
    for wanted in wanted.iter().skip(addresses.len()) {
        let Some(range) = ranges.addresses.iter().find(|range| family(range.addr()) == wanted) else {
            continue;
        };
        let Ok(address) = free_address(range, desk) else {
            return Err(refuse(&addresses, wanted, "range is full"));
        };
        addresses.push(address.to_string());
    }
    if let Some(first) = addresses.first() {
        spec.set("clusterIP", first.clone());
    }
    spec.set("clusterIPs", addresses);
    Ok(())
}

/// Inside the range, but neither the network's own address nor the broadcast address.
fn is_usable(range: &IpNet, address: IpAddr) -> bool {
    let is_broadcast = range.addr().is_ipv4() && address == range.broadcast();
    range.contains(&address) && address != range.network() && !is_broadcast
}

fn free_address(range: &IpNet, desk: &mut Desk<'_>) -> Result<IpAddr, Refusal> {
    let bits = u32::from(range.max_prefix_len() - range.prefix_len());
    let whole = 1u128 << bits.min(64);
    let usable = whole - if range.addr().is_ipv4() { 2 } else { 1 };
    let band = if usable <= 16 { 0 } else { (usable / 16).clamp(16, 256) };
    let nth = |offset: u128| match range.network() {
        IpAddr::V4(first) => IpAddr::from((u32::from(first) + offset as u32 + 1).to_be_bytes()),
        IpAddr::V6(first) => IpAddr::from((u128::from(first) + offset + 1).to_be_bytes()),
    };
    let offset = desk.pick(usable, band, |ledger, offset| !ledger.has_address(&nth(offset)))?;
    let address = nth(offset);
    desk.take_address(address).map(|()| address)
}

fn free_port(ranges: &Ranges, desk: &mut Desk<'_>) -> Result<u16, Refusal> {
    let (low, high) = (*ranges.node_ports.start(), *ranges.node_ports.end());
    let count = u128::from(high - low) + 1;
    let band = if count <= 16 { 0 } else { (count / 32).clamp(16, 128) };
    let nth = |offset: u128| low + offset as u16;
    let offset = desk.pick(count, band, |ledger, offset| !ledger.has_port(nth(offset)))?;
    desk.take_port(nth(offset)).map(|()| nth(offset))
}

fn node_ports(spec: &mut Value, ranges: &Ranges, desk: &mut Desk<'_>) -> Result<(), Vec<FieldError>> {
    let wanted =
        spec.text("/type") == "NodePort" || spec.at("/allocateLoadBalancerNodePorts") != &Value::Bool(false);
    for (index, port) in spec.items("/ports").iter().enumerate() {
        let number = port.int("/nodePort").unwrap_or(0);
        if number != 0 {
            take_given(&format!("spec.ports[{index}].nodePort"), number, ranges, desk)?;
        }
    }
    // One number of node port may serve the same port by several protocols.
    let mut by_port: BTreeMap<(i64, String), i64> = BTreeMap::new();
    for port in spec.each("ports").filter(|_| wanted) {
        if port.int("/nodePort").unwrap_or(0) != 0 {
            continue;
        }
        let key = (port.int("/port").unwrap_or(0), port.text("/protocol").to_owned());
        let shared = by_port.iter().find(|((number, protocol), _)| *number == key.0 && *protocol != key.1);
        let number = match shared.map(|(_, number)| *number) {
            Some(number) => number,
            None => i64::from(free_port(ranges, desk).map_err(|_| full("spec.ports"))?),
        };
        port.set("nodePort", number);
        by_port.insert(key, number);
    }
    Ok(())
}

fn full(path: &str) -> Vec<FieldError> {
    vec![FieldError::invalid(path, 0, "failed to allocate a nodePort: range is full")]
}

fn take_given(path: &str, number: i64, ranges: &Ranges, desk: &mut Desk<'_>) -> Result<(), Vec<FieldError>> {
    let port = u16::try_from(number).ok().filter(|port| ranges.node_ports.contains(port));
    let Some(port) = port else {
        let (low, high) = (ranges.node_ports.start(), ranges.node_ports.end());
        let detail =
            format!("provided port is not in the valid range. The range of valid ports is {low}-{high}");
        return Err(vec![FieldError::invalid(path, number, detail)]);
    };
    let taken = |_| vec![FieldError::invalid(path, number, "provided port is already allocated")];
    desk.take_port(port).map_err(taken)
}

fn health_port(spec: &mut Value, ranges: &Ranges, desk: &mut Desk<'_>) -> Result<(), Vec<FieldError>> {
    if spec.text("/type") != "LoadBalancer" || spec.text("/externalTrafficPolicy") != "Local" {
        return Ok(());
    }
    match spec.int("/healthCheckNodePort").unwrap_or(0) {
        0 => {
            let port = free_port(ranges, desk).map_err(|_| full("spec.healthCheckNodePort"))?;
            spec.set("healthCheckNodePort", port);
            Ok(())
        }
        given => take_given("spec.healthCheckNodePort", given, ranges, desk),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::ledger::Ledger;
    use super::*;

    fn ranges() -> Ranges {
        Ranges { addresses: vec!["10.96.0.0/28".parse().unwrap()], node_ports: 30_000..=30_003 }
    }

    fn service(uid: &str, spec: Value) -> Value {
        json!({"metadata": {"uid": uid, "name": uid}, "spec": spec})
    }

    fn allocate(ledger: &mut Ledger, service: &mut Value) -> Result<(), String> {
        let owner = service.text("/metadata/uid").to_owned();
        let result = ledger.allocate(&owner, service, &ranges(), &mut || 0);
        result.map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn a_service_gets_an_address_and_ports() {
        let mut ledger = Ledger::default();
        let spec = json!({"type": "NodePort", "ports": [{"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]});
        let mut first = service("a", spec);
        allocate(&mut ledger, &mut first).unwrap();
        assert_eq!(
            first["spec"],
            json!({"type": "NodePort", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"],
                "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "ports": [
                {"port": 53, "protocol": "TCP", "nodePort": 30000}, {"port": 53, "protocol": "UDP", "nodePort": 30000}]})
        );
    }

    #[test]
    fn what_is_taken_is_refused_and_what_is_released_is_free() {
        let mut ledger = Ledger::default();
        let spec = json!({"type": "ClusterIP", "clusterIP": "10.96.0.5"});
        let (mut a, mut b) = (service("a", spec.clone()), service("b", spec));
        allocate(&mut ledger, &mut a).unwrap();
        assert_eq!(
            allocate(&mut ledger, &mut b.clone()).unwrap_err(),
            r#"spec.clusterIPs: Invalid value: ["10.96.0.5"]: failed to allocate IP 10.96.0.5: provided IP is already allocated"#
        );
        ledger.release("b", &b, &Value::Null);
        assert!(allocate(&mut ledger, &mut b.clone()).is_err());
        ledger.release("a", &a, &Value::Null);
        allocate(&mut ledger, &mut b).unwrap();
    }

    #[test]
    fn a_full_range_and_a_wrong_port_are_refused() {
        let mut ledger = Ledger::default();
        for index in 0..14 {
            allocate(&mut ledger, &mut service(&index.to_string(), json!({"type": "ClusterIP"}))).unwrap();
        }
        assert!(allocate(&mut ledger, &mut service("x", json!({"type": "ClusterIP"}))).is_err());
        let mut wrong =
            service("y", json!({"type": "NodePort", "clusterIP": "10.96.0.1", "ports": [{"nodePort": 80}]}));
        ledger.release("0", &json!({"spec": {"clusterIPs": ["10.96.0.1"]}}), &Value::Null);
        assert_eq!(
            allocate(&mut ledger, &mut wrong).unwrap_err(),
            "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-30003"
        );
        // The refusal gave the address back.
        allocate(&mut ledger, &mut service("z", json!({"type": "ClusterIP", "clusterIP": "10.96.0.1"})))
            .unwrap();
    }

    #[test]
    fn pending_requests_survive_a_reading_of_the_store() {
        let mut ledger = Ledger::default();
        let mut a = service("a", json!({"type": "ClusterIP", "clusterIP": "10.96.0.5"}));
        allocate(&mut ledger, &mut a).unwrap();
        ledger.absorb(&[]);
        let mut b = service("b", json!({"type": "ClusterIP", "clusterIP": "10.96.0.5"}));
        assert!(allocate(&mut ledger, &mut b).is_err());
        ledger.settle("a");
        ledger.absorb(&[]);
        allocate(&mut ledger, &mut b).unwrap();
    }
}
