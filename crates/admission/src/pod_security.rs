//! PodSecurity: the Pod Security Standards, per namespace by its labels.

use async_trait::async_trait;
use machinery::Status;
use resources::value::Access;
use serde_json::Value;

use crate::lookup::Lookup;
use crate::{Attributes, Operation, Plugin};

const LABEL: &str = "pod-security.kubernetes.io/";
/// What the baseline lets a container add.
const BASELINE_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
const SAFE_SYSCTLS: [&str; 10] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_syncookies",
];
const RESTRICTED_VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

pub struct PodSecurity {
    pub lookup: Lookup,
}

#[async_trait]
impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        let is_new = attributes.operation == Operation::Create && attributes.subresource.is_empty();
        let grows =
            attributes.operation == Operation::Update && attributes.subresource == "ephemeralcontainers";
        let is_pod = attributes.is_resource("", "pods") && (is_new || grows);
        is_pod || (is_new && template(attributes).is_some())
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let Some(namespace) = self.lookup.namespace(attributes.namespace).await? else { return Ok(()) };
        let labels = namespace.at("/metadata/labels");
        let level =
            |mode: &str| labels.get(format!("{LABEL}{mode}")).and_then(Value::as_str).unwrap_or("privileged");
        let version = |mode: &str| {
            labels
                .get(format!("{LABEL}{mode}-version"))
                .and_then(Value::as_str)
                .unwrap_or("latest")
                .to_owned()
        };
        let is_pod = attributes.is_resource("", "pods");
        let spec = template(attributes).unwrap_or(attributes.new_object().at("/spec"));
        let verdict = |mode: &str| {
            let found = violations(level(mode), spec);
            (!found.is_empty())
                .then(|| format!("\"{}:{}\": {}", level(mode), version(mode), found.join(", ")))
        };
        if is_pod && let Some(found) = verdict("enforce") {
            return Err(attributes.forbidden(&format!("violates PodSecurity {found}")));
        }
        if let Some(found) = verdict("warn") {
            attributes.warnings.add(format!("would violate PodSecurity {found}"));
        }
        Ok(())
    }
}

/// The pod spec of a workload, which is only warned about.
fn template<'a>(attributes: &'a Attributes<'_>) -> Option<&'a Value> {
    let pointer = match (attributes.resource.group.as_str(), attributes.resource.resource.as_str()) {
        ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets") | ("batch", "jobs") => {
            "/spec/template/spec"
        }
        ("", "replicationcontrollers") => "/spec/template/spec",
        ("batch", "cronjobs") => "/spec/jobTemplate/spec/template/spec",
        _ => return None,
    };
    attributes.new_object().pointer(pointer)
}

/// What of a pod spec a level does not allow.
fn violations(level: &str, spec: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if matches!(level, "baseline" | "restricted") {
        baseline(&mut found, spec, level == "restricted");
    }
    if level == "restricted" {
        restricted(&mut found, spec);
    }
    found
}

fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["/initContainers", "/containers", "/ephemeralContainers"].into_iter().flat_map(|list| spec.items(list))
}

/// `container "a"` or `containers "a", "b"` of those that `offends` picks; `None` when there are none.
fn offenders(spec: &Value, offends: impl Fn(&Value) -> bool) -> Option<String> {
    let names: Vec<_> = containers(spec)
        .filter(|container| offends(container))
        .map(|c| format!("{:?}", c.text("/name")))
        .collect();
    match names.len() {
        0 => None,
        1 => Some(format!("container {}", names[0])),
        _ => Some(format!("containers {}", names.join(", "))),
    }
}

fn baseline(found: &mut Vec<String>, spec: &Value, restricted: bool) {
    let host: Vec<_> = ["hostNetwork", "hostPID", "hostIPC"]
        .iter()
        .filter(|field| spec.flag(&format!("/{field}")))
        .collect();
    if !host.is_empty() {
        let texts: Vec<_> = host.iter().map(|field| format!("{field}=true")).collect();
        found.push(format!("host namespaces ({})", texts.join(", ")));
    }
    if let Some(who) = offenders(spec, |c| c.flag("/securityContext/privileged")) {
        found.push(format!("privileged ({who} must not set securityContext.privileged=true)"));
    }
    let too_capable = |container: &Value| {
        container
            .items("/securityContext/capabilities/add")
            .iter()
            .any(|name| !BASELINE_CAPABILITIES.contains(&name.as_str().unwrap_or_default()))
    };
    if !restricted && let Some(who) = offenders(spec, too_capable) {
        found.push(format!(
            "non-default capabilities ({who} must not include such in securityContext.capabilities.add)"
        ));
    }
    let paths: Vec<_> = spec
        .items("/volumes")
        .iter()
        .filter(|volume| volume.has("/hostPath"))
        .map(|volume| format!("{:?}", volume.text("/name")))
        .collect();
    if !restricted && !paths.is_empty() {
        let noun = if paths.len() == 1 { "volume" } else { "volumes" };
        found.push(format!("hostPath volumes ({noun} {})", paths.join(", ")));
    }
    let host_port = |container: &Value| {
        container.items("/ports").iter().any(|port| port.int("/hostPort").is_some_and(|port| port != 0))
    };
    if let Some(who) = offenders(spec, host_port) {
        found.push(format!("hostPort ({who} uses hostPorts)"));
    }
    profiles(found, spec, restricted);
}

