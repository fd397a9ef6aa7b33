//! Security contexts of pods and containers.

use serde_json::Value;

use crate::check::Errors;
use crate::value::Access;

const USER_MAX: i64 = i32::MAX as i64;

/// The pod's.
pub fn pod(errors: &mut Errors, path: &str, spec: &Value) {
    let context = spec.at("/securityContext");
    let path = format!("{path}.securityContext");
    ids(errors, &path, context, &["runAsUser", "runAsGroup", "fsGroup"]);
    for (index, group) in context.items("/supplementalGroups").iter().enumerate() {
        id(errors, &format!("{path}.supplementalGroups[{index}]"), group);
    }
    for (index, sysctl) in context.items("/sysctls").iter().enumerate() {
        let path = format!("{path}.sysctls[{index}].name");
        match sysctl.text("/name") {
            "" => errors.required(path, ""),
            name if !is_sysctl(name) => {
                errors.invalid(path, name, "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$");
            }
            _ => {}
        }
    }
    errors.one_of(
        &format!("{path}.fsGroupChangePolicy"),
        context.text("/fsGroupChangePolicy"),
        &["Always", "OnRootMismatch"],
    );
    profile(errors, &format!("{path}.seccompProfile"), context.at("/seccompProfile"));
}

/// Words of small letters, digits and inner dashes, between single dots or slashes.
fn is_sysctl(name: &str) -> bool {
    let alphanumeric = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let is_word = |word: &str| {
        let mut bytes = word.bytes();
        alphanumeric(bytes.clone().next())
            && alphanumeric(bytes.clone().next_back())
            && bytes.all(|b| alphanumeric(Some(b)) || matches!(b, b'-' | b'_'))
    };
    name.len() <= 253 && name.split(['.', '/']).all(is_word)
}

/// A container's.
pub fn container(errors: &mut Errors, path: &str, container: &Value) {
    let context = container.at("/securityContext");
    if context.is_null() {
        return;
    }
    let path = format!("{path}.securityContext");
    ids(errors, &path, context, &["runAsUser", "runAsGroup"]);
    errors.one_of(&format!("{path}.procMount"), context.text("/procMount"), &["Default", "Unmasked"]);
    profile(errors, &format!("{path}.seccompProfile"), context.at("/seccompProfile"));
    if context.at("/allowPrivilegeEscalation") != &Value::Bool(false) {
        return;
    }
    if context.flag("/privileged") {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        errors.invalid(&path, context, detail);
    }
    if context.items("/capabilities/add").iter().any(|name| name == "CAP_SYS_ADMIN") {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        errors.invalid(&path, context, detail);
    }
}

fn ids(errors: &mut Errors, path: &str, context: &Value, fields: &[&str]) {
    for field in fields {
        id(errors, &format!("{path}.{field}"), context.at(&format!("/{field}")));
    }
}

fn id(errors: &mut Errors, path: &str, value: &Value) {
    if value.as_i64().is_some_and(|id| !(0..=USER_MAX).contains(&id)) {
        errors.invalid(path, value, "must be between 0 and 2147483647, inclusive");
    }
}

fn profile(errors: &mut Errors, path: &str, profile: &Value) {
    if profile.is_null() {
        return;
    }
    let kind = profile.text("/type");
    errors.required_one_of(&format!("{path}.type"), kind, &["Localhost", "RuntimeDefault", "Unconfined"]);
    match (kind, profile.text("/localhostProfile")) {
        ("Localhost", "") => {
            errors.required(format!("{path}.localhostProfile"), "must be set when seccomp type is Localhost");
        }
        ("Localhost", file) => {
            super::containers::relative_path(errors, &format!("{path}.localhostProfile"), file);
        }
        (_, "") => {}
        (_, file) => {
            let detail = "can only be set when seccomp type is Localhost";
            errors.invalid(format!("{path}.localhostProfile"), file, detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctl_names() {
        for good in
            ["kernel.shm_rmid_forced", "net/ipv4/ip_forward", "a", "a-b.c_d", "net.ipv4.conf.eth0.rp_filter"]
        {
            assert!(is_sysctl(good), "{good}");
        }
        for bad in ["", "foo-", "bar..", ".a", "A", "_a", "a b"] {
            assert!(!is_sysctl(bad), "{bad}");
        }
    }
}
