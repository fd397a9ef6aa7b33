//! From the two security contexts to what the runtime enforces.

use std::path::{Path, PathBuf};

use containers::{Seccomp, Security};
use images::Image;
use k8s_openapi::api::core::v1::{Container, Pod, SeccompProfile};

use crate::machine::spec::display_name;

/// The container's security, its own context before the pod's. `Err` is upstream's message.
pub fn security(
    pod: &Pod,
    container: &Container,
    image: &Image,
    seccomp_root: &Path,
) -> Result<Security, String> {
    let pod_context = pod.spec.as_ref().and_then(|spec| spec.security_context.clone()).unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let capabilities = own.capabilities.unwrap_or_default();
    let run_as_user = own.run_as_user.or(pod_context.run_as_user);
    if own.run_as_non_root.or(pod_context.run_as_non_root) == Some(true) {
        verify_non_root(pod, container, run_as_user, image)?;
    }
    let mut groups: Vec<u32> =
        pod_context.supplemental_groups.iter().flatten().filter_map(|id| narrow(*id)).collect();
    groups.extend(pod_context.fs_group.and_then(narrow));
    let privileged = own.privileged == Some(true);
    let bare = |names: Option<Vec<String>>| {
        names.unwrap_or_default().into_iter().map(|name| name.trim_start_matches("CAP_").to_owned()).collect()
    };
    let unmasked = own.proc_mount.as_deref() == Some("Unmasked");
    Ok(Security {
        privileged,
        run_as_user: run_as_user.and_then(narrow),
        run_as_group: own.run_as_group.or(pod_context.run_as_group).and_then(narrow),
        supplemental_groups: groups,
        strict_supplemental_groups: pod_context.supplemental_groups_policy.as_deref() == Some("Strict"),
        read_only_root: own.read_only_root_filesystem == Some(true),
        no_new_privileges: own.allow_privilege_escalation == Some(false) && !privileged,
        add_capabilities: bare(capabilities.add),
        drop_capabilities: bare(capabilities.drop),
        seccomp: seccomp(own.seccomp_profile.or(pod_context.seccomp_profile), privileged, seccomp_root),
        masked_paths: unmasked.then(Vec::new),
        read_only_paths: unmasked.then(Vec::new),
        target_container: None,
    })
}

fn narrow(id: i64) -> Option<u32> {
    u32::try_from(id).ok()
}

fn seccomp(profile: Option<SeccompProfile>, privileged: bool, root: &Path) -> Seccomp {
    match profile {
        Some(_) if privileged => Seccomp::Unconfined,
        Some(profile) if profile.type_ == "RuntimeDefault" => Seccomp::RuntimeDefault,
        Some(SeccompProfile { type_, localhost_profile: Some(file) }) if type_ == "Localhost" => {
            Seccomp::Localhost(root.join(PathBuf::from(file)))
        }
        _ => Seccomp::Unconfined,
    }
}

fn verify_non_root(pod: &Pod, container: &Container, user: Option<i64>, image: &Image) -> Result<(), String> {
    let place = format!("(pod: \"{}\", container: {})", display_name(pod), container.name);
    match user {
        Some(0) => return Err(format!("container's runAsUser breaks non-root policy {place}")),
        Some(_) => return Ok(()),
        None => {}
    }
    let name = image.config.user.split(':').next().unwrap_or_default();
    match name.parse::<i64>() {
        _ if name.is_empty() => Err(format!("container has runAsNonRoot and image will run as root {place}")),
        Ok(0) => Err(format!("container has runAsNonRoot and image will run as root {place}")),
        Ok(_) => Ok(()),
        Err(_) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root {place}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use images::ImageConfig;
    use serde_json::{Value, json};

    fn check(pod: Value, own: Value, user: &str, want: Result<(), &str>) {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": [], "securityContext": pod}}))
            .unwrap();
        let container: Container =
            serde_json::from_value(json!({"name": "c", "securityContext": own})).unwrap();
        let config = ImageConfig { user: user.to_owned(), ..ImageConfig::default() };
        let image = Image { config, ..Image::default() };
        let got = security(&pod, &container, &image, Path::new("/s")).map(|_| ());
        assert_eq!(got, want.map_err(|text| format!("{text} (pod: \"p_n(u)\", container: c)")));
    }

    #[test]
    fn non_root() {
        let must = || json!({"runAsNonRoot": true});
        check(json!({}), json!({}), "", Ok(()));
        check(must(), json!({}), "", Err("container has runAsNonRoot and image will run as root"));
        check(must(), json!({}), "0:5", Err("container has runAsNonRoot and image will run as root"));
        check(must(), json!({}), "7", Ok(()));
        check(must(), json!({"runAsUser": 0}), "7", Err("container's runAsUser breaks non-root policy"));
        check(must(), json!({"runAsUser": 5}), "", Ok(()));
        check(must(), json!({"runAsNonRoot": false}), "", Ok(()));
        check(
            json!({}),
            must(),
            "nobody",
            Err(
                "container has runAsNonRoot and image has non-numeric user (nobody), cannot verify user is non-root",
            ),
        );
    }
}
