//! What a pod spec may say; also used for the templates of workloads.

pub mod containers;
pub mod environment;
pub mod handlers;
pub mod resources;
pub mod scheduling;
pub mod security;
pub mod update;
pub mod volumes;

use serde_json::Value;

use crate::check::Errors;
use crate::names;
use crate::value::Access;

/// A pod spec at `path`.
pub fn spec(errors: &mut Errors, path: &str, spec: &Value) {
    volumes::all(errors, path, spec);
    containers::all(errors, path, spec);
    policies(errors, path, spec);
    scheduling::all(errors, path, spec);
    security::pod(errors, path, spec);
    identity(errors, path, spec);
    dns(errors, path, spec);
    resources::requirements(errors, &format!("{path}.resources"), spec.at("/resources"));
    gates(errors, path, spec);
}

fn policies(errors: &mut Errors, path: &str, spec: &Value) {
    let restart = ["Always", "OnFailure", "Never"];
    errors.required_one_of(&format!("{path}.restartPolicy"), spec.text("/restartPolicy"), &restart);
    let dns = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
    errors.required_one_of(&format!("{path}.dnsPolicy"), spec.text("/dnsPolicy"), &dns);
    errors.one_of(
        &format!("{path}.preemptionPolicy"),
        spec.text("/preemptionPolicy"),
        &["Never", "PreemptLowerPriority"],
    );
    let deadline = spec.at("/activeDeadlineSeconds");
    if deadline.as_i64().is_some_and(|seconds| !(1..=i64::from(i32::MAX)).contains(&seconds)) {
        let detail = "must be between 1 and 2147483647, inclusive";
        errors.invalid(format!("{path}.activeDeadlineSeconds"), deadline, detail);
    }
    errors.at_least(
        &format!("{path}.terminationGracePeriodSeconds"),
        spec.int("/terminationGracePeriodSeconds"),
        0,
    );
    if spec.has("/os") {
        errors.required_one_of(&format!("{path}.os.name"), spec.text("/os/name"), &["linux", "windows"]);
    }
    if spec.flag("/shareProcessNamespace") && spec.flag("/hostPID") {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(format!("{path}.securityContext.shareProcessNamespace"), true, detail);
    }
}

fn identity(errors: &mut Errors, path: &str, spec: &Value) {
    for field in ["serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName", "schedulerName"]
    {
        errors.format(&format!("{path}.{field}"), spec.text(&format!("/{field}")), names::dns_subdomain);
    }
    for field in ["hostname", "subdomain"] {
        errors.format(&format!("{path}.{field}"), spec.text(&format!("/{field}")), names::dns_label);
    }
    for (index, secret) in spec.items("/imagePullSecrets").iter().enumerate() {
        if secret.text("/name").is_empty() {
            errors.required(format!("{path}.imagePullSecrets[{index}].name"), "");
        }
    }
    for (index, alias) in spec.items("/hostAliases").iter().enumerate() {
        let path = format!("{path}.hostAliases[{index}]");
        errors.ip(&format!("{path}.ip"), alias.text("/ip"));
        for (index, name) in alias.items("/hostnames").iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            errors.format(&format!("{path}.hostnames[{index}]"), name, names::dns_subdomain);
        }
    }
}

fn dns(errors: &mut Errors, path: &str, spec: &Value) {
    let config = spec.at("/dnsConfig");
    let path = format!("{path}.dnsConfig");
    let servers = config.items("/nameservers");
    if spec.text("/dnsPolicy") == "None" {
        if config.is_null() {
            errors.required(&path, "must provide `dnsConfig` when `dnsPolicy` is None");
            return;
        }
        if servers.is_empty() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.required(format!("{path}.nameservers"), detail);
        }
    }
    if servers.len() > 3 {
        errors.invalid(format!("{path}.nameservers"), servers, "must not have more than 3 nameservers");
    }
    for (index, server) in servers.iter().enumerate() {
        errors.ip(&format!("{path}.nameservers[{index}]"), server.as_str().unwrap_or_default());
    }
    if config.items("/searches").len() > 32 {
        errors.invalid(
            format!("{path}.searches"),
            config.at("/searches"),
            "must not have more than 32 search paths",
        );
    }
    for (index, search) in config.items("/searches").iter().enumerate() {
        let search = search.as_str().unwrap_or_default().trim_end_matches('.');
        errors.format(&format!("{path}.searches[{index}]"), &search.replace('_', "a"), names::dns_subdomain);
    }
    for (index, option) in config.items("/options").iter().enumerate() {
        if option.text("/name").is_empty() {
            errors.required(format!("{path}.options[{index}]"), "must not be empty");
        }
    }
}

fn gates(errors: &mut Errors, path: &str, spec: &Value) {
    for (list, field) in [("readinessGates", "conditionType"), ("schedulingGates", "name")] {
        for (index, gate) in spec.items(&format!("/{list}")).iter().enumerate() {
            let name = gate.text(&format!("/{field}"));
            if let Err(detail) = machinery::selector::validate_label_key(name) {
                errors.invalid(format!("{path}.{list}[{index}].{field}"), name, detail);
            }
        }
    }
}

/// A pod template at `path` (`spec.template`).
pub fn template(errors: &mut Errors, path: &str, template: &Value) {
    errors.labels(&format!("{path}.metadata.labels"), template.at("/metadata/labels"));
    crate::metadata::annotations(
        errors,
        &format!("{path}.metadata.annotations"),
        template.at("/metadata/annotations"),
    );
    spec(errors, &format!("{path}.spec"), template.at("/spec"));
    if !template.items("/spec/ephemeralContainers").is_empty() {
        errors.forbidden(
            format!("{path}.spec.ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        );
    }
}
