//! Which FlowSchema a request belongs to (KEP-1040). Pure.
//!
//! Answers name it and its priority level; how many requests run at once is not divided by level here.

use auth::User;
use auth::user::service_account_name;
use resources::value::Access;
use serde_json::Value;

/// What matching looks at.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub user: &'a User,
    pub verb: &'a str,
    /// Group, resource with subresource, namespace; `None`: a path that is no resource.
    pub resource: Option<(&'a str, &'a str, &'a str)>,
    pub path: &'a str,
}

/// A FlowSchema in the form in which it is matched.
#[derive(Clone, Debug)]
pub struct Schema {
    pub uid: String,
    /// The name of its priority level.
    pub level: String,
    precedence: i64,
    name: String,
    rules: Vec<Value>,
}

/// The schemas in the order in which they are tried.
pub fn compiled(objects: impl Iterator<Item = Value>) -> Vec<Schema> {
    let schema = |object: Value| Schema {
        uid: object.text("/metadata/uid").to_owned(),
        level: object.text("/spec/priorityLevelConfiguration/name").to_owned(),
        precedence: object.int("/spec/matchingPrecedence").unwrap_or(1000),
        name: object.text("/metadata/name").to_owned(),
        rules: object.items("/spec/rules").to_vec(),
    };
    let mut all: Vec<Schema> = objects.map(schema).collect();
    all.sort_by(|a, b| a.precedence.cmp(&b.precedence).then_with(|| a.name.cmp(&b.name)));
    all
}

/// The first schema that a request matches.
pub fn find<'a>(schemas: &'a [Schema], asked: Asked<'_>) -> Option<&'a Schema> {
    schemas.iter().find(|schema| schema.rules.iter().any(|rule| matches(rule, asked)))
}

fn matches(rule: &Value, asked: Asked<'_>) -> bool {
    if !rule.items("/subjects").iter().any(|subject| is_subject(subject, asked.user)) {
        return false;
    }
    match asked.resource {
        Some(resource) => {
            rule.items("/resourceRules").iter().any(|rule| is_resource(rule, asked.verb, resource))
        }
        None => rule.items("/nonResourceRules").iter().any(|rule| is_path(rule, asked.verb, asked.path)),
    }
}

fn is_subject(subject: &Value, user: &User) -> bool {
    match subject.text("/kind") {
        "User" => is_one(subject.text("/user/name"), &user.name),
        "Group" => {
            let wanted = subject.text("/group/name");
            wanted == "*" || user.groups.iter().any(|group| group == wanted)
        }
        "ServiceAccount" => {
            let (namespace, name) =
                (subject.text("/serviceAccount/namespace"), subject.text("/serviceAccount/name"));
            match name {
                "*" => user.name.starts_with(&service_account_name(namespace, "")),
                name => user.name == service_account_name(namespace, name),
            }
        }
        _ => false,
    }
}

fn is_one(wanted: &str, found: &str) -> bool {
    wanted == "*" || wanted == found
}

fn is_listed(rule: &Value, field: &str, found: &str) -> bool {
    rule.items(field).iter().filter_map(Value::as_str).any(|wanted| is_one(wanted, found))
}

fn is_resource(rule: &Value, verb: &str, (group, resource, namespace): (&str, &str, &str)) -> bool {
    let in_scope = match namespace {
        "" => rule.flag("/clusterScope"),
        namespace => is_listed(rule, "/namespaces", namespace),
    };
    in_scope
        && is_listed(rule, "/verbs", verb)
        && is_listed(rule, "/apiGroups", group)
        && is_listed(rule, "/resources", resource)
}

fn is_path(rule: &Value, verb: &str, path: &str) -> bool {
    let below = |wanted: &str| match wanted.strip_suffix('*') {
        Some(start) => path.starts_with(start),
        None => wanted == path,
    };
    is_listed(rule, "/verbs", verb)
        && rule.items("/nonResourceURLs").iter().filter_map(Value::as_str).any(below)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema(name: &str, precedence: i64, rules: Value) -> Value {
        json!({"metadata": {"name": name, "uid": name}, "spec": {"matchingPrecedence": precedence, "rules": [rules],
            "priorityLevelConfiguration": {"name": "level"}}})
    }

    #[test]
    fn the_first_by_precedence_wins() {
        let everything = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}]);
        let anybody = json!([{"kind": "Group", "group": {"name": "*"}}]);
        let leases = json!([{"verbs": ["get", "update"], "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "namespaces": ["kube-system"]}]);
        let accounts =
            json!([{"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": "*"}}]);
        let paths = json!([{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/apis/*"]}]);
        let schemas = compiled(
            [
                schema("catch-all", 10_000, json!({"subjects": anybody, "resourceRules": everything})),
                schema("leases", 100, json!({"subjects": accounts, "resourceRules": leases})),
                schema("paths", 50, json!({"subjects": anybody, "nonResourceRules": paths})),
            ]
            .into_iter(),
        );
        let (system, jane) = (User::service_account("kube-system", "a", "1"), User::new("jane", &[]));
        let jane = jane.authenticated();
        let check = |user: &User, verb: &str, resource, path: &str| {
            find(&schemas, Asked { user, verb, resource, path }).map(|schema| schema.uid.clone())
        };
        let lease = Some(("coordination.k8s.io", "leases", "kube-system"));
        assert_eq!(check(&system, "update", lease, "").as_deref(), Some("leases"));
        assert_eq!(check(&system, "delete", lease, "").as_deref(), Some("catch-all"));
        assert_eq!(check(&jane, "update", lease, "").as_deref(), Some("catch-all"));
        assert_eq!(check(&jane, "list", Some(("", "nodes", "")), "").as_deref(), Some("catch-all"));
        assert_eq!(check(&jane, "get", None, "/apis/apps").as_deref(), Some("paths"));
        assert_eq!(check(&jane, "get", None, "/healthz/x"), None);
    }
}
