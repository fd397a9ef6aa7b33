//! Which addresses a node may answer for: a pure function.

use std::net::IpAddr;
use std::sync::Arc;

use client::typed;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use machinery::Object;

use super::AnnouncerConfig;

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The addresses of a Service that are of the pool, if this node has what the Service's policy asks for.
pub fn addresses(service: &Object, slices: &[Arc<Object>], config: &AnnouncerConfig) -> Vec<IpAddr> {
    let Ok(typed_service) = typed::<Service>(service) else { return Vec::new() };
    let Some(spec) = typed_service.spec.as_ref().filter(|spec| spec.type_.as_deref() == Some("LoadBalancer"))
    else {
        return Vec::new();
    };
    let ingress = typed_service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = ingress.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
    let addresses = ingress.filter_map(|ingress| ingress.ip.as_deref()?.parse::<IpAddr>().ok());
    let ours: Vec<IpAddr> =
        addresses.filter(|address| config.pool.iter().any(|range| range.contains(address))).collect();
    let local = spec.external_traffic_policy.as_deref() == Some("Local");
    if ours.is_empty() || local && !has_endpoint(service, slices, &config.node) {
        return Vec::new();
    }
    ours
}

fn has_endpoint(service: &Object, slices: &[Arc<Object>], node: &str) -> bool {
    let meta = service.meta();
    let own = slices.iter().filter(|slice| {
        slice.meta().namespace == meta.namespace && slice.meta().labels.get(SERVICE_NAME) == Some(&meta.name)
    });
    own.filter_map(|slice| typed::<EndpointSlice>(slice).ok()).any(|slice| {
        slice.endpoints.iter().flatten().any(|endpoint| {
            let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
            ready && endpoint.node_name.as_deref() == Some(node)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object(value: Value) -> Arc<Object> {
        Arc::new(Object::from_value(&value, 1).unwrap())
    }

    #[test]
    fn addresses_of_the_pool_are_wanted_where_the_policy_allows() {
        let config = AnnouncerConfig {
            pool: vec!["192.0.2.0/28".parse().unwrap()],
            node: "here".into(),
            ..AnnouncerConfig::default()
        };
        let slices = |node: &str, ready: bool| {
            [object(json!({"metadata": {"name": "s-1", "namespace": "d", "labels": {SERVICE_NAME: "s"}},
                "addressType": "IPv4", "endpoints": [
                    {"addresses": ["10.42.0.2"], "nodeName": node, "conditions": {"ready": ready}}]}))]
        };
        let check = |kind: &str, policy: &str, address: &str, slices: &[Arc<Object>]| {
            let service = object(json!({"metadata": {"name": "s", "namespace": "d"},
                "spec": {"type": kind, "externalTrafficPolicy": policy},
                "status": {"loadBalancer": {"ingress": [{"ip": address}]}}}));
            !addresses(&service, slices, &config).is_empty()
        };
        assert!(check("LoadBalancer", "Cluster", "192.0.2.1", &[]));
        assert!(!check("LoadBalancer", "Cluster", "198.51.100.1", &[]));
        assert!(!check("NodePort", "Cluster", "192.0.2.1", &[]));
        assert!(check("LoadBalancer", "Local", "192.0.2.1", &slices("here", true)));
        assert!(!check("LoadBalancer", "Local", "192.0.2.1", &slices("here", false)));
        assert!(!check("LoadBalancer", "Local", "192.0.2.1", &slices("there", true)));
    }
}