fn profiles(found: &mut Vec<String>, spec: &Value, restricted: bool) {
    let unmasked = |container: &Value| container.text("/securityContext/procMount") == "Unmasked";
    if let Some(who) = offenders(spec, unmasked) {
        found.push(format!("procMount ({who} must not set securityContext.procMount to \"Unmasked\")"));
    }
    let unconfined = |object: &Value| object.text("/securityContext/seccompProfile/type") == "Unconfined";
    let who = if unconfined(spec) { Some("pod".to_owned()) } else { offenders(spec, unconfined) };
    if let Some(who) = who.filter(|_| !restricted) {
        found.push(format!(
            "seccompProfile ({who} must not set securityContext.seccompProfile.type to \"Unconfined\")"
        ));
    }
    let sysctls: Vec<_> = spec
        .items("/securityContext/sysctls")
        .iter()
        .map(|sysctl| sysctl.text("/name"))
        .filter(|name| !SAFE_SYSCTLS.contains(name))
        .collect();
    if !sysctls.is_empty() {
        found.push(format!("forbidden sysctls ({})", sysctls.join(", ")));
    }
}

fn restricted(found: &mut Vec<String>, spec: &Value) {
    let escalates = |c: &Value| c.at("/securityContext/allowPrivilegeEscalation") != &Value::Bool(false);
    if let Some(who) = offenders(spec, escalates) {
        found.push(format!(
            "allowPrivilegeEscalation != false ({who} must set securityContext.allowPrivilegeEscalation=false)"
        ));
    }
    let keeps = |container: &Value| {
        let capabilities = container.at("/securityContext/capabilities");
        let drops_all = capabilities.items("/drop").iter().any(|name| name == "ALL");
        !drops_all || capabilities.items("/add").iter().any(|name| name != "NET_BIND_SERVICE")
    };
    if let Some(who) = offenders(spec, keeps) {
        found.push(format!(
            "unrestricted capabilities ({who} must set securityContext.capabilities.drop=[\"ALL\"])"
        ));
    }
    for volume in spec.items("/volumes") {
        let other = volume.members("").find(|(kind, value)| {
            *kind != "name" && !value.is_null() && !RESTRICTED_VOLUMES.contains(&kind.as_str())
        });
        if let Some((kind, _)) = other {
            found.push(format!(
                "restricted volume types (volume {:?} uses restricted volume type {kind:?})",
                volume.text("/name")
            ));
        }
    }
    users(found, spec);
}

fn users(found: &mut Vec<String>, spec: &Value) {
    let pod_is_not_root = spec.flag("/securityContext/runAsNonRoot");
    let may_be_root = |container: &Value| match container.at("/securityContext/runAsNonRoot") {
        Value::Bool(not_root) => !not_root,
        _ => !pod_is_not_root,
    };
    if let Some(who) = offenders(spec, may_be_root) {
        found.push(format!("runAsNonRoot != true (pod or {who} must set securityContext.runAsNonRoot=true)"));
    }
    let is_root = |object: &Value| object.int("/securityContext/runAsUser") == Some(0);
    let who = if is_root(spec) { Some("pod".to_owned()) } else { offenders(spec, is_root) };
    if let Some(who) = who {
        found.push(format!("runAsUser=0 ({who} must not set runAsUser=0)"));
    }
    let is_confined = |kind: &str| matches!(kind, "RuntimeDefault" | "Localhost");
    let pod_profile = spec.text("/securityContext/seccompProfile/type");
    let loose = |container: &Value| match container.text("/securityContext/seccompProfile/type") {
        "" => !is_confined(pod_profile),
        kind => !is_confined(kind),
    };
    if let Some(who) = offenders(spec, loose) {
        found.push(format!(
            "seccompProfile (pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
        ));
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    fn check(level: &str, spec: Value, expected: Expect) {
        expected.assert_eq(&violations(level, &spec).join(", "));
    }

    #[test]
    fn levels() {
        let plain = json!({"containers": [{"name": "a"}]});
        check("privileged", json!({"hostNetwork": true}), expect![""]);
        check("baseline", plain.clone(), expect![""]);
        check(
            "restricted",
            plain,
            expect![[
                r#"allowPrivilegeEscalation != false (container "a" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "a" must set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or container "a" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container "a" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#
            ]],
        );
        check(
            "baseline",
            json!({"hostPID": true, "containers": [{"name": "a", "securityContext": {"privileged": true}}],
                "volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
            expect![[
                r#"host namespaces (hostPID=true), privileged (container "a" must not set securityContext.privileged=true), hostPath volumes (volume "v")"#
            ]],
        );
        check(
            "restricted",
            json!({"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{"name": "a", "securityContext": {"allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]}}}]}),
            expect![""],
        );
    }
}
