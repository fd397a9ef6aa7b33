//! NodeRestriction: a kubelet writes about its own node and the pods on it, and nothing else.

use async_trait::async_trait;
use auth::node::BALANCER_LEASES;
use machinery::Status;
use resources::value::Access;
use serde_json::Value;

use crate::lookup::{Lookup, is_mirror_pod};
use crate::{Attributes, Operation, Plugin};

const PREFIX: &str = "system:node:";
const NODES_GROUP: &str = "system:nodes";
const LEASE_NAMESPACE: &str = "kube-node-lease";
const RESTRICTED: &str = "node-restriction.kubernetes.io";

pub struct NodeRestriction {
    pub lookup: Lookup,
}

#[async_trait]
impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation != Operation::Connect && node_of(attributes).is_some()
    }

    async fn mutate(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let Some(node) = node_of(attributes).map(str::to_owned) else { return Ok(()) };
        let resource = (attributes.resource.group.as_str(), attributes.resource.resource.as_str());
        let refusal = match resource {
            ("", "pods") => self.pod(attributes, &node).await?,
            ("", "nodes") => about_node(attributes, &node),
            ("", "serviceaccounts") if attributes.subresource == "token" => {
                self.token(attributes, &node).await?
            }
            ("coordination.k8s.io", "leases") => lease(attributes, &node),
            ("storage.k8s.io", "csinodes") => other_name(attributes, &node, "CSINode"),
            _ => None,
        };
        refusal.map_or(Ok(()), |detail| Err(attributes.forbidden(&detail)))
    }
}

fn node_of<'a>(attributes: &'a Attributes<'_>) -> Option<&'a str> {
    let user = attributes.user;
    let is_node = user.groups.iter().any(|group| group == NODES_GROUP);
    user.name.strip_prefix(PREFIX).filter(|_| is_node)
}

impl NodeRestriction {
    async fn pod(&self, attributes: &Attributes<'_>, node: &str) -> Result<Option<String>, Status> {
        let new = attributes.new_object();
        match (attributes.operation, attributes.subresource) {
            (Operation::Create, "") => Ok(mirror_pod(new, node)),
            (Operation::Create, "eviction") => {
                let found = self.lookup.find("", "pods", attributes.namespace, attributes.name).await?;
                Ok(found.and_then(|pod| elsewhere(&pod, node, "evict pods")))
            }
            (Operation::Update, "status") => {
                Ok(elsewhere(attributes.old_object(), node, "update pod status for pods"))
            }
            (Operation::Delete, "") => Ok(elsewhere(attributes.old_object(), node, "delete pods")),
            (operation, subresource) => {
                let verb = operation.as_str();
                Ok(Some(format!(
                    "unexpected operation {verb:?}, node {node:?} cannot {verb} pods/{subresource}"
                )))
            }
        }
    }

    async fn token(&self, attributes: &Attributes<'_>, node: &str) -> Result<Option<String>, Status> {
        let reference = attributes.new_object().at("/spec/boundObjectRef");
        if reference.text("/kind") != "Pod" {
            return Ok(Some(format!("node requested token not bound to a pod (node {node:?})")));
        }
        let name = reference.text("/name");
        let Some(pod) = self.lookup.find("", "pods", attributes.namespace, name).await? else {
            return Ok(Some(format!("node requested token bound to pod {name:?} that does not exist")));
        };
        if pod.text("/metadata/uid") != reference.text("/uid") {
            return Ok(Some(
                "the UID in the bound object reference does not match the UID in record".to_owned(),
            ));
        }
        if pod.text("/spec/nodeName") != node {
            return Ok(Some("node requested token bound to a pod scheduled on a different node".to_owned()));
        }
        if pod.text("/spec/serviceAccountName") != attributes.name {
            return Ok(Some(format!(
                "node requested token for a service account that pod {name:?} does not use"
            )));
        }
        Ok(None)
    }
}

fn elsewhere(pod: &Value, node: &str, what: &str) -> Option<String> {
    let home = pod.text("/spec/nodeName");
    (home != node).then(|| format!("node {node:?} can only {what} with spec.nodeName set to itself"))
}

