//! Roles and bindings, arranged by who they are about.

use std::collections::HashMap;
use std::sync::Arc;

use machinery::Object;
use serde::Deserialize;

use super::Rule;
use crate::User;
use crate::user::service_account_name;

/// The API group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RoleReference {
    pub kind: String,
    pub name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subject {
    pub kind: String,
    pub name: String,
    pub namespace: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Binding {
    pub role_ref: RoleReference,
    pub subjects: Option<Vec<Subject>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Role {
    rules: Option<Vec<Rule>>,
}

/// What a binding gives to a subject.
#[derive(Clone, Debug)]
pub struct Grant {
    binding: Arc<str>,
    role: RoleReference,
    subject: Arc<str>,
    /// `None`: there is no such role.
    pub rules: Option<Arc<[Rule]>>,
}

impl Grant {
    /// Upstream's reason: which binding of which role to whom.
    pub fn reason(&self) -> String {
        let Self { binding, role, subject, .. } = self;
        format!("RBAC: allowed by {binding} of {} {:?} to {subject}", role.kind, role.name)
    }

    /// What is wrong with the grant, if anything.
    pub fn error(&self) -> Option<String> {
        let kind = self.role.kind.to_lowercase();
        self.rules.is_none().then(|| format!("{kind}.{GROUP} {:?} not found", self.role.name))
    }
}

#[derive(Debug, Default)]
struct Grants {
    users: HashMap<String, Vec<Grant>>,
    groups: HashMap<String, Vec<Grant>>,
}

impl Grants {
    fn of<'a>(&'a self, user: &'a User) -> impl Iterator<Item = &'a Grant> {
        let groups = user.groups.iter().filter_map(|group| self.groups.get(group));
        self.users.get(&user.name).into_iter().chain(groups).flatten()
    }
}

/// The objects to compile.
#[derive(Default)]
pub struct Sources {
    pub roles: Vec<Arc<Object>>,
    pub cluster_roles: Vec<Arc<Object>>,
    pub role_bindings: Vec<Arc<Object>>,
    pub cluster_role_bindings: Vec<Arc<Object>>,
}

/// Everything RBAC knows. Namespace `""` stands for the cluster.
#[derive(Debug, Default)]
pub struct Compiled {
    grants: HashMap<String, Grants>,
    roles: HashMap<(String, String), Arc<[Rule]>>,
}

impl Compiled {
    pub fn new(sources: &Sources) -> Self {
        let mut compiled = Self::default();
        for object in sources.roles.iter().chain(&sources.cluster_roles) {
            let role: Role = read(object);
            let key = (object.meta().namespace.clone(), object.meta().name.clone());
            compiled.roles.insert(key, role.rules.unwrap_or_default().into());
        }
        for object in sources.cluster_role_bindings.iter().chain(&sources.role_bindings) {
            compiled.bind(object);
        }
        compiled
    }

    fn bind(&mut self, object: &Object) {
        let binding: Binding = read(object);
        let (namespace, name) = (&object.meta().namespace, &object.meta().name);
        let text: Arc<str> = match namespace.as_str() {
            "" => format!("ClusterRoleBinding {name:?}").into(),
            namespace => format!("RoleBinding {:?}", format!("{name}/{namespace}")).into(),
        };
        let rules = self.rules(&binding.role_ref, namespace);
        let grants = self.grants.entry(namespace.clone()).or_default();
        for subject in binding.subjects.unwrap_or_default() {
            let (list, key, shown) = match subject.kind.as_str() {
                "User" => (&mut grants.users, subject.name.clone(), format!("User {:?}", subject.name)),
                "Group" => (&mut grants.groups, subject.name.clone(), format!("Group {:?}", subject.name)),
                "ServiceAccount" => {
                    let home = if subject.namespace.is_empty() { namespace } else { &subject.namespace };
                    let shown = format!("ServiceAccount {:?}", format!("{}/{home}", subject.name));
                    (&mut grants.users, service_account_name(home, &subject.name), shown)
                }
                _ => continue,
            };
            let role = binding.role_ref.clone();
            let grant = Grant { binding: text.clone(), role, subject: shown.into(), rules: rules.clone() };
            list.entry(key).or_default().push(grant);
        }
    }

    /// The rules of a role as seen from a binding in `namespace`.
    pub fn rules(&self, role: &RoleReference, namespace: &str) -> Option<Arc<[Rule]>> {
        let home = if role.kind == "ClusterRole" { "" } else { namespace };
        self.roles.get(&(home.to_owned(), role.name.clone())).cloned()
    }

    /// What `user` was given for the whole cluster and in `namespace` (empty: only the former).
    pub fn grants<'a>(&'a self, user: &'a User, namespace: &str) -> impl Iterator<Item = &'a Grant> {
        let cluster = self.grants.get("");
        let namespaced = if namespace.is_empty() { None } else { self.grants.get(namespace) };
        cluster.into_iter().chain(namespaced).flat_map(|grants| grants.of(user))
    }
}

/// A malformed object gives nothing to anybody.
fn read<T: for<'de> Deserialize<'de> + Default>(object: &Object) -> T {
    serde_json::from_slice(object.stored()).unwrap_or_else(|error| {
        tracing::warn!(object = %object.key(), %error, "a role or binding is malformed");
        T::default()
    })
}
