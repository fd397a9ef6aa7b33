//! The Node authorizer: a kubelet may read what its pods refer to, and write about itself.

mod references;

use std::sync::OnceLock;

use client::{Cache, Caches, NODE_INDEX};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use machinery::{Key, Object};

use crate::rbac::Rule;
use crate::{Attributes, Authorizer, Decision, User, UserRules, policy};
use references::{Wanted, claims_of, refers, volume_secrets};

const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Leases of which the holder answers for a load balancer's address: nodes take them from one another.
pub const BALANCER_LEASES: (&str, &str) = ("kube-system", "load-balancer-");

struct Live {
    pods: Cache,
    claims: Cache,
    volumes: Cache,
}

/// Admission looks at the name of what is created, and at the holder.
fn is_balancers(asked: &Attributes) -> bool {
    let (namespace, prefix) = BALANCER_LEASES;
    let named = match asked.verb.as_str() {
        "create" => asked.name.is_empty() || asked.name.starts_with(prefix),
        "get" | "update" => asked.name.starts_with(prefix),
        _ => false,
    };
    asked.namespace == namespace && named
}

/// Judges requests of kubelets (users `system:node:NAME` in `system:nodes`) and has no opinion on others.
pub struct NodeAuthorizer {
    live: OnceLock<Live>,
    rules: Vec<Rule>,
}

impl Default for NodeAuthorizer {
    fn default() -> Self {
        Self { live: OnceLock::new(), rules: policy::node_rules() }
    }
}

impl NodeAuthorizer {
    /// Reads pods, claims and volumes from shared caches. Must be called inside a tokio runtime; later calls change
    /// nothing.
    pub fn start(&self, caches: &Caches) {
        self.live.get_or_init(|| Live {
            pods: caches.of::<Pod>(),
            claims: caches.of::<PersistentVolumeClaim>(),
            volumes: caches.of::<PersistentVolume>(),
        });
    }

    /// Whether the request is one that the node's pods make necessary; `None`: the general rules decide.
    fn judge(&self, node: &str, asked: &Attributes) -> Option<Result<(), String>> {
        let about = |namespace: &str| asked.name == node && asked.namespace == namespace;
        let own = |namespace: &str, what: &str| {
            if about(namespace) {
                Ok(())
            } else {
                Err(format!("node {node:?} can only access {what} of its own"))
            }
        };
        Some(match (asked.group.as_str(), asked.resource.as_str(), asked.subresource.as_str()) {
            ("", "secrets", "") => self.read(node, asked, Wanted::Secret),
            ("", "configmaps", "") => self.read(node, asked, Wanted::ConfigMap),
            ("", "serviceaccounts", "" | "token") => self.account(node, asked),
            ("", "persistentvolumeclaims", "" | "status") => self.read(node, asked, Wanted::Claim),
            ("", "persistentvolumes", "") => self.volume(node, asked),
            ("", "nodes", _) if !matches!(asked.verb.as_str(), "create" | "list" | "watch") => {
                own("", "the node")
            }
            ("", "nodes", "") if asked.is_read_only() => self.selected(node, asked, "metadata.name"),
            ("", "pods", "") if matches!(asked.verb.as_str(), "list" | "watch") => {
                self.selected(node, asked, "spec.nodeName")
            }
            ("", "pods", _) if asked.verb != "create" || asked.subresource == "eviction" => {
                self.pod(node, asked)
            }
            ("coordination.k8s.io", "leases", "") if is_balancers(asked) => Ok(()),
            ("coordination.k8s.io", "leases", "") if asked.verb == "create" && asked.name.is_empty() => {
                if asked.namespace == LEASE_NAMESPACE {
                    Ok(())
                } else {
                    own(LEASE_NAMESPACE, "the lease")
                }
            }
            ("coordination.k8s.io", "leases", "") => own(LEASE_NAMESPACE, "the lease"),
            ("storage.k8s.io", "csinodes", "") if asked.verb != "create" => own("", "the CSINode"),
            _ => return None,
        })
    }

    /// `get`, `list` or `watch` of one named object that a pod of the node refers to.
    fn read(&self, node: &str, asked: &Attributes, wanted: Wanted) -> Result<(), String> {
        let name = named(asked)
            .ok_or_else(|| format!("can only read named object of this type, not {}", asked.verb))?;
        let writes_status =
            asked.subresource == "status" && matches!(asked.verb.as_str(), "update" | "patch");
        if !asked.is_read_only() && !writes_status {
            return Err("can only read resources of this type".to_owned());
        }
        let related = self.pods(node).iter().any(|pod| refers(pod, &asked.namespace, wanted, &name))
            || (wanted == Wanted::Secret && self.volume_secret(node, &asked.namespace, &name));
        related_or(related, node)
    }

    /// A service account may be read, and get tokens, for a pod on the node.
    fn account(&self, node: &str, asked: &Attributes) -> Result<(), String> {
        if asked.subresource == "token" && asked.verb != "create" {
            return Err("can only create tokens for individual service accounts".to_owned());
        }
        let related =
            self.pods(node).iter().any(|pod| refers(pod, &asked.namespace, Wanted::Account, &asked.name));
        related_or(related, node)
    }

    fn volume(&self, node: &str, asked: &Attributes) -> Result<(), String> {
        if asked.verb != "get" {
            return Err("can only get individual resources of this type".to_owned());
        }
        related_or(self.volumes(node).iter().any(|volume| volume.meta().name == asked.name), node)
    }

