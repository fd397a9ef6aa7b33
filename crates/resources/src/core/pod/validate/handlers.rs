//! Probes and lifecycle hooks.

use serde_json::Value;

use crate::check::Errors;
use crate::value::Access;

/// A probe; liveness and startup probes succeed at once.
pub fn probe(errors: &mut Errors, path: &str, probe: &Value, succeeds_once: bool) {
    handler(errors, path, probe, &["exec", "httpGet", "tcpSocket", "grpc"]);
    for field in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        errors.at_least(&format!("{path}.{field}"), probe.int(&format!("/{field}")), 0);
    }
    let grace = probe.int("/terminationGracePeriodSeconds");
    errors.at_least(&format!("{path}.terminationGracePeriodSeconds"), grace, 1);
    let threshold = probe.int("/successThreshold").unwrap_or(1);
    if succeeds_once && threshold != 1 {
        errors.invalid(format!("{path}.successThreshold"), threshold, "must be 1");
    }
    if !succeeds_once && grace.is_some() {
        let detail = "must not be set for readinessProbes";
        errors.invalid(format!("{path}.terminationGracePeriodSeconds"), grace, detail);
    }
}

/// A `postStart` or `preStop` hook.
pub fn hook(errors: &mut Errors, path: &str, hook: &Value) {
    handler(errors, path, hook, &["exec", "httpGet", "tcpSocket", "sleep"]);
}

fn handler(errors: &mut Errors, path: &str, handler: &Value, kinds: &[&str]) {
    let mut given = 0;
    for kind in kinds {
        let action = handler.at(&format!("/{kind}"));
        if action.is_null() {
            continue;
        }
        let path = format!("{path}.{kind}");
        given += 1;
        if given > 1 {
            errors.forbidden(path, "may not specify more than 1 handler type");
            continue;
        }
        match *kind {
            "exec" if action.items("/command").is_empty() => errors.required(format!("{path}.command"), ""),
            "httpGet" => http_get(errors, &path, action),
            "tcpSocket" => errors.port(&format!("{path}.port"), action.at("/port")),
            "grpc" => errors.port_number(&format!("{path}.port"), action.int("/port").unwrap_or(0)),
            "sleep" => errors.at_least(&format!("{path}.seconds"), action.int("/seconds"), 0),
            _ => {}
        }
    }
    if given == 0 {
        errors.required(path, "must specify a handler type");
    }
}

fn http_get(errors: &mut Errors, path: &str, get: &Value) {
    if get.text("/path").is_empty() {
        errors.required(format!("{path}.path"), "");
    }
    errors.port(&format!("{path}.port"), get.at("/port"));
    errors.one_of(&format!("{path}.scheme"), get.text("/scheme"), &["HTTP", "HTTPS"]);
    for (index, header) in get.items("/httpHeaders").iter().enumerate() {
        let name = header.text("/name");
        let good = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !good {
            let detail = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
            errors.invalid(format!("{path}.httpHeaders[{index}].name"), name, detail);
        }
    }
}
