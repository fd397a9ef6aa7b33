//! Nobody may hand out permissions that they do not hold: the check of writes to roles and bindings.

use machinery::Status;
use serde_json::Value;

use crate::core::Core;
use crate::pipeline::{Call, Selectors, attributes};

/// Judges a write of `new`. Rows that are neither roles nor bindings pass.
pub fn check(core: &Core, call: &Call, new: &Value, old: Option<&Value>) -> Result<(), Status> {
    let Some(rbac) = core.rbac.get().filter(|_| call.row.group == "rbac.authorization.k8s.io") else {
        return Ok(());
    };
    let attributes = attributes(&call.caller.user, call.verb, &call.target, Selectors::default());
    match call.row.resource.as_str() {
        "roles" | "clusterroles" => rbac.check_role_write(&*core.authorizer, &attributes, new, old),
        "rolebindings" | "clusterrolebindings" => {
            rbac.check_binding_write(&*core.authorizer, &attributes, new, old)
        }
        _ => Ok(()),
    }
}
