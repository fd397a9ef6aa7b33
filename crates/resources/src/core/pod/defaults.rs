//! What absent fields of a pod become. Pod templates share all but the last step.

use serde_json::{Value, json};

use crate::value::{Access, Fill};

const VOLUME_MODE: i64 = 0o644;

/// The lists of containers in a pod spec.
pub const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Defaults of a pod spec, also in templates.
pub fn spec(spec: &mut Value) {
    spec.default_zero("restartPolicy", "Always");
    spec.default_zero("dnsPolicy", "ClusterFirst");
    spec.default_zero("schedulerName", "default-scheduler");
    spec.default_absent("terminationGracePeriodSeconds", 30);
    spec.child("securityContext");
    mirror_service_account(spec);
    for list in CONTAINER_LISTS {
        spec.each(list).for_each(container);
    }
    spec.each("volumes").for_each(volume);
}

/// The deprecated `serviceAccount` and `serviceAccountName` say the same.
pub fn mirror_service_account(spec: &mut Value) {
    match (spec.text("/serviceAccountName").to_owned(), spec.text("/serviceAccount").to_owned()) {
        (name, deprecated) if name.is_empty() && deprecated.is_empty() => {}
        (name, deprecated) if name.is_empty() => spec.set("serviceAccountName", deprecated),
        (name, _) => spec.set("serviceAccount", name),
    }
}

/// Defaults of pods only: what a template leaves open is decided when the pod is made.
pub fn pod(pod: &mut Value) {
    let body = pod.child("spec");
    spec(body);
    body.default_absent("enableServiceLinks", true);
    let host_network = body.flag("/hostNetwork");
    for list in ["initContainers", "containers"] {
        for container in body.each(list) {
            requests_from_limits(container);
            resize_policy(container);
            if host_network {
                container.each("ports").for_each(host_port);
            }
        }
    }
    if body.has("/resources/limits") {
        requests_from_limits(body);
    }
}

fn host_port(port: &mut Value) {
    let number = port.at("/containerPort").clone();
    port.default_zero("hostPort", number);
}

fn requests_from_limits(container: &mut Value) {
    let limits: Vec<_> =
        container.members("/resources/limits").map(|(k, v)| (k.clone(), v.clone())).collect();
    if limits.is_empty() {
        return;
    }
    let requests = container.child("resources").child("requests");
    for (name, quantity) in limits {
        requests.default_absent(&name, quantity);
    }
}

fn resize_policy(container: &mut Value) {
    let named = |name: &str| {
        container.has(&format!("/resources/requests/{name}"))
            || container.has(&format!("/resources/limits/{name}"))
    };
    let told = |name: &str| {
        container.items("/resizePolicy").iter().any(|policy| policy.text("/resourceName") == name)
    };
    let missing: Vec<_> = ["cpu", "memory"].into_iter().filter(|name| named(name) && !told(name)).collect();
    if missing.is_empty() {
        return;
    }
    let mut policies = container.items("/resizePolicy").to_vec();
    policies.extend(missing.iter().map(|name| json!({"resourceName": name, "restartPolicy": "NotRequired"})));
    container.set("resizePolicy", policies);
}

