//! The authorizer over live caches.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use client::{Cache, Caches};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};

use super::Rule;
use super::compiled::{Compiled, Sources};
use crate::{Attributes, Authorizer, Decision, NonResourceRule, ResourceRule, User, UserRules};

/// The newest revisions of the four caches.
type Revisions = [Option<u64>; 4];

struct Live {
    roles: Cache,
    cluster_roles: Cache,
    role_bindings: Cache,
    cluster_role_bindings: Cache,
}

impl Live {
    fn revisions(&self) -> Revisions {
        [&self.roles, &self.cluster_roles, &self.role_bindings, &self.cluster_role_bindings]
            .map(Cache::revision)
    }

    fn sources(&self) -> Sources {
        Sources {
            roles: self.roles.all(),
            cluster_roles: self.cluster_roles.all(),
            role_bindings: self.role_bindings.all(),
            cluster_role_bindings: self.cluster_role_bindings.all(),
        }
    }
}

/// RBAC. Allows nothing before [`Rbac::start`], for the server whose objects it reads is made with it.
#[derive(Default)]
pub struct Rbac {
    live: OnceLock<Live>,
    compiled: ArcSwap<(Revisions, Compiled)>,
}

impl Rbac {
    /// Follows the roles and bindings in `caches`, whose client must be in `system:masters`. Must be called inside
    /// a tokio runtime; later calls change nothing.
    pub fn start(&self, caches: &Caches) {
        self.live.get_or_init(|| Live {
            roles: caches.of::<Role>(),
            cluster_roles: caches.of::<ClusterRole>(),
            role_bindings: caches.of::<RoleBinding>(),
            cluster_role_bindings: caches.of::<ClusterRoleBinding>(),
        });
    }

    /// Waits until all roles and bindings are known.
    pub async fn synced(&self) {
        if let Some(live) = self.live.get() {
            for cache in [&live.roles, &live.cluster_roles, &live.role_bindings, &live.cluster_role_bindings]
            {
                cache.synced().await;
            }
        }
    }

    /// The roles and bindings, compiled again when a cache has moved.
    pub(super) fn compiled(&self) -> Arc<(Revisions, Compiled)> {
        let current = self.compiled.load_full();
        let Some(live) = self.live.get() else { return current };
        // Taken before the objects, so that an object that comes in between is not missed next time.
        let revisions = live.revisions();
        if current.0 == revisions {
            return current;
        }
        let fresh = Arc::new((revisions, Compiled::new(&live.sources())));
        self.compiled.store(fresh.clone());
        fresh
    }
}

impl Compiled {
    /// Judges a request.
    pub fn authorize(&self, asked: &Attributes) -> Decision {
        let mut errors = Vec::new();
        for grant in self.grants(&asked.user, &asked.namespace) {
            if grant.rules.iter().flat_map(|rules| rules.iter()).any(|rule| rule.allows(asked)) {
                return Decision::Allow(grant.reason());
            }
            errors.extend(grant.error());
        }
        Decision::NoOpinion(match errors.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        })
    }

    /// Everything `user` was given in `namespace`.
    pub fn user_rules(&self, user: &User, namespace: &str) -> UserRules {
        let mut answer = UserRules::default();
        let mut errors = Vec::new();
        for grant in self.grants(user, namespace) {
            errors.extend(grant.error());
            for rule in grant.rules.iter().flat_map(|rules| rules.iter()) {
                add(&mut answer, rule);
            }
        }
        answer.evaluation_error = errors.join(", ");
        answer
    }
}

fn add(answer: &mut UserRules, rule: &Rule) {
    if !rule.resources.is_empty() {
        answer.resource_rules.push(ResourceRule {
            verbs: rule.verbs.clone(),
            api_groups: rule.api_groups.clone(),
            resources: rule.resources.clone(),
            resource_names: rule.resource_names.clone(),
        });
    }
    if !rule.non_resource_urls.is_empty() {
        let urls = rule.non_resource_urls.clone();
        answer
            .non_resource_rules
            .push(NonResourceRule { verbs: rule.verbs.clone(), non_resource_urls: urls });
    }
}

