//! `proxy`: plain HTTP to a pod, a service or a node.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use client::{ListOptions, Target};
use http::{Method, Response, header};
use machinery::Status;
use serde_json::Value;

use super::forward::{self, Destination, ErrorStyle};
use super::{kubelet, object};
use crate::core::Core;
use crate::http::body::{Body, response};
use crate::http::service::Incoming;
use crate::pipeline::Call;

/// `[scheme:]name[:port]`.
#[derive(Debug, PartialEq)]
struct Named {
    https: bool,
    name: String,
    port: String,
}

pub(super) async fn answer(
    core: &Arc<Core>,
    call: &Call,
    request: Incoming,
) -> Result<Response<Body>, Status> {
    if request.info.rest.is_empty() && matches!(request.method, Method::GET | Method::HEAD) {
        return Ok(redirect(&request));
    }
    let named = parse(&call.target.name)?;
    let query = request.query.without(&[]);
    let path = match request.info.rest.as_str() {
        "" => "/",
        rest => rest,
    };
    let path_and_query = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    let destination = match call.target.resource.as_str() {
        "nodes" => node(core, call, &named, &path_and_query).await?,
        "services" => {
            let address = service_address(core, call, &named).await?;
            Destination { address, tls: tls(&named), path_and_query }
        }
        _ => {
            let address = pod_address(core, call, &named).await?;
            Destination { address, tls: tls(&named), path_and_query }
        }
    };
    forward::pass(core, destination, request, ErrorStyle::Verbatim).await
}

/// Relative links only work below a path that ends in a slash.
fn redirect(request: &Incoming) -> Response<Body> {
    let query = request.query.without(&[]);
    let location = match query.as_str() {
        "" => format!("{}/", request.info.path),
        query => format!("{}/?{query}", request.info.path),
    };
    let mut answer = response(301, "text/plain", Vec::new());
    if let Ok(value) = location.parse() {
        answer.headers_mut().insert(header::LOCATION, value);
    }
    answer
}

fn parse(text: &str) -> Result<Named, Status> {
    let parts: Vec<&str> = text.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] => (*scheme, *name, *port),
        _ => return Err(Status::bad_request(format!("invalid proxy target {text:?}"))),
    };
    match scheme {
        "" | "http" | "https" => {
            Ok(Named { https: scheme == "https", name: name.to_owned(), port: port.to_owned() })
        }
        other => Err(Status::bad_request(format!("invalid proxy scheme {other:?}"))),
    }
}

async fn node(core: &Arc<Core>, call: &Call, named: &Named, path: &str) -> Result<Destination, Status> {
    let mut destination = kubelet::destination(core, call, &named.name, path.to_owned(), "").await?;
    if !named.port.is_empty() {
        let port =
            named.port.parse().map_err(|_| Status::bad_request(format!("invalid port {:?}", named.port)))?;
        if port != destination.address.port() {
            destination.address.set_port(port);
            destination.tls = tls(named);
        }
    }
    Ok(destination)
}

async fn pod_address(core: &Arc<Core>, call: &Call, named: &Named) -> Result<SocketAddr, Status> {
    let pod = object(core, call, "", "pods", &call.target.namespace, &named.name).await?.value();
    let ip = pod.pointer("/status/podIP").and_then(Value::as_str).and_then(|ip| ip.parse::<IpAddr>().ok());
    let ip = ip.ok_or_else(|| Status::bad_request("address not allowed"))?;
    let ports = || {
        let containers = pod.pointer("/spec/containers").and_then(Value::as_array).into_iter().flatten();
        containers.filter_map(|container| container["ports"].as_array()).flatten()
    };
    let number = |port: &Value| port["containerPort"].as_u64().and_then(|port| u16::try_from(port).ok());
    let port = match named.port.as_str() {
        "" => ports().find_map(number).or(Some(if named.https { 443 } else { 80 })),
        text => text.parse().ok().or_else(|| ports().find(|port| port["name"] == text).and_then(number)),
    };
    let port = port.ok_or_else(|| {
        Status::service_unavailable(format!("no port {:?} found in pod {:?}", named.port, named.name))
    })?;
    Ok(SocketAddr::new(ip, port))
}

