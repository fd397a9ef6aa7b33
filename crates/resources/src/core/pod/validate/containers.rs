//! Containers: names, images, ports, mounts, resources, and how they start and stop.

use std::collections::BTreeSet;

use machinery::FieldError;
use serde_json::Value;

use super::{handlers, resources, security};
use crate::check::Errors;
use crate::names;
use crate::value::Access;

/// Which list a container stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Init,
    Main,
    Ephemeral,
}

/// All containers of a pod spec.
pub fn all(errors: &mut Errors, path: &str, spec: &Value) {
    let mut seen = BTreeSet::new();
    let volumes: BTreeSet<_> = spec.items("/volumes").iter().map(|volume| volume.text("/name")).collect();
    let mut context = Context { spec, volumes: &volumes, host_ports: BTreeSet::new() };
    let lists = [
        ("containers", Role::Main),
        ("initContainers", Role::Init),
        ("ephemeralContainers", Role::Ephemeral),
    ];
    if spec.items("/containers").is_empty() {
        errors.required(format!("{path}.containers"), "");
    }
    for (list, role) in lists {
        for (index, container) in spec.items(&format!("/{list}")).iter().enumerate() {
            let path = format!("{path}.{list}[{index}]");
            one(errors, &path, container, role, &mut context);
            let name = container.text("/name");
            if !name.is_empty() && !seen.insert(name) {
                errors.push(FieldError::duplicate(format!("{path}.name"), name));
            }
        }
    }
}

struct Context<'a> {
    spec: &'a Value,
    volumes: &'a BTreeSet<&'a str>,
    host_ports: BTreeSet<String>,
}

fn one(errors: &mut Errors, path: &str, container: &Value, role: Role, context: &mut Context<'_>) {
    errors.name(&format!("{path}.name"), container.text("/name"), names::dns_label);
    image(errors, &format!("{path}.image"), container.text("/image"));
    errors.required_one_of(
        &format!("{path}.imagePullPolicy"),
        container.text("/imagePullPolicy"),
        &["Always", "IfNotPresent", "Never"],
    );
    errors.required_one_of(
        &format!("{path}.terminationMessagePolicy"),
        container.text("/terminationMessagePolicy"),
        &["FallbackToLogsOnError", "File"],
    );
    super::environment::all(errors, path, container);
    mounts(errors, path, container, context);
    resources::requirements(errors, &format!("{path}.resources"), container.at("/resources"));
    security::container(errors, path, container);
    match role {
        Role::Ephemeral => ephemeral(errors, path, container),
        role => {
            ports(errors, path, container, context);
            running(errors, path, container, role);
        }
    }
}

fn image(errors: &mut Errors, path: &str, image: &str) {
    if image.is_empty() {
        errors.required(path, "");
    } else if image.trim() != image {
        errors.invalid(path, image, "must not have leading or trailing whitespace");
    }
}

/// Probes, hooks and the restart policy: what init containers have only when they are sidecars.
fn running(errors: &mut Errors, path: &str, container: &Value, role: Role) {
    let sidecar = container.text("/restartPolicy") == "Always";
    errors.one_of(
        &format!("{path}.restartPolicy"),
        container.text("/restartPolicy"),
        &["Always", "Never", "OnFailure"],
    );
    for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        if role == Role::Init && !sidecar && container.has(&format!("/{field}")) {
            let detail = "may not be set for init containers without restartPolicy=Always";
            errors.forbidden(format!("{path}.{field}"), detail);
        }
    }
    for field in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = container.at(&format!("/{field}"));
        if !probe.is_null() {
            handlers::probe(errors, &format!("{path}.{field}"), probe, field != "readinessProbe");
        }
    }
    for hook in ["postStart", "preStop"] {
        let handler = container.at(&format!("/lifecycle/{hook}"));
        if !handler.is_null() {
            handlers::hook(errors, &format!("{path}.lifecycle.{hook}"), handler);
        }
    }
}

