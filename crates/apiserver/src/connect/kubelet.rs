//! Connections that the kubelet of the pod's node serves: logs, exec, attach, port-forward.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::Response;
use machinery::Status;
use serde_json::Value;

use super::forward::{self, Destination, ErrorStyle};
use super::object;
use crate::core::Core;
use crate::http::body::Body;
use crate::http::service::Incoming;
use crate::pipeline::Call;
use crate::request::query::escape;

const KUBELET_PORT: u16 = 10250;

/// GET `log`: the kubelet's answer is passed on as it comes.
pub(super) async fn log(core: &Arc<Core>, call: &Call, request: Incoming) -> Result<Response<Body>, Status> {
    let pod = object(core, call, "", "pods", &call.target.namespace, &call.target.name).await?.value();
    let container = container(call, &pod, request.query.get("container"))?;
    check_log_options(&request)?;
    let node = node_of(call, &pod)?;
    if node.is_empty() {
        // Not scheduled yet: there is nothing to read, and that is no error.
        return Ok(crate::http::body::response(200, "text/plain", Vec::new()));
    }
    let kept = [
        "follow",
        "previous",
        "sinceSeconds",
        "sinceTime",
        "timestamps",
        "tailLines",
        "limitBytes",
        "stream",
    ];
    let query: Vec<String> = kept
        .into_iter()
        .filter(|name| request.query.has(name))
        .map(|name| format!("{name}={}", escape(request.query.get(name))))
        .collect();
    let path = format!("/containerLogs/{}/{}/{container}", call.target.namespace, call.target.name);
    let destination = destination(core, call, &node, path, &query.join("&")).await?;
    forward::pass(
        core,
        destination,
        request,
        ErrorStyle::Status { resource: "pods/log", name: &call.target.name },
    )
    .await
}

/// `exec` and `attach`.
pub(super) async fn stream_into_container(
    core: &Arc<Core>,
    call: &Call,
    request: Incoming,
) -> Result<Response<Body>, Status> {
    let pod = object(core, call, "", "pods", &call.target.namespace, &call.target.name).await?.value();
    let container = container(call, &pod, request.query.get("container"))?;
    let node = assigned_node(call, &pod)?;
    let mut query: Vec<String> = Vec::new();
    for (from, to) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if request.query.flag(from)?.unwrap_or(false) {
            query.push(format!("{to}=1"));
        }
    }
    let is_exec = call.target.subresource == "exec";
    if is_exec {
        query.extend(request.query.all("command").map(|part| format!("command={}", escape(part))));
    }
    let what = if is_exec { "exec" } else { "attach" };
    let path = format!("/{what}/{}/{}/{container}", call.target.namespace, call.target.name);
    let destination = destination(core, call, &node, path, &query.join("&")).await?;
    forward::pass(core, destination, request, ErrorStyle::Verbatim).await
}

/// `portforward`.
pub(super) async fn port_forward(
    core: &Arc<Core>,
    call: &Call,
    request: Incoming,
) -> Result<Response<Body>, Status> {
    let pod = object(core, call, "", "pods", &call.target.namespace, &call.target.name).await?.value();
    let node = assigned_node(call, &pod)?;
    let query: Vec<String> = request
        .query
        .all("ports")
        .flat_map(|ports| ports.split(','))
        .map(|port| format!("port={}", escape(port)))
        .collect();
    let path = format!("/portForward/{}/{}", call.target.namespace, call.target.name);
    let destination = destination(core, call, &node, path, &query.join("&")).await?;
    forward::pass(core, destination, request, ErrorStyle::Verbatim).await
}

/// Where the kubelet of a node listens, with a path and query.
pub(super) async fn destination(
    core: &Arc<Core>,
    call: &Call,
    node: &str,
    path: String,
    query: &str,
) -> Result<Destination, Status> {
    let node = object(core, call, "", "nodes", "", node).await?.value();
    let path_and_query = if query.is_empty() { path } else { format!("{path}?{query}") };
    on_node(core, &node, path_and_query)
}

