//! A pod's quality-of-service class.

use machinery::quantity::Quantity;
use serde_json::Value;

use crate::value::Access;

/// `Guaranteed`, `Burstable` or `BestEffort`, from the cpu and memory that the containers (or the pod as a whole) ask
/// for.
pub fn class(pod: &Value) -> &'static str {
    let resources: Vec<&Value> = if has_compute(pod.at("/spec/resources")) {
        vec![pod.at("/spec/resources")]
    } else {
        let containers = pod.items("/spec/containers").iter().chain(pod.items("/spec/initContainers"));
        containers.map(|container| container.at("/resources")).collect()
    };
    if !resources.iter().any(|resources| has_compute(resources)) {
        return "BestEffort";
    }
    if resources.iter().all(|resources| is_guaranteed(resources)) { "Guaranteed" } else { "Burstable" }
}

fn amount(resources: &Value, list: &str, name: &str) -> Option<Quantity> {
    Quantity::read(resources.at(&format!("/{list}/{name}"))).filter(|quantity| !quantity.is_zero())
}

fn has_compute(resources: &Value) -> bool {
    ["requests", "limits"]
        .iter()
        .any(|list| ["cpu", "memory"].iter().any(|name| amount(resources, list, name).is_some()))
}

fn is_guaranteed(resources: &Value) -> bool {
    ["cpu", "memory"].iter().all(|name| {
        let limit = amount(resources, "limits", name);
        limit.is_some() && limit == amount(resources, "requests", name)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn classes() {
        let of = |resources: Value| class(&json!({"spec": {"containers": [{"resources": resources}]}}));
        assert_eq!(of(json!({})), "BestEffort");
        assert_eq!(of(json!({"requests": {"cpu": "1"}})), "Burstable");
        let all = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(
            of(json!({"requests": {"cpu": "1000m", "memory": "1024Mi"}, "limits": all})),
            "Guaranteed"
        );
    }
}
