//! Who makes a request.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub const ANONYMOUS: &str = "system:anonymous";
pub const UNAUTHENTICATED_GROUP: &str = "system:unauthenticated";
pub const AUTHENTICATED_GROUP: &str = "system:authenticated";
/// Members may do everything; no authorizer can take that away.
pub const MASTERS_GROUP: &str = "system:masters";
pub const NODES_GROUP: &str = "system:nodes";
pub const SERVICE_ACCOUNTS_GROUP: &str = "system:serviceaccounts";
pub const BOOTSTRAPPERS_GROUP: &str = "system:bootstrappers";

const NODE_PREFIX: &str = "system:node:";
const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// `authentication.k8s.io` `UserInfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Named `username` in the API.
    #[serde(rename = "username", default)]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// An authenticated user; `system:authenticated` is added to the groups.
    pub fn new(name: impl Into<String>, groups: &[&str]) -> Self {
        let user = Self {
            name: name.into(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            ..Self::default()
        };
        user.authenticated()
    }

    /// Who sends no credentials.
    pub fn anonymous() -> Self {
        Self { name: ANONYMOUS.to_owned(), groups: vec![UNAUTHENTICATED_GROUP.to_owned()], ..Self::default() }
    }

    /// A component that may do everything, such as `system:apiserver`.
    pub fn system_masters(name: impl Into<String>) -> Self {
        Self::new(name, &[MASTERS_GROUP])
    }

    pub fn service_account(namespace: &str, name: &str, uid: &str) -> Self {
        let groups = [SERVICE_ACCOUNTS_GROUP, &format!("{SERVICE_ACCOUNTS_GROUP}:{namespace}")];
        let mut user = Self::new(service_account_name(namespace, name), &groups);
        user.uid = uid.to_owned();
        user
    }

    /// The kubelet of a node.
    pub fn node(name: &str) -> Self {
        Self::new(format!("{NODE_PREFIX}{name}"), &[NODES_GROUP])
    }

    /// Adds the group of everybody who was authenticated, unless the user is anonymous or has it already.
    #[must_use]
    pub fn authenticated(mut self) -> Self {
        if self.name != ANONYMOUS && !self.is_in(AUTHENTICATED_GROUP) && !self.is_in(UNAUTHENTICATED_GROUP) {
            self.groups.push(AUTHENTICATED_GROUP.to_owned());
        }
        self
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    pub fn is_anonymous(&self) -> bool {
        self.name == ANONYMOUS
    }

    /// The name of the node whose kubelet this is: name and group must both say so.
    pub fn node_name(&self) -> Option<&str> {
        self.name.strip_prefix(NODE_PREFIX).filter(|name| !name.is_empty() && self.is_in(NODES_GROUP))
    }

    /// Namespace and name of the service account that this is.
    pub fn service_account_key(&self) -> Option<(&str, &str)> {
        split_service_account_name(&self.name)
    }
}

/// `system:serviceaccount:NAMESPACE:NAME`.
pub fn service_account_name(namespace: &str, name: &str) -> String {
    format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}")
}

/// Namespace and name out of `system:serviceaccount:NAMESPACE:NAME`.
pub fn split_service_account_name(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_groups_are_upstreams() {
        let user = User::service_account("kube-system", "default", "u");
        assert_eq!(user.name, "system:serviceaccount:kube-system:default");
        let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"];
        assert_eq!(user.groups, groups);
        assert_eq!(user.service_account_key(), Some(("kube-system", "default")));
        assert_eq!(User::node("a").node_name(), Some("a"));
        assert_eq!(User::new("system:node:a", &[]).node_name(), None);
        assert_eq!(User::anonymous().authenticated().groups, ["system:unauthenticated"]);
    }
}
