//! Pods.

pub mod cells;
pub mod defaults;
mod fields;
pub mod quality;
pub mod totals;
pub mod validate;
pub mod warnings;

use jiff::Timestamp;
use machinery::{FieldError, Object};
use serde_json::{Value, json};

use crate::check::Errors;
use crate::value::{Access, Fill};
use crate::{Context, Strategy};

pub struct Pods;

impl Strategy for Pods {
    fn default(&self, pod: &mut Value) {
        defaults::pod(pod);
    }

    fn prepare_create(&self, _context: &Context, pod: &mut Value) {
        let mut status = json!({"phase": "Pending", "qosClass": quality::class(pod)});
        if !pod.items("/spec/schedulingGates").is_empty() {
            status["conditions"] = json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates", "lastProbeTime": null,
                "lastTransitionTime": null}]);
        }
        pod.set("status", status);
        defaults::mirror_service_account(pod.child("spec"));
    }

    fn prepare_update(&self, _context: &Context, new: &mut Value, old: &Value) {
        new.copy_from(old, "status");
    }

    fn prepare_status_update(&self, _context: &Context, new: &mut Value, old: &Value) {
        new.copy_from(old, "spec");
        new.child("metadata").copy_from(old.at("/metadata"), "ownerReferences");
        let class = old.at("/status/qosClass").clone();
        new.child("status").default_zero("qosClass", class);
    }

    fn prepare_subresource_update(
        &self,
        _context: &Context,
        subresource: &str,
        new: &mut Value,
        old: &Value,
    ) {
        let wanted = std::mem::take(new);
        *new = old.clone();
        if wanted.has("/metadata/resourceVersion") {
            new.child("metadata").copy_from(wanted.at("/metadata"), "resourceVersion");
        }
        match subresource {
            "ephemeralcontainers" => new.child("spec").copy_from(wanted.at("/spec"), "ephemeralContainers"),
            "resize" => take_resources(new, &wanted),
            _ => *new = wanted,
        }
    }

    fn validate_create(&self, pod: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        validate::spec(&mut errors, "spec", pod.at("/spec"));
        if !pod.items("/spec/ephemeralContainers").is_empty() {
            errors.forbidden("spec.ephemeralContainers", "cannot be set on create");
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        validate::spec(&mut errors, "spec", new.at("/spec"));
        validate::update::spec(&mut errors, new, old);
        errors.into_vec()
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        for field in ["nodeName", "nominatedNodeName"] {
            let name = new.text(&format!("/status/{field}"));
            errors.format(&format!("status.{field}"), name, crate::names::dns_subdomain);
        }
        if old.has("/status/qosClass") {
            errors.immutable("status.qosClass", new.at("/status/qosClass"), old.at("/status/qosClass"));
        }
        for (index, ip) in new.items("/status/podIPs").iter().enumerate() {
            errors.ip(&format!("status.podIPs[{index}].ip"), ip.text("/ip"));
        }
        errors.into_vec()
    }

    fn validate_subresource_update(&self, subresource: &str, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        validate::spec(&mut errors, "spec", new.at("/spec"));
        match subresource {
            "ephemeralcontainers" => validate::update::ephemeral_containers(&mut errors, new, old),
            "resize" => validate::update::resize(&mut errors, new, old),
            _ => {}
        }
        errors.into_vec()
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        warnings::of_spec("spec", new.at("/spec"))
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn fields(&self, pod: &Object) -> Vec<(&'static str, String)> {
        fields::fields(pod)
    }

    fn field_names(&self) -> &'static [&'static str] {
        &fields::NAMES
    }

    fn cells(&self, now: Timestamp, pod: &Value) -> Vec<Value> {
        cells::cells(now, pod)
    }

    fn grace_period(&self, pod: &Value, asked: Option<i64>) -> Option<i64> {
        let is_over = matches!(pod.text("/status/phase"), "Succeeded" | "Failed");
        if pod.text("/spec/nodeName").is_empty() || is_over {
            return Some(0);
        }
        let seconds = asked.or(pod.int("/spec/terminationGracePeriodSeconds")).unwrap_or(30);
        Some(if seconds < 0 { 1 } else { seconds })
    }
}