fn container(container: &mut Value) {
    let policy = pull_policy(container.text("/image"));
    container.default_zero("imagePullPolicy", policy);
    container.default_zero("terminationMessagePath", "/dev/termination-log");
    container.default_zero("terminationMessagePolicy", "File");
    container.each("ports").for_each(|port| port.default_zero("protocol", "TCP"));
    for variable in container.each("env") {
        if let Some(reference) = variable.existing("valueFrom").and_then(|from| from.existing("fieldRef")) {
            reference.default_zero("apiVersion", "v1");
        }
        if let Some(reference) = variable.existing("valueFrom").and_then(|from| from.existing("fileKeyRef")) {
            reference.default_absent("optional", false);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(found) = container.existing(name) {
            probe(found);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(get) =
            container.existing("lifecycle").and_then(|all| all.existing(hook)?.existing("httpGet"))
        {
            http_get(get);
        }
    }
}

/// `Always` for `:latest` and for images without a tag; digests never change.
fn pull_policy(image: &str) -> &'static str {
    let name = image.rsplit('/').next().unwrap_or_default();
    match name.split_once('@') {
        Some(_) => "IfNotPresent",
        None => match name.split_once(':') {
            None | Some((_, "latest")) => "Always",
            Some(_) => "IfNotPresent",
        },
    }
}

fn probe(probe: &mut Value) {
    for (field, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        probe.default_zero(field, value);
    }
    if let Some(get) = probe.existing("httpGet") {
        http_get(get);
    }
    if let Some(call) = probe.existing("grpc") {
        call.default_absent("service", "");
    }
}

fn http_get(get: &mut Value) {
    get.default_zero("path", "/");
    get.default_zero("scheme", "HTTP");
}

fn volume(volume: &mut Value) {
    let has_source = volume.members("").any(|(field, value)| field != "name" && !value.is_null());
    if !has_source {
        volume.set("emptyDir", json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(found) = volume.existing(source) {
            found.default_absent("defaultMode", VOLUME_MODE);
            found.each("items").for_each(downward_item);
            found.each("sources").for_each(projection);
        }
    }
    if let Some(path) = volume.existing("hostPath") {
        path.default_absent("type", "");
    }
    if let Some(claim) =
        volume.existing("ephemeral").and_then(|source| source.existing("volumeClaimTemplate"))
    {
        claim.child("spec").default_absent("volumeMode", "Filesystem");
    }
    if let Some(iscsi) = volume.existing("iscsi") {
        iscsi.default_zero("iscsiInterface", "default");
    }
}

fn projection(source: &mut Value) {
    if let Some(downward) = source.existing("downwardAPI") {
        downward.each("items").for_each(downward_item);
    }
    if let Some(token) = source.existing("serviceAccountToken") {
        token.default_absent("expirationSeconds", 3600);
    }
}

fn downward_item(item: &mut Value) {
    if let Some(reference) = item.existing("fieldRef") {
        reference.default_zero("apiVersion", "v1");
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(mut input: Value, expected: Expect) {
        pod(&mut input);
        expected.assert_eq(&serde_json::to_string(&input["spec"]).unwrap());
    }

    #[test]
    fn a_pod_is_completed() {
        check(
            json!({"spec": {"containers": [{"name": "a", "image": "nginx", "ports": [{"containerPort": 80}],
                "livenessProbe": {"httpGet": {"port": 80}}, "resources": {"limits": {"cpu": "1"}}}],
                "hostNetwork": true, "serviceAccount": "robot",
                "volumes": [{"name": "v"}, {"name": "c", "configMap": {"name": "c"}}]}}),
            expect![[
                r#"{"containers":[{"image":"nginx","imagePullPolicy":"Always","livenessProbe":{"failureThreshold":3,"httpGet":{"path":"/","port":80,"scheme":"HTTP"},"periodSeconds":10,"successThreshold":1,"timeoutSeconds":1},"name":"a","ports":[{"containerPort":80,"hostPort":80,"protocol":"TCP"}],"resizePolicy":[{"resourceName":"cpu","restartPolicy":"NotRequired"}],"resources":{"limits":{"cpu":"1"},"requests":{"cpu":"1"}},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File"}],"dnsPolicy":"ClusterFirst","enableServiceLinks":true,"hostNetwork":true,"restartPolicy":"Always","schedulerName":"default-scheduler","securityContext":{},"serviceAccount":"robot","serviceAccountName":"robot","terminationGracePeriodSeconds":30,"volumes":[{"emptyDir":{},"name":"v"},{"configMap":{"defaultMode":420,"name":"c"},"name":"c"}]}"#
            ]],
        );
    }

    #[test]
    fn the_pull_policy_follows_the_tag() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("registry:5000/nginx", "Always"),
            ("registry:5000/nginx:1.27", "IfNotPresent"),
            ("nginx@sha256:00", "IfNotPresent"),
            ("nginx:latest@sha256:00", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }
}
