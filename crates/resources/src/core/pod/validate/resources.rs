//! Requests and limits.

use machinery::selector::validate_label_key;
use serde_json::Value;

use crate::check::Errors;
use crate::value::Access;

/// The resources of a container or pod.
pub fn requirements(errors: &mut Errors, path: &str, resources: &Value) {
    for list in ["limits", "requests"] {
        for (name, amount) in resources.members(&format!("/{list}")) {
            let path = format!("{path}.{list}");
            resource_name(errors, &path, name);
            quantity(errors, &format!("{path}[{name}]"), name, amount);
        }
    }
    for (name, request) in resources.members("/requests") {
        against_limit(errors, &format!("{path}.requests"), name, request, resources.at("/limits").get(name));
    }
}

fn against_limit(errors: &mut Errors, path: &str, name: &str, request: &Value, limit: Option<&Value>) {
    use machinery::quantity::Quantity;
    let Some(asked) = Quantity::read(request) else { return };
    match limit.and_then(Quantity::read) {
        Some(limit) if !may_overcommit(name) && asked != limit => {
            errors.invalid(path, request, format!("must be equal to {name} limit of {limit}"));
        }
        Some(limit) if asked > limit => {
            errors.invalid(path, request, format!("must be less than or equal to {name} limit of {limit}"));
        }
        None if !may_overcommit(name) => {
            errors.required(
                path.replace("requests", "limits"),
                "Limit must be set for non overcommitable resources",
            );
        }
        _ => {}
    }
}

fn may_overcommit(name: &str) -> bool {
    is_native(name) && !name.starts_with("hugepages-")
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.starts_with("kubernetes.io/")
}

fn resource_name(errors: &mut Errors, path: &str, name: &str) {
    if let Err(detail) = validate_label_key(name) {
        errors.invalid(path, name, detail);
        return;
    }
    let standard = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if is_native(name) && !standard {
        if name.contains('/') {
            errors.invalid(path, name, "must be a standard resource type or fully qualified");
            return;
        }
        errors.invalid(path, name, "must be a standard resource type or fully qualified");
        errors.invalid(path, name, "must be a standard resource for containers");
    }
}

fn quantity(errors: &mut Errors, path: &str, name: &str, amount: &Value) {
    let Some(quantity) = errors.quantity(path, amount) else { return };
    let whole = !is_native(name) || name.starts_with("hugepages-");
    if whole && !quantity.is_whole() {
        errors.invalid(path, amount, "must be an integer");
    }
}