async fn service_address(core: &Arc<Core>, call: &Call, named: &Named) -> Result<SocketAddr, Status> {
    let namespace = call.target.namespace.as_str();
    let service = object(core, call, "", "services", namespace, &named.name).await?.value();
    let unavailable =
        || Status::service_unavailable(format!("no endpoints available for service {:?}", call.target.name));
    let ports = service.pointer("/spec/ports").and_then(Value::as_array).cloned().unwrap_or_default();
    let wanted = service_port(&ports, &named.port).ok_or_else(|| {
        Status::service_unavailable(format!(
            "no service port {:?} found for service {:?}",
            named.port, named.name
        ))
    })?;
    let port_name = wanted["name"].as_str().unwrap_or_default();
    let target = Target {
        group: "discovery.k8s.io".to_owned(),
        version: "v1".to_owned(),
        resource: "endpointslices".to_owned(),
        namespace: namespace.to_owned(),
        ..Target::default()
    };
    let slices = core.call_within(&call.caller, "list", target)?;
    let options = ListOptions {
        label_selector: format!("kubernetes.io/service-name={}", named.name),
        ..ListOptions::default()
    };
    let mut addresses = Vec::new();
    for slice in core.list(&slices, &options).await?.items {
        addresses.extend(slice_addresses(&slice.value(), port_name));
    }
    if addresses.is_empty() {
        return Err(unavailable());
    }
    let chosen = core.env.random_u64() as usize % addresses.len();
    Ok(addresses[chosen])
}

/// The port of a Service by its number or name, or else the first one.
fn service_port<'a>(ports: &'a [Value], wanted: &str) -> Option<&'a Value> {
    match (wanted, wanted.parse::<u16>()) {
        ("", _) => ports.first(),
        (_, Ok(number)) => ports.iter().find(|port| port["port"] == number),
        (name, Err(_)) => ports.iter().find(|port| port["name"] == name),
    }
}

fn slice_addresses(slice: &Value, port_name: &str) -> Vec<SocketAddr> {
    let ports = slice["ports"].as_array().cloned().unwrap_or_default();
    let port = ports.iter().find(|port| port["name"].as_str().unwrap_or_default() == port_name);
    let port = port.and_then(|port| port["port"].as_u64()).and_then(|port| u16::try_from(port).ok());
    let Some(port) = port else { return Vec::new() };
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    endpoints
        .filter(|endpoint| endpoint.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true))
        .filter_map(|endpoint| endpoint["addresses"].as_array()?.first()?.as_str()?.parse::<IpAddr>().ok())
        .map(|ip| SocketAddr::new(ip, port))
        .collect()
}

/// Pods and services present certificates that nobody here can check; upstream does not check them either.
fn tls(named: &Named) -> Option<Arc<rustls::ClientConfig>> {
    named.https.then(forward::unchecked_tls)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names() {
        let named = |https, name: &str, port: &str| Named { https, name: name.into(), port: port.into() };
        assert_eq!(parse("web").unwrap(), named(false, "web", ""));
        assert_eq!(parse("web:80").unwrap(), named(false, "web", "80"));
        assert_eq!(parse("https:web:").unwrap(), named(true, "web", ""));
        assert!(parse("ftp:web:1").is_err());
    }

    #[test]
    fn ports_of_services() {
        let ports = [json!({"name": "web", "port": 80}), json!({"name": "admin", "port": 81})];
        for (wanted, found) in
            [("", Some("web")), ("81", Some("admin")), ("web", Some("web")), ("82", None), ("x", None)]
        {
            assert_eq!(
                service_port(&ports, wanted).and_then(|port| port["name"].as_str()),
                found,
                "{wanted}"
            );
        }
    }
}