impl Authorizer for Rbac {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        self.compiled().1.authorize(attributes)
    }

    fn rules_for(&self, user: &User, namespace: &str) -> UserRules {
        self.compiled().1.user_rules(user, namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machinery::Object;
    use serde_json::{Value, json};

    fn compile(objects: &[Value]) -> Compiled {
        let of = |kind: &str| {
            let objects = objects.iter().filter(|object| object["kind"] == kind);
            objects.map(|object| Arc::new(Object::from_value(object, 1).unwrap())).collect()
        };
        Compiled::new(&Sources {
            roles: of("Role"),
            cluster_roles: of("ClusterRole"),
            role_bindings: of("RoleBinding"),
            cluster_role_bindings: of("ClusterRoleBinding"),
        })
    }

    fn judge(compiled: &Compiled, user: User, verb: &str, target: &str) -> String {
        let (group, rest) = target.split_once(' ').unwrap_or(("", target));
        let mut parts = rest.split('/');
        let namespace = parts.next().filter(|name| *name != "-").unwrap_or("").to_owned();
        let resource = parts.next().unwrap_or("").to_owned();
        let mut asked = Attributes { user, verb: verb.into(), ..Attributes::default() };
        if rest.starts_with('/') {
            asked.path = rest.to_owned();
        } else {
            (asked.group, asked.namespace, asked.resource) = (group.to_owned(), namespace, resource);
            asked.name = parts.next().unwrap_or("").to_owned();
        }
        match compiled.authorize(&asked) {
            Decision::Allow(reason) => format!("yes: {reason}"),
            other => format!("no: {}", other.reason()),
        }
    }

    #[test]
    fn bindings_reach_users_groups_and_accounts() {
        let role = |kind: &str, name: &str, verb: &str| {
            let namespace = if kind == "Role" { "web" } else { "" };
            json!({"kind": kind, "metadata": {"name": name, "namespace": namespace},
                "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": [verb]}]})
        };
        let binding = |namespace: &str, role: (&str, &str), subject: Value| {
            let kind = if namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" };
            json!({"kind": kind, "metadata": {"name": "b", "namespace": namespace},
                "roleRef": {"kind": role.0, "name": role.1}, "subjects": [subject]})
        };
        let compiled = compile(&[
            role("Role", "reader", "get"),
            role("ClusterRole", "lister", "list"),
            binding("web", ("Role", "reader"), json!({"kind": "User", "name": "jane"})),
            binding("web", ("ClusterRole", "lister"), json!({"kind": "ServiceAccount", "name": "app"})),
            binding("", ("ClusterRole", "lister"), json!({"kind": "Group", "name": "ops"})),
            binding("db", ("Role", "gone"), json!({"kind": "User", "name": "jane"})),
        ]);
        let jane = || User::new("jane", &[]);
        let cases = [
            (
                jane(),
                "get",
                " web/pods/a",
                r#"yes: RBAC: allowed by RoleBinding "b/web" of Role "reader" to User "jane""#,
            ),
            (jane(), "get", " -/pods/a", "no: "),
            (jane(), "list", " web/pods", "no: "),
            (jane(), "get", " db/pods/a", r#"no: RBAC: role.rbac.authorization.k8s.io "gone" not found"#),
            (
                User::service_account("web", "app", ""),
                "list",
                " web/pods",
                r#"yes: RBAC: allowed by RoleBinding "b/web" of ClusterRole "lister" to ServiceAccount "app/web""#,
            ),
            (User::service_account("web", "app", ""), "list", " db/pods", "no: "),
            (
                User::new("x", &["ops"]),
                "list",
                " db/pods",
                r#"yes: RBAC: allowed by ClusterRoleBinding "b" of ClusterRole "lister" to Group "ops""#,
            ),
        ];
        for (user, verb, target, expected) in cases {
            assert_eq!(judge(&compiled, user, verb, target), expected, "{verb} {target}");
        }
        assert_eq!(compiled.user_rules(&jane(), "web").resource_rules[0].verbs, ["get"]);
    }

    #[test]
    fn the_default_roles_give_everybody_their_part() {
        let compiled = compile(&crate::policy::bootstrap_objects());
        let yes =
            |user: User, verb: &str, target: &str| judge(&compiled, user, verb, target).starts_with("yes");
        let account = || User::service_account("web", "app", "");
        assert!(yes(User::anonymous(), "get", "/healthz"));
        assert!(!yes(User::anonymous(), "get", "/api"));
        assert!(yes(account(), "get", "/apis/apps"));
        assert!(yes(account(), "get", "/openid/v1/jwks"));
        assert!(yes(account(), "create", "authorization.k8s.io x/selfsubjectaccessreviews"));
        assert!(!yes(account(), "get", " web/pods/a"));
        assert!(yes(User::new("x", &["system:masters"]), "delete", " web/pods/a"));
        let scheduler = || User::new("system:kube-scheduler", &[]);
        assert!(yes(scheduler(), "list", " -/nodes"));
        assert!(!yes(scheduler(), "update", " x/secrets"));
        assert!(yes(
            User::service_account("kube-system", "deployment-controller", ""),
            "create",
            "apps web/replicasets"
        ));
    }
}
