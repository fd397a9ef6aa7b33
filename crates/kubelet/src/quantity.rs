//! Amounts of resources as plain numbers, for cgroups and sums.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// A quantity in thousandths, rounded up. `None` if it cannot be read.
pub fn millis(quantity: &Quantity) -> Option<i64> {
    scaled(&quantity.0, 1000)
}

/// A quantity in whole units, rounded up. `None` if it cannot be read.
pub fn units(quantity: &Quantity) -> Option<i64> {
    scaled(&quantity.0, 1)
}

fn scaled(text: &str, scale: i128) -> Option<i64> {
    let end =
        text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (numerator, denominator) = factor(suffix)?;
    let negative = number.starts_with('-');
    let digits = number.trim_start_matches(['+', '-']);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let fraction = &fraction[..fraction.len().min(9)];
    let shift = 10_i128.pow(fraction.len() as u32);
    let parse = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<i128>().ok() };
    let value = parse(whole)?.checked_mul(shift)?.checked_add(parse(fraction)?)?;
    let top = value.checked_mul(numerator)?.checked_mul(scale)?;
    let bottom = denominator.checked_mul(shift)?;
    let rounded = top / bottom + i128::from(top % bottom != 0);
    let signed = if negative { -rounded } else { rounded };
    Some(signed.clamp(i64::MIN.into(), i64::MAX.into()) as i64)
}

/// A suffix as a fraction.
fn factor(suffix: &str) -> Option<(i128, i128)> {
    let binary = |power: u32| Some((1024_i128.pow(power), 1));
    let decimal = |power: u32| Some((10_i128.pow(power), 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        exponent => exponential(exponent),
    }
}

fn exponential(suffix: &str) -> Option<(i128, i128)> {
    let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let size = 10_i128.checked_pow(power.unsigned_abs())?;
    Some(if power < 0 { (1, size) } else { (size, 1) })
}

/// A map of resources.
pub type Amounts = BTreeMap<String, Quantity>;

/// CPU in thousandths of a core and memory in bytes out of a map; absent is `None`.
pub fn cpu_and_memory(amounts: Option<&Amounts>) -> (Option<i64>, Option<i64>) {
    let get = |name: &str| amounts.and_then(|map| map.get(name));
    (get("cpu").and_then(millis), get("memory").and_then(units))
}

/// Requests of a container, with its limits where there is no request.
pub fn requests(resources: Option<&ResourceRequirements>) -> (i64, i64) {
    let (cpu, memory) = cpu_and_memory(resources.and_then(|r| r.requests.as_ref()));
    let (cpu_limit, memory_limit) = limits(resources);
    (cpu.or(cpu_limit).unwrap_or(0), memory.or(memory_limit).unwrap_or(0))
}

/// Limits of a container.
pub fn limits(resources: Option<&ResourceRequirements>) -> (Option<i64>, Option<i64>) {
    cpu_and_memory(resources.and_then(|r| r.limits.as_ref()))
}

/// What the whole pod asks for: CPU in thousandths of a core and bytes of memory. Main containers and sidecars
/// add up; an init container counts with the sidecars that started before it; overhead comes on top.
pub fn pod_requests(pod: &Pod) -> (i64, i64) {
    let Some(spec) = &pod.spec else { return (0, 0) };
    let of = |container: &Container| requests(container.resources.as_ref());
    let add = |a: (i64, i64), b: (i64, i64)| (a.0.saturating_add(b.0), a.1.saturating_add(b.1));
    let mut total = spec.containers.iter().map(of).fold((0, 0), add);
    let (mut sidecars, mut peak) = ((0, 0), (0, 0));
    for container in spec.init_containers.iter().flatten() {
        let asked = add(sidecars, of(container));
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars = asked;
        }
        peak = (asked.0.max(peak.0), asked.1.max(peak.1));
    }
    total = add(total, sidecars);
    total = (total.0.max(peak.0), total.1.max(peak.1));
    if spec.resources.is_some() {
        let (cpu, memory) = cpu_and_memory(spec.resources.as_ref().and_then(|r| r.requests.as_ref()));
        total = (cpu.unwrap_or(total.0), memory.unwrap_or(total.1));
    }
    let (cpu, memory) = cpu_and_memory(spec.overhead.as_ref());
    add(total, (cpu.unwrap_or(0), memory.unwrap_or(0)))
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn qos_class(pod: &Pod) -> &'static str {
    let Some(spec) = &pod.spec else { return "BestEffort" };
    if let Some(resources) = &spec.resources {
        return class_of(std::iter::once(Some(resources)));
    }
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    class_of(containers.map(|container| container.resources.as_ref()))
}

fn class_of<'a>(all: impl Iterator<Item = Option<&'a ResourceRequirements>>) -> &'static str {
    let (mut any, mut guaranteed) = (false, true);
    for resources in all {
        let (cpu_limit, memory_limit) = limits(resources);
        let (cpu, memory) = requests(resources);
        any |= cpu > 0
            || memory > 0
            || cpu_limit.is_some_and(|cpu| cpu > 0)
            || memory_limit.is_some_and(|m| m > 0);
        guaranteed &= cpu > 0 && memory > 0 && cpu_limit == Some(cpu) && memory_limit == Some(memory);
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_every_notation() {
        let cases = ["100m", "1", "1.5", "0.1", "1k", "2Ki", "1e3", "1E-3", "100n", "x", ""];
        let read = cases.map(|text| millis(&Quantity(text.to_owned())));
        let want = [100, 1000, 1500, 100, 1_000_000, 2_048_000, 1_000_000, 1, 1].map(Some);
        assert_eq!(read[..9], want);
        assert_eq!(read[9..], [None, None]);
        assert_eq!(units(&Quantity("64Mi".to_owned())), Some(64 << 20));
    }

    #[test]
    fn classes() {
        let check = |containers: serde_json::Value, want: &str| {
            let pod: Pod = serde_json::from_value(json!({"spec": {"containers": containers}})).unwrap();
            assert_eq!(qos_class(&pod), want, "{containers}");
        };
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        check(json!([{"name": "a"}]), "BestEffort");
        check(json!([{"name": "a", "resources": full}]), "Guaranteed");
        check(json!([{"name": "a", "resources": full}, {"name": "b"}]), "Burstable");
        check(json!([{"name": "a", "resources": {"requests": {"cpu": "1"}}}]), "Burstable");
        check(json!([{"name": "a", "resources": {"limits": {"cpu": "1"}}}]), "Burstable");
    }

    #[test]
    fn init_containers_count_by_their_peak() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "initContainers": [
                {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
                {"name": "i", "resources": {"requests": {"cpu": "2"}}}],
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "1", "memory": "5"}}}]}}))
        .unwrap();
        assert_eq!(pod_requests(&pod), (2100, 5));
    }
}