fn mirror_pod(pod: &Value, node: &str) -> Option<String> {
    if !is_mirror_pod(pod) {
        return Some(format!(
            "pod does not have \"kubernetes.io/config.mirror\" annotation, node {node:?} can only create mirror pods"
        ));
    }
    if let Some(refusal) = elsewhere(pod, node, "create pods") {
        return Some(refusal);
    }
    let owners = pod.items("/metadata/ownerReferences");
    let foreign = |owner: &Value| owner.text("/kind") != "Node" || owner.text("/name") != node;
    if owners.len() > 1 || owners.iter().any(foreign) {
        return Some(format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    if !pod.text("/spec/serviceAccountName").is_empty() {
        return Some(format!("node {node:?} can not create pods that reference a service account"));
    }
    None
}

fn about_node(attributes: &Attributes<'_>, node: &str) -> Option<String> {
    let (new, old) = (attributes.new_object(), attributes.old_object());
    let named = if attributes.name.is_empty() { new.text("/metadata/name") } else { attributes.name };
    if named != node {
        return Some(format!("node {node:?} is not allowed to modify node {named:?}"));
    }
    if attributes.operation == Operation::Update && attributes.subresource.is_empty() {
        if new.at("/spec/taints") != old.at("/spec/taints") {
            return Some(format!("node {node:?} is not allowed to modify taints"));
        }
        if new.at("/metadata/ownerReferences") != old.at("/metadata/ownerReferences") {
            return Some(format!("node {node:?} is not allowed to modify ownerReferences"));
        }
    }
    let changed: Vec<_> = new
        .members("/metadata/labels")
        .filter(|(key, value)| old.at("/metadata/labels").get(key.as_str()) != Some(*value))
        .map(|(key, _)| key.as_str())
        .filter(|key| is_forbidden_label(key))
        .collect();
    match changed.as_slice() {
        [] => None,
        keys => Some(format!("is not allowed to modify labels: {}", keys.join(", "))),
    }
}

/// Labels that say where workloads may go are the administrator's; the kubelet's own are a closed set.
fn is_forbidden_label(key: &str) -> bool {
    const KUBELET: [&str; 11] = [
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "node.kubernetes.io/instance-type",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/instance-type",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
    ];
    let Some((domain, _)) = key.split_once('/') else { return false };
    let within = |parent: &str| domain == parent || domain.ends_with(&format!(".{parent}"));
    if within(RESTRICTED) {
        return true;
    }
    let reserved = within("kubernetes.io") || within("k8s.io");
    let own = KUBELET.contains(&key) || within("kubelet.kubernetes.io") || within("node.kubernetes.io");
    reserved && !own
}

fn lease(attributes: &Attributes<'_>, node: &str) -> Option<String> {
    let (namespace, prefix) = BALANCER_LEASES;
    if attributes.namespace == namespace && name_of(attributes).starts_with(prefix) {
        let holder = attributes.new_object().text("/spec/holderIdentity");
        return balancer(attributes.operation, holder, node);
    }
    if attributes.namespace != LEASE_NAMESPACE {
        return Some(format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace"));
    }
    other_name(attributes, node, "lease")
}

/// A node takes the Lease for itself or gives it up.
fn balancer(operation: Operation, holder: &str, node: &str) -> Option<String> {
    let is_right = operation != Operation::Delete && (holder.is_empty() || holder == node);
    (!is_right).then(|| "can only take a load balancer's address for the requesting node".to_owned())
}

fn name_of<'a>(attributes: &'a Attributes<'_>) -> &'a str {
    if attributes.name.is_empty() { attributes.new_object().text("/metadata/name") } else { attributes.name }
}

fn other_name(attributes: &Attributes<'_>, node: &str, what: &str) -> Option<String> {
    (name_of(attributes) != node)
        .then(|| format!("can only access {what} with the same name as the requesting node"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_a_kubelet() {
        for (key, forbidden) in [
            ("kubernetes.io/hostname", false),
            ("mine", false),
            ("example.com/x", false),
            ("node-role.kubernetes.io/control-plane", true),
            ("x.node-restriction.kubernetes.io/y", true),
            ("kubelet.kubernetes.io/a", false),
        ] {
            assert_eq!(is_forbidden_label(key), forbidden, "{key}");
        }
    }

    #[test]
    fn a_node_takes_addresses_for_itself_only() {
        for (operation, holder, allowed) in [
            (Operation::Create, "a", true),
            (Operation::Create, "b", false),
            (Operation::Update, "a", true),
            (Operation::Update, "", true),
            (Operation::Update, "b", false),
            (Operation::Delete, "", false),
        ] {
            assert_eq!(balancer(operation, holder, "a").is_none(), allowed, "{operation:?} {holder}");
        }
    }
}
