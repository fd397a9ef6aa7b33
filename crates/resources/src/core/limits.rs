//! LimitRanges and ResourceQuotas.

use jiff::Timestamp;
use machinery::FieldError;
use machinery::quantity::Quantity;
use serde_json::Value;

use crate::check::Errors;
use crate::value::{Access, Fill};
use crate::{Strategy, row};

pub struct LimitRanges;

impl Strategy for LimitRanges {
    fn default(&self, object: &mut Value) {
        for item in object.child("spec").each("limits").filter(|item| item.text("/type") == "Container") {
            fill(item, "default", "max");
            fill(item, "defaultRequest", "default");
            fill(item, "defaultRequest", "min");
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        for (index, item) in object.items("/spec/limits").iter().enumerate() {
            limit(&mut errors, &format!("spec.limits[{index}]"), item);
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        self.validate_create(new)
    }
}

/// Fills what `field` does not say from `source`.
fn fill(item: &mut Value, field: &str, source: &str) {
    let known: Vec<_> = item.members(&format!("/{source}")).map(|(k, v)| (k.clone(), v.clone())).collect();
    for (name, quantity) in known {
        item.child(field).default_absent(&name, quantity);
    }
}

fn limit(errors: &mut Errors, path: &str, item: &Value) {
    if item.text("/type") == "Pod" {
        for field in ["default", "defaultRequest"] {
            if item.members(&format!("/{field}")).next().is_some() {
                errors.forbidden(format!("{path}.{field}"), "may not be specified when `type` is 'Pod'");
            }
        }
    }
    let amount = |field: &str, name: &str| Quantity::read(item.at(&format!("/{field}")).get(name)?);
    for (name, _) in item.members("/max") {
        let (min, max) = (amount("min", name), amount("max", name));
        if let (Some(min), Some(max)) = (&min, &max)
            && min > max
        {
            let detail = format!("min value {min} is greater than max value {max}");
            errors.invalid(format!("{path}.min[{name}]"), min.to_string(), detail);
        }
        if let (Some(default), Some(max)) = (amount("default", name), max)
            && default > max
        {
            let detail = format!("default value {default} is greater than max value {max}");
            errors.invalid(format!("{path}.default[{name}]"), default.to_string(), detail);
        }
    }
    for (name, _) in item.members("/defaultRequest") {
        if let (Some(request), Some(default)) = (amount("defaultRequest", name), amount("default", name))
            && request > default
        {
            let detail =
                format!("default request value {request} is greater than default limit value {default}");
            errors.invalid(format!("{path}.defaultRequest[{name}]"), request.to_string(), detail);
        }
    }
}

pub struct ResourceQuotas;

const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

impl Strategy for ResourceQuotas {
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        for (name, quantity) in object.members("/spec/hard") {
            errors.quantity(&format!("spec.hard[{name}]"), quantity);
        }
        for scope in object.items("/spec/scopes") {
            errors.one_of("spec.scopes", scope.as_str().unwrap_or_default(), &SCOPES);
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        errors.extend(self.validate_create(new));
        errors.immutable("spec.scopes", new.at("/spec/scopes"), old.at("/spec/scopes"));
        errors.into_vec()
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        let list = |wanted: bool| {
            let texts: Vec<_> = object
                .members("/status/hard")
                .filter(|(name, _)| name.starts_with("limits") == wanted)
                .map(|(name, hard)| {
                    let used = object.at("/status/used").get(name).and_then(Value::as_str).unwrap_or("0");
                    format!("{name}: {used}/{}", hard.as_str().unwrap_or_default())
                })
                .collect();
            Value::from(texts.join(", "))
        };
        vec![row::name(object), list(false), list(true), row::created(now, object)]
    }
}
