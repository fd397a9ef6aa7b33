//! Volumes: names, one source each, and what the sources need.

use std::collections::BTreeSet;

use machinery::FieldError;
use serde_json::Value;

use super::containers::relative_path;
use super::environment::{VOLUME_FIELDS, field_reference, resource_reference};
use crate::check::Errors;
use crate::names;
use crate::value::Access;

const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// All volumes of a pod spec.
pub fn all(errors: &mut Errors, path: &str, spec: &Value) {
    let mut seen = BTreeSet::new();
    for (index, volume) in spec.items("/volumes").iter().enumerate() {
        let path = format!("{path}.volumes[{index}]");
        let name = volume.text("/name");
        errors.name(&format!("{path}.name"), name, names::dns_label);
        if !name.is_empty() && !seen.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), name));
        }
        let sources: Vec<_> =
            volume.members("").filter(|(field, value)| *field != "name" && !value.is_null()).collect();
        match sources.as_slice() {
            [] => errors.required(&path, "must specify a volume type"),
            [(kind, value)] => source(errors, &format!("{path}.{kind}"), kind, value),
            [_, rest @ ..] => {
                for (kind, _) in rest {
                    errors.forbidden(format!("{path}.{kind}"), "may not specify more than 1 volume type");
                }
            }
        }
    }
}

fn source(errors: &mut Errors, path: &str, kind: &str, source: &Value) {
    match kind {
        "emptyDir" if source.has("/sizeLimit") => {
            errors.quantity(&format!("{path}.sizeLimit"), source.at("/sizeLimit"));
        }
        "hostPath" => {
            let target = source.text("/path");
            if target.is_empty() {
                errors.required(format!("{path}.path"), "");
            } else if target.split('/').any(|part| part == "..") {
                errors.invalid(format!("{path}.path"), target, "must not contain '..'");
            }
            errors.one_of(&format!("{path}.type"), source.text("/type"), &HOST_PATH_TYPES);
        }
        "secret" => files(errors, path, source, "secretName"),
        "configMap" => files(errors, path, source, "name"),
        "persistentVolumeClaim" => {
            errors.name(&format!("{path}.claimName"), source.text("/claimName"), names::dns_subdomain);
        }
        "downwardAPI" => {
            mode(errors, &format!("{path}.defaultMode"), source.at("/defaultMode"));
            downward(errors, path, source);
        }
        "projected" => projected(errors, path, source),
        "nfs" => {
            for field in ["server", "path"] {
                if source.text(&format!("/{field}")).is_empty() {
                    errors.required(format!("{path}.{field}"), "");
                }
            }
        }
        "csi" if source.text("/driver").is_empty() => errors.required(format!("{path}.driver"), ""),
        "ephemeral" if !source.has("/volumeClaimTemplate") => {
            errors.required(format!("{path}.volumeClaimTemplate"), "");
        }
        _ => {}
    }
}

fn mode(errors: &mut Errors, path: &str, value: &Value) {
    if value.as_i64().is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.invalid(path, value, detail);
    }
}

fn files(errors: &mut Errors, path: &str, source: &Value, name_field: &str) {
    if source.text(&format!("/{name_field}")).is_empty() {
        errors.required(format!("{path}.{name_field}"), "");
    }
    mode(errors, &format!("{path}.defaultMode"), source.at("/defaultMode"));
    items(errors, path, source);
}

fn items(errors: &mut Errors, path: &str, source: &Value) {
    for (index, item) in source.items("/items").iter().enumerate() {
        let path = format!("{path}.items[{index}]");
        if item.text("/key").is_empty() {
            errors.required(format!("{path}.key"), "");
        }
        target(errors, &path, item);
    }
}

fn target(errors: &mut Errors, path: &str, item: &Value) {
    match item.text("/path") {
        "" => errors.required(format!("{path}.path"), ""),
        file => {
            relative_path(errors, &format!("{path}.path"), file);
            if file.starts_with("..") && !file.starts_with("../") {
                errors.invalid(format!("{path}.path"), file, "must not start with '..'");
            }
        }
    }
    mode(errors, &format!("{path}.mode"), item.at("/mode"));
}

fn downward(errors: &mut Errors, path: &str, source: &Value) {
    for (index, item) in source.items("/items").iter().enumerate() {
        let path = format!("{path}.items[{index}]");
        target(errors, &path, item);
        match (item.has("/fieldRef"), item.has("/resourceFieldRef")) {
            (true, true) => {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.invalid(&path, "resource", detail);
            }
            (true, false) => {
                field_reference(errors, &format!("{path}.fieldRef"), item.at("/fieldRef"), &VOLUME_FIELDS);
            }
            (false, true) => {
                let path = format!("{path}.resourceFieldRef");
                if item.text("/resourceFieldRef/containerName").is_empty() {
                    errors.required(format!("{path}.containerName"), "");
                }
                resource_reference(errors, &path, item.at("/resourceFieldRef"));
            }
            (false, false) => errors.required(&path, "one of fieldRef and resourceFieldRef is required"),
        }
    }
}

fn projected(errors: &mut Errors, path: &str, source: &Value) {
    mode(errors, &format!("{path}.defaultMode"), source.at("/defaultMode"));
    for (index, part) in source.items("/sources").iter().enumerate() {
        let path = format!("{path}.sources[{index}]");
        let kinds: Vec<_> = part.members("").filter(|(_, value)| !value.is_null()).collect();
        match kinds.as_slice() {
            [] => errors.forbidden(&path, "must specify at least one projection"),
            [(kind, value)] => projection(errors, &format!("{path}.{kind}"), kind, value),
            [_, (kind, _), ..] => {
                errors.forbidden(
                    format!("{path}.{kind}"),
                    "may not specify more than 1 volume type per source",
                );
            }
        }
    }
}

fn projection(errors: &mut Errors, path: &str, kind: &str, source: &Value) {
    match kind {
        "secret" | "configMap" => {
            if source.text("/name").is_empty() {
                errors.required(format!("{path}.name"), "");
            }
            items(errors, path, source);
        }
        "downwardAPI" => downward(errors, path, source),
        "serviceAccountToken" => {
            let seconds = source.int("/expirationSeconds").unwrap_or(3600);
            if seconds < 600 {
                errors.invalid(
                    format!("{path}.expirationSeconds"),
                    seconds,
                    "may not specify a duration less than 10 minutes",
                );
            }
            if seconds > 1 << 32 {
                errors.invalid(
                    format!("{path}.expirationSeconds"),
                    seconds,
                    "may not specify a duration larger than 2^32 seconds",
                );
            }
            if source.text("/path").is_empty() {
                errors.required(format!("{path}.path"), "");
            }
        }
        _ => {}
    }
}
