//! Values of a pod's own fields (`fieldRef`) and resources (`resourceFieldRef`), for environments and volumes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use crate::quantity;

/// What fields need besides the object.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    pub pod_ips: Vec<String>,
    pub host_ips: Vec<String>,
    pub node_name: String,
    /// What limits default to.
    pub allocatable_cpu_millis: i64,
    pub allocatable_memory_bytes: i64,
    pub allocatable_storage_bytes: i64,
}

/// The value at `path`, e.g. `metadata.labels['app']`.
pub fn field_value(pod: &Pod, path: &str, around: &Surroundings) -> Result<String, String> {
    let meta = &pod.metadata;
    if let Some((map, key)) = subscript(path) {
        let labels = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(format!("invalid subscript for field path {path:?}")),
        };
        return Ok(labels.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    let spec = pod.spec.as_ref();
    let value = match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "metadata.labels" => Some(format_map(meta.labels.as_ref())),
        "metadata.annotations" => Some(format_map(meta.annotations.as_ref())),
        "spec.nodeName" => {
            spec.and_then(|spec| spec.node_name.clone()).or_else(|| Some(around.node_name.clone()))
        }
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()),
        "status.hostIP" => around.host_ips.first().cloned(),
        "status.hostIPs" => Some(around.host_ips.join(",")),
        "status.podIP" => around.pod_ips.first().cloned(),
        "status.podIPs" => Some(around.pod_ips.join(",")),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    };
    Ok(value.unwrap_or_default())
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// `key="escaped value"` lines in order of the keys, as the downward API writes maps.
fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<_> = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", crate::text::go_quote(value)))
        .collect();
    lines.join("\n")
}

/// The amount that `selector` names, divided and rounded up.
pub fn resource_value(
    container: &Container,
    selector: &ResourceFieldSelector,
    around: &Surroundings,
) -> Result<String, String> {
    let (list, name) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| format!("unsupported container resource: {}", selector.resource))?;
    let resources = container.resources.as_ref();
    let find = |limits: bool| {
        let map = resources.and_then(|r| if limits { r.limits.as_ref() } else { r.requests.as_ref() });
        map.and_then(|map| map.get(name)).and_then(quantity::millis)
    };
    let amount = match list {
        "limits" => find(true).or_else(|| allocatable(name, around)).unwrap_or(0),
        // What asks for nothing but has a limit asks for the limit (the API's default).
        "requests" => find(false).or_else(|| find(true)).unwrap_or(0),
        _ => return Err(format!("unsupported container resource: {}", selector.resource)),
    };
    let divisor =
        selector.divisor.as_ref().and_then(quantity::millis).filter(|divisor| *divisor > 0).unwrap_or(1000);
    Ok((i128::from(amount) + i128::from(divisor) - 1).div_euclid(i128::from(divisor)).to_string())
}

fn allocatable(name: &str, around: &Surroundings) -> Option<i64> {
    match name {
        "cpu" => Some(around.allocatable_cpu_millis),
        "memory" => Some(around.allocatable_memory_bytes.saturating_mul(1000)),
        "ephemeral-storage" => Some(around.allocatable_storage_bytes.saturating_mul(1000)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "n", "labels": {"b": "2\n", "a": "1"}}}))
                .unwrap();
        let around =
            Surroundings { pod_ips: vec!["10.0.0.2".into(), "fd00::2".into()], ..Surroundings::default() };
        let cases = [
            ("metadata.name", Ok("n")),
            ("metadata.labels", Ok("a=\"1\"\nb=\"2\\n\"")),
            ("metadata.labels['b']", Ok("2\n")),
            ("metadata.annotations['x']", Ok("")),
            ("status.podIP", Ok("10.0.0.2")),
            ("status.podIPs", Ok("10.0.0.2,fd00::2")),
            ("spec.x", Err("unsupported fieldPath: spec.x")),
        ];
        for (path, want) in cases {
            let want = want.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(field_value(&pod, path, &around), want, "{path}");
        }
    }

    #[test]
    fn resources() {
        let container: Container = serde_json::from_value(json!({"name": "c", "resources": {
            "limits": {"cpu": "1500m"}, "requests": {"memory": "64Mi"}}}))
        .unwrap();
        let around = Surroundings { allocatable_memory_bytes: 1 << 30, ..Surroundings::default() };
        let check = |resource: &str, divisor: &str, want: &str| {
            let selector: ResourceFieldSelector =
                serde_json::from_value(json!({"resource": resource, "divisor": divisor})).unwrap();
            assert_eq!(resource_value(&container, &selector, &around).unwrap(), want, "{resource} {divisor}");
        };
        check("limits.cpu", "1", "2");
        check("limits.cpu", "1m", "1500");
        check("requests.cpu", "1m", "1500");
        check("requests.memory", "1Mi", "64");
        check("limits.memory", "0", "1073741824");
    }
}