/// Takes over the resources of containers that exist in both.
fn take_resources(pod: &mut Value, wanted: &Value) {
    let Some(spec) = pod.existing("spec") else { return };
    for list in ["containers", "initContainers"] {
        for container in spec.each(list) {
            let name = container.text("/name").to_owned();
            let source =
                wanted.items(&format!("/spec/{list}")).iter().find(|other| other.text("/name") == name);
            if let Some(source) = source {
                container.copy_from(source, "resources");
                container.copy_from(source, "resizePolicy");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn pod() -> Value {
        let mut pod =
            json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "nginx"}]}});
        Pods.default(&mut pod);
        pod
    }

    fn check(change: impl Fn(&mut Value), expected: Expect) {
        let mut pod = pod();
        change(&mut pod);
        let texts: Vec<_> = Pods.validate_create(&pod).iter().map(ToString::to_string).collect();
        expected.assert_eq(&texts.join("\n"));
    }

    fn check_update(change: impl Fn(&mut Value), expected: Expect) {
        let old = pod();
        let mut new = old.clone();
        change(&mut new);
        let texts: Vec<_> = Pods.validate_update(&new, &old).iter().map(ToString::to_string).collect();
        expected.assert_eq(&texts.join("\n"));
    }

    #[test]
    fn a_plain_pod_is_valid() {
        check(|_| {}, expect![""]);
    }

    #[test]
    fn containers_are_checked() {
        check(|pod| pod["spec"]["containers"] = json!([]), expect!["spec.containers: Required value"]);
        check(
            |pod| pod["spec"]["containers"][0]["name"] = json!("A_b"),
            expect![[
                r#"spec.containers[0].name: Invalid value: "A_b": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"#
            ]],
        );
        check(
            |pod| {
                let mut other = pod["spec"]["containers"][0].clone();
                other["image"] = json!("");
                other["ports"] = json!([{"containerPort": 0, "protocol": "tcp"}]);
                other["volumeMounts"] = json!([{"name": "none", "mountPath": "/x"}]);
                other["env"] = json!([{"name": "A", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "spec.x"}}}]);
                other["resources"] = json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}});
                other["livenessProbe"] = json!({"successThreshold": 2, "tcpSocket": {"port": 0}});
                pod["spec"]["containers"].as_array_mut().unwrap().push(other);
            },
            expect![[r#"
                spec.containers[1].image: Required value
                spec.containers[1].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: "spec.x": supported values: "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"
                spec.containers[1].volumeMounts[0].name: Not found: "none"
                spec.containers[1].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1
                spec.containers[1].ports[0].containerPort: Required value
                spec.containers[1].ports[0].protocol: Unsupported value: "tcp": supported values: "SCTP", "TCP", "UDP"
                spec.containers[1].livenessProbe.tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive
                spec.containers[1].livenessProbe.successThreshold: Invalid value: 2: must be 1
                spec.containers[1].name: Duplicate value: "a""#]],
        );
    }

    #[test]
    fn placement_and_volumes_are_checked() {
        check(
            |pod| {
                pod["spec"]["tolerations"] =
                    json!([{"operator": "Equal"}, {"key": "a", "tolerationSeconds": 1}]);
                pod["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}},
                    {"name": "v", "configMap": {"items": [{"key": "k", "path": "../x"}]}}]);
            },
            expect![[r#"
                spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type
                spec.volumes[1].name: Duplicate value: "v"
                spec.volumes[1].configMap.name: Required value
                spec.volumes[1].configMap.items[0].path: Invalid value: "../x": must not contain '..'
                spec.tolerations[0].operator: Invalid value: "Equal": operator must be Exists when `key` is empty, which means "match all values and all keys"
                spec.tolerations[1].effect: Invalid value: "": effect must be 'NoExecute' when `tolerationSeconds` is set"#]],
        );
    }

    #[test]
    fn little_may_change() {
        check_update(|pod| pod["spec"]["containers"][0]["image"] = json!("b"), expect![""]);
        check_update(|pod| pod["spec"]["tolerations"] = json!([{"operator": "Exists"}]), expect![""]);
        check_update(
            |pod| pod["spec"]["nodeName"] = json!("n"),
            expect![
                "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
            ],
        );
    }

    #[test]
    fn resizing_changes_compute_only() {
        let mut old = pod();
        old["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1"}});
        let mut new = old.clone();
        new["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("2");
        assert!(Pods.validate_subresource_update("resize", &new, &old).is_empty());
        new["spec"]["containers"][0]["resources"] = json!({});
        assert_eq!(Pods.validate_subresource_update("resize", &new, &old).len(), 1);
    }

    #[test]
    fn deletes_are_graceful_where_something_runs() {
        let mut pod = pod();
        assert_eq!(Pods.grace_period(&pod, None), Some(0));
        pod["spec"]["nodeName"] = json!("n");
        assert_eq!(Pods.grace_period(&pod, None), Some(30));
        assert_eq!(Pods.grace_period(&pod, Some(5)), Some(5));
        pod["status"]["phase"] = json!("Failed");
        assert_eq!(Pods.grace_period(&pod, None), Some(0));
    }
}