    fn pod(&self, node: &str, asked: &Attributes) -> Result<(), String> {
        let key = Key::new(asked.namespace.clone(), asked.name.clone());
        let pod = self.live.get().and_then(|live| live.pods.get(&key));
        // A pod that is not known (any more) harms nobody, and its kubelet must be able to see that it is gone.
        let mine = pod.is_none_or(|pod| pod.node_name() == node);
        related_or(mine, node)
    }

    /// A list or watch must be restricted to the node.
    fn selected(&self, node: &str, asked: &Attributes, field: &str) -> Result<(), String> {
        let wanted = selector_value(&asked.field_selector, field);
        if wanted == Some(node) || (field == "metadata.name" && asked.name == node) {
            return Ok(());
        }
        Err(format!("can only {} {} with the field selector {field}={node}", asked.verb, asked.resource))
    }

    fn pods(&self, node: &str) -> Vec<std::sync::Arc<Pod>> {
        let Some(live) = self.live.get() else { return Vec::new() };
        live.pods.indexed(NODE_INDEX, node).iter().filter_map(|pod| pod.typed::<Pod>().ok()).collect()
    }

    /// The volumes behind the claims of the node's pods.
    fn volumes(&self, node: &str) -> Vec<std::sync::Arc<Object>> {
        let Some(live) = self.live.get() else { return Vec::new() };
        let mut volumes = Vec::new();
        for pod in self.pods(node) {
            for key in claims_of(&pod) {
                let claim =
                    live.claims.get(&key).and_then(|claim| claim.typed::<PersistentVolumeClaim>().ok());
                let name = claim.and_then(|claim| claim.spec.as_ref()?.volume_name.clone());
                volumes.extend(name.and_then(|name| live.volumes.get(&Key::new("", name))));
            }
        }
        volumes
    }

    fn volume_secret(&self, node: &str, namespace: &str, name: &str) -> bool {
        let wanted = Key::new(namespace, name);
        self.volumes(node).iter().any(|volume| volume_secrets(volume).contains(&wanted))
    }
}

fn related_or(related: bool, node: &str) -> Result<(), String> {
    if related { Ok(()) } else { Err(format!("no relationship found between node '{node}' and this object")) }
}

/// The one object that a request is about: by name, or a list or watch by the field selector of the name.
fn named(asked: &Attributes) -> Option<String> {
    if !asked.name.is_empty() {
        return Some(asked.name.clone());
    }
    selector_value(&asked.field_selector, "metadata.name").map(str::to_owned)
}

/// What a field selector demands of a field.
fn selector_value<'a>(selector: &'a str, field: &str) -> Option<&'a str> {
    selector.split(',').find_map(|part| {
        let rest = part.trim().strip_prefix(field)?;
        rest.strip_prefix("==").or_else(|| rest.strip_prefix('='))
    })
}

impl Authorizer for NodeAuthorizer {
    fn authorize(&self, asked: &Attributes) -> Decision {
        let Some(node) = asked.user.node_name() else { return Decision::NoOpinion(String::new()) };
        if !asked.is_resource() || !self.rules.iter().any(|rule| rule.allows(asked)) {
            return Decision::NoOpinion(String::new());
        }
        match self.judge(node, asked) {
            None | Some(Ok(())) => Decision::Allow(String::new()),
            Some(Err(reason)) => Decision::NoOpinion(reason),
        }
    }

    fn rules_for(&self, _user: &User, _namespace: &str) -> UserRules {
        // What a node may do depends on its pods and cannot be listed; others get nothing from here.
        let error = "node authorizer does not support user rule resolution".to_owned();
        UserRules { incomplete: true, evaluation_error: error, ..UserRules::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(verb: &str, group: &str, resource: &str, key: &str, selector: &str) -> bool {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        let asked = Attributes {
            user: User::node("a"),
            verb: verb.into(),
            group: group.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            namespace: namespace.into(),
            name: name.into(),
            field_selector: selector.into(),
            ..Attributes::default()
        };
        NodeAuthorizer::default().authorize(&asked).is_allowed()
    }

    #[test]
    fn a_node_may_write_about_itself_only() {
        let cases = [
            ("get", "", "nodes", "a", "", true),
            ("get", "", "nodes", "b", "", false),
            ("create", "", "nodes", "", "", true),
            ("patch", "", "nodes/status", "a", "", true),
            ("patch", "", "nodes/status", "b", "", false),
            ("list", "", "nodes", "", "", false),
            ("watch", "", "nodes", "", "metadata.name=a", true),
            ("watch", "", "nodes", "", "metadata.name=b", false),
            ("list", "", "pods", "", "spec.nodeName=a", true),
            ("list", "", "pods", "", "", false),
            ("update", "coordination.k8s.io", "leases", "kube-node-lease/a", "", true),
            ("update", "coordination.k8s.io", "leases", "kube-node-lease/b", "", false),
            ("update", "coordination.k8s.io", "leases", "kube-system/a", "", false),
            ("update", "coordination.k8s.io", "leases", "kube-system/load-balancer-192-0-2-1", "", true),
            ("delete", "coordination.k8s.io", "leases", "kube-system/load-balancer-192-0-2-1", "", false),
            ("create", "coordination.k8s.io", "leases", "kube-system/", "", true),
            ("list", "", "services", "", "", true),
            ("list", "", "secrets", "web/", "", false),
            ("get", "", "secrets", "web/s", "", false),
            ("create", "", "secrets", "web/", "", false),
            ("list", "apps", "deployments", "", "", false),
            ("create", "", "events", "web/", "", true),
        ];
        for (verb, group, resource, key, selector, expected) in cases {
            assert_eq!(
                judge(verb, group, resource, key, selector),
                expected,
                "{verb} {resource} {key} {selector}"
            );
        }
    }
}
