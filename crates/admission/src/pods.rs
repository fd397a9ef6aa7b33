//! Small plugins about pods and nodes that need nothing but the object: DefaultTolerationSeconds,
//! TaintNodesByCondition, RuntimeClass.

use async_trait::async_trait;
use machinery::Status;
use resources::value::{Access, Fill, is_zero};
use serde_json::{Value, json};

use crate::lookup::Lookup;
use crate::{Attributes, Operation, Plugin};

const TOLERATION_SECONDS: i64 = 300;
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// A pod stays five minutes on a node that is lost, unless it says otherwise.
pub struct DefaultTolerationSeconds;

#[async_trait]
impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        matches!(attributes.operation, Operation::Create | Operation::Update) && attributes.is("", "pods")
    }

    async fn mutate(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        if let Some(pod) = attributes.object.as_deref_mut() {
            tolerate(pod.child("spec"));
        }
        Ok(())
    }
}

fn tolerate(spec: &mut Value) {
    let mut tolerations = spec.items("/tolerations").to_vec();
    for taint in [NOT_READY, UNREACHABLE] {
        let tolerated = tolerations.iter().any(|toleration| {
            let (key, effect) = (toleration.text("/key"), toleration.text("/effect"));
            (key == taint || key.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        });
        if !tolerated {
            tolerations.push(json!({"key": taint, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": TOLERATION_SECONDS}));
        }
    }
    spec.set("tolerations", tolerations);
}

/// A node is not used before it is known to be ready.
pub struct TaintNodesByCondition;

#[async_trait]
impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && attributes.is("", "nodes")
    }

    async fn mutate(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let Some(node) = attributes.object.as_deref_mut() else { return Ok(()) };
        let mut taints = node.items("/spec/taints").to_vec();
        let known = taints.iter().any(|t| t.text("/key") == NOT_READY && t.text("/effect") == "NoSchedule");
        if !known {
            taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
            node.child("spec").set("taints", taints);
        }
        Ok(())
    }
}

/// A pod's runtime class exists; its overhead and its nodes become the pod's.
pub struct RuntimeClass {
    pub lookup: Lookup,
}

#[async_trait]
impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && attributes.is("", "pods")
    }

    async fn mutate(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let name = attributes.new_object().text("/spec/runtimeClassName").to_owned();
        if name.is_empty() {
            return match is_zero(attributes.new_object().at("/spec/overhead")) {
                true => Ok(()),
                false => Err(attributes.forbidden(
                    "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
                )),
            };
        }
        let Some(class) = self.lookup.find("node.k8s.io", "runtimeclasses", "", &name).await? else {
            return Err(attributes.forbidden(&format!("pod rejected: RuntimeClass {name:?} not found")));
        };
        let overhead = class.at("/overhead/podFixed");
        let given = attributes.new_object().at("/spec/overhead");
        if !is_zero(given) && given != overhead {
            let detail = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
            return Err(attributes.forbidden(detail));
        }
        schedule(attributes, &class)
    }
}

fn schedule(attributes: &mut Attributes<'_>, class: &Value) -> Result<(), Status> {
    let conflict = class.members("/scheduling/nodeSelector").find(|(key, value)| {
        let own = attributes.new_object().at("/spec/nodeSelector").get(key.as_str());
        own.is_some_and(|own| own != *value)
    });
    if let Some((key, value)) = conflict {
        let detail = format!("conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}");
        return Err(attributes.forbidden(&detail));
    }
    let Some(pod) = attributes.object.as_deref_mut() else { return Ok(()) };
    let spec = pod.child("spec");
    if !is_zero(class.at("/overhead/podFixed")) {
        spec.set("overhead", class.at("/overhead/podFixed").clone());
    }
    for (key, value) in class.members("/scheduling/nodeSelector") {
        spec.child("nodeSelector").set(key, value.clone());
    }
    let mut tolerations = spec.items("/tolerations").to_vec();
    for toleration in class.items("/scheduling/tolerations") {
        if !tolerations.contains(toleration) {
            tolerations.push(toleration.clone());
        }
    }
    if !tolerations.is_empty() {
        spec.set("tolerations", tolerations);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations_are_added_once() {
        let keys = |spec: &Value| {
            spec.items("/tolerations").iter().map(|t| t.text("/key").to_owned()).collect::<Vec<_>>()
        };
        let mut spec = json!({});
        tolerate(&mut spec);
        tolerate(&mut spec);
        assert_eq!(keys(&spec), [NOT_READY, UNREACHABLE]);
        let mut spec = json!({"tolerations": [{"operator": "Exists"}]});
        tolerate(&mut spec);
        assert_eq!(keys(&spec), [""]);
    }
}
