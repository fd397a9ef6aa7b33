//! Nobody gives away more than they hold: roles and bindings are checked against the writer's own permissions.
//!
//! Upstream does this in the storage of the RBAC kinds; here it stands with the other checks of writes.

use std::sync::Arc;

use async_trait::async_trait;
use auth::user::MASTERS_GROUP;
use auth::{Authorizer, User};
use machinery::Status;
use resources::value::Access;
use serde_json::{Value, json};

use crate::lookup::Lookup;
use crate::{Attributes, Operation, Plugin};

const GROUP: &str = "rbac.authorization.k8s.io";

pub struct RoleEscalation {
    pub lookup: Lookup,
    pub authorizer: Arc<dyn Authorizer>,
}

#[async_trait]
impl Plugin for RoleEscalation {
    fn name(&self) -> &'static str {
        "RoleEscalation"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        matches!(attributes.operation, Operation::Create | Operation::Update)
            && attributes.resource.group == GROUP
            && attributes.subresource.is_empty()
            && !attributes.user.groups.iter().any(|group| group == MASTERS_GROUP)
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let resource = attributes.resource.resource.as_str();
        match resource {
            "roles" | "clusterroles" => self.role(attributes, resource),
            "rolebindings" | "clusterrolebindings" => self.binding(attributes).await,
            _ => Ok(()),
        }
    }
}

impl RoleEscalation {
    fn role(&self, attributes: &Attributes<'_>, resource: &str) -> Result<(), Status> {
        let (new, old) = (attributes.new_object(), attributes.old_object());
        let unchanged = ["/rules", "/aggregationRule"].iter().all(|field| new.at(field) == old.at(field))
            && !old.is_null();
        if unchanged || self.may(attributes, "escalate", resource, attributes.name) {
            return Ok(());
        }
        let everything = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
            {"nonResourceURLs": ["*"], "verbs": ["*"]}]);
        let is_aggregated =
            new.has("/aggregationRule") && new.at("/aggregationRule") != old.at("/aggregationRule");
        if is_aggregated && self.missing(attributes, everything.items("")).is_some() {
            return Err(attributes.forbidden("must have cluster-admin privileges to use an aggregationRule"));
        }
        self.refuse_missing(attributes, new.items("/rules"))
    }

    async fn binding(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let (new, old) = (attributes.new_object(), attributes.old_object());
        let unchanged = ["/roleRef", "/subjects"].iter().all(|field| new.at(field) == old.at(field));
        let name = new.text("/roleRef/name");
        let is_cluster = new.text("/roleRef/kind") == "ClusterRole";
        let resource = if is_cluster { "clusterroles" } else { "roles" };
        if (unchanged && !old.is_null()) || self.may(attributes, "bind", resource, name) {
            return Ok(());
        }
        let namespace = if is_cluster { "" } else { attributes.namespace };
        let role = self.lookup.find(GROUP, resource, namespace, name).await?;
        let role = role.ok_or_else(|| Status::not_found(GROUP, resource, name))?;
        self.refuse_missing(attributes, role.items("/rules"))
    }

    fn may(&self, attributes: &Attributes<'_>, verb: &str, resource: &str, name: &str) -> bool {
        self.authorizer
            .authorize(&auth::Attributes {
                user: attributes.user.clone(),
                verb: verb.to_owned(),
                group: GROUP.to_owned(),
                version: "*".to_owned(),
                resource: resource.to_owned(),
                namespace: attributes.namespace.to_owned(),
                name: name.to_owned(),
                ..auth::Attributes::default()
            })
            .is_allowed()
    }

    fn refuse_missing(&self, attributes: &Attributes<'_>, rules: &[Value]) -> Result<(), Status> {
        let Some(rule) = self.missing(attributes, rules) else { return Ok(()) };
        let user = attributes.user;
        let detail = format!(
            "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            user.groups,
            describe(rule)
        );
        Err(attributes.forbidden(&detail))
    }

    /// The first rule that gives something the user does not hold.
    fn missing<'a>(&self, attributes: &Attributes<'_>, rules: &'a [Value]) -> Option<&'a Value> {
        let holds = |question: &auth::Attributes| self.authorizer.authorize(question).is_allowed();
        rules.iter().find(|rule| !questions(attributes.user, attributes.namespace, rule).iter().all(holds))
    }
}

/// Everything that a rule allows, as single questions. A `*` is asked as it stands: only a rule with `*` answers it.
fn questions(user: &User, namespace: &str, rule: &Value) -> Vec<auth::Attributes> {
    let list = |field: &str| -> Vec<String> {
        rule.items(field).iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let ask = |verb: &String| auth::Attributes {
        user: user.clone(),
        verb: verb.clone(),
        ..auth::Attributes::default()
    };
    let mut questions = Vec::new();
    let names = match list("/resourceNames") {
        names if names.is_empty() => vec![String::new()],
        names => names,
    };
    for verb in &list("/verbs") {
        for path in list("/nonResourceURLs") {
            questions.push(auth::Attributes { path, ..ask(verb) });
        }
        for group in &list("/apiGroups") {
            for resource in &list("/resources") {
                let (resource, subresource) = resource.split_once('/').unwrap_or((resource.as_str(), ""));
                questions.extend(names.iter().map(|name| auth::Attributes {
                    group: group.clone(),
                    version: "*".to_owned(),
                    resource: resource.to_owned(),
                    subresource: subresource.to_owned(),
                    namespace: namespace.to_owned(),
                    name: name.clone(),
                    ..ask(verb)
                }));
            }
        }
    }
    questions
}

fn describe(rule: &Value) -> String {
    let fields = [
        ("APIGroups", "/apiGroups"),
        ("Resources", "/resources"),
        ("ResourceNames", "/resourceNames"),
        ("NonResourceURLs", "/nonResourceURLs"),
        ("Verbs", "/verbs"),
    ];
    let texts: Vec<_> = fields
        .iter()
        .filter(|(_, pointer)| !rule.items(pointer).is_empty())
        .map(|(name, pointer)| format!("{name}:{}", rule.at(pointer)))
        .collect();
    format!("{{{}}}", texts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_many_questions() {
        let rule =
            json!({"apiGroups": ["", "apps"], "resources": ["pods", "pods/log"], "verbs": ["get", "*"]});
        let asked = questions(&User::anonymous(), "ns", &rule);
        assert_eq!(asked.len(), 8);
        assert!(asked.iter().any(|question| question.subresource == "log" && question.verb == "*"));
        assert_eq!(
            describe(&rule),
            r#"{APIGroups:["","apps"], Resources:["pods","pods/log"], Verbs:["get","*"]}"#
        );
    }
}
