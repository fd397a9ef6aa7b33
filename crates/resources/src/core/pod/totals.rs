//! What a whole pod asks for.

use std::collections::BTreeMap;

use machinery::quantity::Quantity;
use serde_json::Value;

use crate::value::Access;

/// Amounts by resource name.
pub type Amounts = BTreeMap<String, Quantity>;

/// The amounts of a `ResourceList`; what is no quantity is left out.
pub fn amounts(list: &Value) -> Amounts {
    list.members("").filter_map(|(name, value)| Some((name.clone(), Quantity::read(value)?))).collect()
}

/// What a pod needs: the sum of the containers that run at once, or the largest init container with the sidecars
/// before it; replaced by what the pod says as a whole (KEP-2837), with its overhead. `field` is `requests` or `limits`.
pub fn of(pod: &Value, field: &str) -> Amounts {
    let pointer = format!("/resources/{field}");
    let mut total = Amounts::new();
    for container in pod.items("/spec/containers") {
        add(&mut total, &amounts(container.at(&pointer)));
    }
    let (mut sidecars, mut largest) = (Amounts::new(), Amounts::new());
    for init in pod.items("/spec/initContainers") {
        let own = amounts(init.at(&pointer));
        let mut at_once = sidecars.clone();
        add(&mut at_once, &own);
        if init.text("/restartPolicy") == "Always" {
            sidecars = at_once.clone();
        }
        raise(&mut largest, &at_once);
    }
    add(&mut total, &sidecars);
    raise(&mut total, &largest);
    total.extend(amounts(pod.at("/spec").at(&pointer)));
    for (name, overhead) in amounts(pod.at("/spec/overhead")) {
        match total.get_mut(&name) {
            Some(amount) => *amount = *amount + overhead,
            // Without a limit there is nothing that the overhead could raise.
            None if field == "limits" => {}
            None => drop(total.insert(name, overhead)),
        }
    }
    total
}

/// Adds amounts up.
pub fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        match total.get_mut(name) {
            Some(sum) => *sum = *sum + *amount,
            None => drop(total.insert(name.clone(), *amount)),
        }
    }
}

fn raise(total: &mut Amounts, least: &Amounts) {
    for (name, amount) in least {
        if total.get(name).is_none_or(|known| known < amount) {
            total.insert(name.clone(), *amount);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(spec: Value, field: &str, expected: Value) {
        let total = of(&json!({"spec": spec}), field);
        let shown: BTreeMap<_, _> = total.iter().map(|(name, amount)| (name, amount.to_string())).collect();
        assert_eq!(json!(shown), expected);
    }

    #[test]
    fn what_runs_at_once_counts() {
        let cpu = |amount: &str| json!({"resources": {"requests": {"cpu": amount}}});
        let sidecar = json!({"restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}});
        check(json!({"containers": [cpu("1"), cpu("500m")]}), "requests", json!({"cpu": "1500m"}));
        check(
            json!({"containers": [cpu("1")], "initContainers": [cpu("3")]}),
            "requests",
            json!({"cpu": "3"}),
        );
        check(
            json!({"containers": [cpu("1")], "initContainers": [sidecar, cpu("3")]}),
            "requests",
            json!({"cpu": "4"}),
        );
        check(
            json!({"containers": [cpu("1")], "initContainers": [cpu("3"), sidecar]}),
            "requests",
            json!({"cpu": "3"}),
        );
        check(json!({"containers": [cpu("1")]}), "limits", json!({}));
    }

    #[test]
    fn the_pod_as_a_whole_and_its_overhead() {
        let containers = json!([{"resources": {"requests": {"cpu": "1", "memory": "1Mi"}}}]);
        let spec = json!({"containers": containers, "resources": {"requests": {"cpu": "5"}, "limits": {"cpu": "6"}},
            "overhead": {"cpu": "1", "memory": "1Mi"}});
        check(spec.clone(), "requests", json!({"cpu": "6", "memory": "2Mi"}));
        check(spec, "limits", json!({"cpu": "7"}));
    }
}
