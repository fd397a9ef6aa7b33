//! Nobody may hand out permissions that they do not hold.

use machinery::Status;
use serde::Deserialize;
use serde_json::Value;

use super::authorizer::Rbac;
use super::compiled::{Binding, Compiled, GROUP};
use super::rule::Rule;
use crate::user::MASTERS_GROUP;
use crate::{Attributes, Authorizer, User};

impl Rbac {
    /// Judges a write of a role (`roles` or `clusterroles`): the writer must hold all its rules or be allowed to
    /// `escalate`. `old` is the present state in an update.
    pub fn check_role_write(
        &self,
        authorizer: &dyn Authorizer,
        attributes: &Attributes,
        new: &Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        if may(authorizer, attributes, "escalate", &attributes.resource, &attributes.name) {
            return Ok(());
        }
        let forbidden = |detail: &str| Status::forbidden(GROUP, &attributes.resource, name_of(new), detail);
        let aggregates = |role: &Value| role.get("aggregationRule").is_some_and(|rule| !rule.is_null());
        let same = |field: &str| old.is_some_and(|old| old.get(field) == new.get(field));
        if aggregates(new) && !same("aggregationRule") {
            let all = ["*".to_owned()];
            let everything = [
                Rule {
                    verbs: all.to_vec(),
                    api_groups: all.to_vec(),
                    resources: all.to_vec(),
                    ..Rule::default()
                },
                Rule { verbs: all.to_vec(), non_resource_urls: all.to_vec(), ..Rule::default() },
            ];
            let detail = "must have cluster-admin privileges to use the aggregationRule: ";
            let check = self.compiled().1.check(&attributes.user, "", &everything);
            check.map_err(|missing| forbidden(&format!("{detail}{missing}")))?;
        }
        if same("rules") {
            return Ok(());
        }
        let rules = rules_of(new)?;
        let check = self.compiled().1.check(&attributes.user, &attributes.namespace, &rules);
        check.map_err(|missing| forbidden(&missing))
    }

    /// Judges a write of a binding (`rolebindings` or `clusterrolebindings`): the writer must hold all rules of the
    /// role or be allowed to `bind` it.
    pub fn check_binding_write(
        &self,
        authorizer: &dyn Authorizer,
        attributes: &Attributes,
        new: &Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        let same = |field: &str| old.is_some_and(|old| old.get(field) == new.get(field));
        if same("roleRef") && same("subjects") {
            return Ok(());
        }
        let binding = Binding::deserialize(new).map_err(|error| Status::bad_request(error.to_string()))?;
        let role = &binding.role_ref;
        let resource = if role.kind == "ClusterRole" { "clusterroles" } else { "roles" };
        if may(authorizer, attributes, "bind", resource, &role.name) {
            return Ok(());
        }
        let compiled = self.compiled();
        let rules = compiled.1.rules(role, &attributes.namespace);
        let rules = rules.ok_or_else(|| Status::not_found(GROUP, resource, &role.name))?;
        let check = compiled.1.check(&attributes.user, &attributes.namespace, &rules);
        check.map_err(|missing| Status::forbidden(GROUP, &attributes.resource, name_of(new), &missing))
    }
}

/// Superusers may, and those whom the authorizers allow the special verb.
fn may(authorizer: &dyn Authorizer, attributes: &Attributes, verb: &str, resource: &str, name: &str) -> bool {
    if attributes.user.is_in(MASTERS_GROUP) {
        return true;
    }
    let asked = Attributes {
        user: attributes.user.clone(),
        verb: verb.to_owned(),
        group: GROUP.to_owned(),
        version: "*".to_owned(),
        resource: resource.to_owned(),
        namespace: attributes.namespace.clone(),
        name: name.to_owned(),
        ..Attributes::default()
    };
    authorizer.authorize(&asked).is_allowed()
}

impl Compiled {
    /// Whether `user` holds all of `rules` in `namespace`; upstream's text about those that are missing.
    fn check(&self, user: &User, namespace: &str, rules: &[Rule]) -> Result<(), String> {
        let held: Vec<_> = self.grants(user, namespace).filter_map(|grant| grant.rules.clone()).collect();
        let covered = |part: &Rule| held.iter().flat_map(|rules| rules.iter()).any(|own| own.covers(part));
        let missing: Vec<Rule> = rules.iter().flat_map(Rule::split).filter(|part| !covered(part)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let list: Vec<_> = merge(missing).iter().map(Rule::compact).collect();
        let groups: Vec<_> = user.groups.iter().map(|group| format!("{group:?}")).collect();
        Err(format!(
            "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            groups.join(" "),
            list.join("\n")
        ))
    }
}

/// Joins the verbs of rules about the same thing.
fn merge(parts: Vec<Rule>) -> Vec<Rule> {
    let mut merged: Vec<Rule> = Vec::new();
    for mut part in parts {
        let same = merged.iter_mut().find(|rule| {
            (&rule.api_groups, &rule.resources, &rule.resource_names, &rule.non_resource_urls)
                == (&part.api_groups, &part.resources, &part.resource_names, &part.non_resource_urls)
        });
        match same {
            Some(rule) => rule.verbs.append(&mut part.verbs),
            None => merged.push(part),
        }
    }
    merged
}

fn rules_of(role: &Value) -> Result<Vec<Rule>, Status> {
    match role.get("rules") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(rules) => Vec::deserialize(rules).map_err(|error| Status::bad_request(error.to_string())),
    }
}

fn name_of(object: &Value) -> &str {
    object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rbac::compiled::Sources;
    use machinery::Object;
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn what_is_missing_is_said() {
        let role = json!({"metadata": {"name": "r", "namespace": "web"},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]});
        let binding = json!({"metadata": {"name": "b", "namespace": "web"},
            "roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "jane"}]});
        let objects = |value: &Value| vec![Arc::new(Object::from_value(value, 1).unwrap())];
        let sources =
            Sources { roles: objects(&role), role_bindings: objects(&binding), ..Sources::default() };
        let compiled = Compiled::new(&sources);
        let jane = User::new("jane", &[]);
        assert_eq!(compiled.check(&jane, "web", &rules_of(&role).unwrap()), Ok(()));
        assert!(compiled.check(&jane, "db", &rules_of(&role).unwrap()).is_err());
        let more = json!({"rules": [{"apiGroups": [""], "resources": ["pods", "secrets"], "verbs": ["get", "watch"]}]});
        let expected = expect_test::expect![[r#"
            user "jane" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held:
            {APIGroups:[""], Resources:["secrets"], Verbs:["get" "watch"]}
            {APIGroups:[""], Resources:["pods"], Verbs:["watch"]}"#]];
        expected.assert_eq(&compiled.check(&jane, "web", &rules_of(&more).unwrap()).unwrap_err());
    }
}