/// A path of a node's kubelet.
pub(super) fn on_node(core: &Core, node: &Value, path_and_query: String) -> Result<Destination, Status> {
    let address = kubelet_address(node)?;
    let tls = core.connectors.kubelet_tls.clone().ok_or_else(|| {
        Status::service_unavailable(
            "this server has no client certificate for kubelets, so it cannot reach nodes",
        )
    })?;
    Ok(Destination { address, tls: Some(tls), path_and_query })
}

/// The node's address in the order that upstream prefers, and the port that its kubelet announces.
pub(super) fn kubelet_address(node: &Value) -> Result<SocketAddr, Status> {
    let addresses =
        node.pointer("/status/addresses").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let of_type = |kind: &str| {
        addresses
            .iter()
            .filter(|address| address["type"] == kind)
            .find_map(|address| address["address"].as_str()?.parse::<IpAddr>().ok())
    };
    let name = node.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let ip = of_type("InternalIP")
        .or_else(|| of_type("ExternalIP"))
        .ok_or_else(|| Status::internal(format!("node {name:?} has no IP address to connect to")))?;
    let port = node.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").and_then(Value::as_u64);
    let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    Ok(SocketAddr::new(ip, port.unwrap_or(KUBELET_PORT)))
}

fn node_of(call: &Call, pod: &Value) -> Result<String, Status> {
    let name = call.target.name.as_str();
    match pod.pointer("/spec/nodeName") {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(node)) => Ok(node.clone()),
        Some(_) => Err(Status::internal(format!("pod {name:?} has a malformed nodeName"))),
    }
}

fn assigned_node(call: &Call, pod: &Value) -> Result<String, Status> {
    match node_of(call, pod)? {
        node if node.is_empty() => {
            Err(Status::bad_request(format!("pod {} does not have a host assigned", call.target.name)))
        }
        node => Ok(node),
    }
}

/// The named container, or the only one, or the one that the pod declares as its default.
fn container(call: &Call, pod: &Value, asked: &str) -> Result<String, Status> {
    let name = call.target.name.as_str();
    let names = |field: &str| -> Vec<String> {
        let list = pod["spec"].get(field).and_then(Value::as_array);
        list.into_iter()
            .flatten()
            .filter_map(|container| container["name"].as_str().map(str::to_owned))
            .collect()
    };
    let (plain, init, ephemeral) =
        (names("containers"), names("initContainers"), names("ephemeralContainers"));
    if !asked.is_empty() {
        let known = plain.iter().chain(&init).chain(&ephemeral).any(|own| own == asked);
        return if known {
            Ok(asked.to_owned())
        } else {
            Err(Status::bad_request(format!("container {asked} is not valid for pod {name}")))
        };
    }
    match plain.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Status::bad_request(format!("a container name must be specified for pod {name}"))),
        many => {
            let mut message = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                many.join(" ")
            );
            if !init.is_empty() {
                message += &format!(" or one of the init containers: [{}]", init.join(" "));
            }
            Err(Status::bad_request(message))
        }
    }
}

fn check_log_options(request: &Incoming) -> Result<(), Status> {
    let query = &request.query;
    let invalid = |detail: String| {
        Err(Status::failure(422, "Invalid", format!("PodLogOptions \"\" is invalid: {detail}")))
    };
    for (name, least) in [("tailLines", 0_i64), ("sinceSeconds", 1), ("limitBytes", 1)] {
        let text = query.get(name);
        if text.is_empty() {
            continue;
        }
        match text.parse::<i64>() {
            Ok(number) if number >= least => {}
            Ok(number) => {
                return invalid(format!(
                    "{name}: Invalid value: {number}: must be greater than or equal to {least}"
                ));
            }
            Err(_not_a_number) => {
                return Err(Status::bad_request(format!(
                    "strconv.ParseInt: parsing {text:?}: invalid syntax"
                )));
            }
        }
    }
    if query.has("sinceSeconds") && query.has("sinceTime") {
        return invalid(
            "sinceSeconds: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified"
                .to_owned(),
        );
    }
    Ok(())
}