fn ephemeral(errors: &mut Errors, path: &str, container: &Value) {
    let forbidden = [
        "ports",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
        "lifecycle",
        "restartPolicy",
        "resizePolicy",
    ];
    for field in forbidden {
        if container.has(&format!("/{field}")) {
            errors.forbidden(format!("{path}.{field}"), "cannot be set for an Ephemeral Container");
        }
    }
    if container.members("/resources").next().is_some() {
        errors.forbidden(format!("{path}.resources"), "cannot be set for an Ephemeral Container");
    }
}

fn ports(errors: &mut Errors, path: &str, container: &Value, context: &mut Context<'_>) {
    let mut names_seen = BTreeSet::new();
    for (index, port) in container.items("/ports").iter().enumerate() {
        let path = format!("{path}.ports[{index}]");
        let name = port.text("/name");
        errors.format(&format!("{path}.name"), name, names::port_name);
        if !name.is_empty() && !names_seen.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), name));
        }
        let number = port.int("/containerPort").unwrap_or(0);
        match number {
            0 => errors.required(format!("{path}.containerPort"), ""),
            number => errors.port_number(&format!("{path}.containerPort"), number),
        }
        errors.required_one_of(&format!("{path}.protocol"), port.text("/protocol"), &["SCTP", "TCP", "UDP"]);
        host_port(errors, &path, port, number, context);
    }
}

fn host_port(errors: &mut Errors, path: &str, port: &Value, number: i64, context: &mut Context<'_>) {
    let Some(host_port) = port.int("/hostPort").filter(|port| *port != 0) else { return };
    let path = format!("{path}.hostPort");
    errors.port_number(&path, host_port);
    if context.spec.flag("/hostNetwork") && host_port != number {
        errors.invalid(&path, host_port, "must match `containerPort` when `hostNetwork` is true");
    }
    let text = format!("{}/{}/{host_port}", port.text("/protocol"), port.text("/hostIP"));
    if !context.host_ports.insert(text.clone()) {
        errors.push(FieldError::duplicate(path, text));
    }
}

fn mounts(errors: &mut Errors, path: &str, container: &Value, context: &Context<'_>) {
    let mut paths = BTreeSet::new();
    for (index, mount) in container.items("/volumeMounts").iter().enumerate() {
        let path = format!("{path}.volumeMounts[{index}]");
        match mount.text("/name") {
            "" => errors.required(format!("{path}.name"), ""),
            name if !context.volumes.contains(name) => {
                errors.push(FieldError::not_found(format!("{path}.name"), name));
            }
            _ => {}
        }
        match mount.text("/mountPath") {
            "" => errors.required(format!("{path}.mountPath"), ""),
            target if !paths.insert(target) => {
                errors.invalid(format!("{path}.mountPath"), target, "must be unique")
            }
            _ => {}
        }
        sub_paths(errors, &path, mount);
        errors.one_of(
            &format!("{path}.mountPropagation"),
            mount.text("/mountPropagation"),
            &["Bidirectional", "HostToContainer", "None"],
        );
    }
    for (index, device) in container.items("/volumeDevices").iter().enumerate() {
        let path = format!("{path}.volumeDevices[{index}]");
        match device.text("/name") {
            name if context.volumes.contains(name) => {}
            name => errors.push(FieldError::not_found(format!("{path}.name"), name)),
        }
        if device.text("/devicePath").is_empty() {
            errors.required(format!("{path}.devicePath"), "");
        }
    }
}

fn sub_paths(errors: &mut Errors, path: &str, mount: &Value) {
    for field in ["subPath", "subPathExpr"] {
        relative_path(errors, &format!("{path}.{field}"), mount.text(&format!("/{field}")));
    }
    if !mount.text("/subPath").is_empty() && !mount.text("/subPathExpr").is_empty() {
        errors.invalid(
            format!("{path}.subPathExpr"),
            mount.text("/subPathExpr"),
            "subPathExpr and subPath are mutually exclusive",
        );
    }
}

/// A path that stays below where it starts; empty is fine.
pub fn relative_path(errors: &mut Errors, path: &str, value: &str) {
    if value.starts_with('/') {
        errors.invalid(path, value, "must be a relative path");
    }
    if value.split('/').any(|part| part == "..") {
        errors.invalid(path, value, "must not contain '..'");
    }
}
