//! The roles and bindings that every cluster starts with, as upstream defines them for 1.36.
//!
//! The tables are text, for there are hundreds of rules; the notation is described in [`tables`].

mod notation;
mod tables;

use serde_json::{Value, json};

use notation::{Role, parse};

const API: &str = "rbac.authorization.k8s.io/v1";
const GROUP: &str = "rbac.authorization.k8s.io";

/// The rules of `system:node`, which the Node authorizer applies to kubelets.
pub(crate) fn node_rules() -> Vec<crate::rbac::Rule> {
    parse(tables::CLUSTER_ROLES)
        .into_iter()
        .find(|role| role.name == "system:node")
        .map(|role| role.rules)
        .unwrap_or_default()
}

/// Roles before the bindings that refer to them. Aggregated roles have their rules filled in.
pub fn bootstrap_objects() -> Vec<Value> {
    let mut roles = parse(tables::CLUSTER_ROLES);
    let controllers = parse(tables::CONTROLLERS);
    let mut objects: Vec<Value> = Vec::new();
    roles.extend(aggregated(&roles));
    objects.extend(roles.iter().map(cluster_role));
    objects.extend(controllers.iter().map(cluster_role));
    objects.extend(parse(tables::ROLES).iter().map(role));
    for line in tables::CLUSTER_ROLE_BINDINGS.lines().map(str::trim).filter(|line| !line.is_empty()) {
        objects.push(cluster_role_binding(line));
    }
    for role in &controllers {
        let account = role.name.trim_start_matches("system:controller:");
        objects.push(cluster_role_binding(&format!("{} ServiceAccount=kube-system/{account}", role.name)));
    }
    for line in tables::ROLE_BINDINGS.lines().map(str::trim).filter(|line| !line.is_empty()) {
        objects.push(role_binding(line));
    }
    objects
}

fn metadata(name: &str) -> Value {
    json!({
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    })
}

/// `admin`, `edit` and `view`: each contains the next smaller.
fn aggregated(roles: &[Role]) -> Vec<Role> {
    let own = |name: &str| {
        let parts = roles.iter().filter(|role| role.aggregate_to.as_deref() == Some(name));
        parts.flat_map(|role| role.rules.clone()).collect::<Vec<_>>()
    };
    let mut view = Role::new("view");
    view.aggregate_to = Some("edit".to_owned());
    view.rules = own("view");
    let mut edit = Role::new("edit");
    edit.aggregate_to = Some("admin".to_owned());
    edit.rules = [own("edit"), view.rules.clone()].concat();
    let mut admin = Role::new("admin");
    admin.rules = [own("admin"), edit.rules.clone()].concat();
    for role in [&mut view, &mut edit, &mut admin] {
        role.aggregates = true;
    }
    vec![admin, edit, view]
}

fn cluster_role(role: &Role) -> Value {
    let mut metadata = metadata(&role.name);
    if let Some(target) = &role.aggregate_to {
        metadata["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{target}")] = "true".into();
    }
    let mut object =
        json!({"apiVersion": API, "kind": "ClusterRole", "metadata": metadata, "rules": role.rules});
    if role.aggregates {
        let label = format!("rbac.authorization.k8s.io/aggregate-to-{}", role.name);
        object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
    }
    object
}

fn role(role: &Role) -> Value {
    let (namespace, name) = role.name.split_once('/').unwrap_or(("", &role.name));
    let mut metadata = metadata(name);
    metadata["namespace"] = namespace.into();
    json!({"apiVersion": API, "kind": "Role", "metadata": metadata, "rules": role.rules})
}

/// `NAME SUBJECT…`, bound to the role of the same name.
fn cluster_role_binding(line: &str) -> Value {
    let mut words = line.split_whitespace();
    let name = words.next().unwrap_or_default();
    let mut object = json!({
        "apiVersion": API, "kind": "ClusterRoleBinding", "metadata": metadata(name),
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": name},
    });
    let subjects: Vec<_> = words.map(subject).collect();
    if !subjects.is_empty() {
        object["subjects"] = subjects.into();
    }
    object
}

/// `NAMESPACE/NAME ROLE SUBJECT…`.
fn role_binding(line: &str) -> Value {
    let mut words = line.split_whitespace();
    let (namespace, name) = words.next().and_then(|word| word.split_once('/')).unwrap_or_default();
    let role = words.next().unwrap_or_default();
    let mut metadata = metadata(name);
    metadata["namespace"] = namespace.into();
    json!({
        "apiVersion": API, "kind": "RoleBinding", "metadata": metadata,
        "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": role},
        "subjects": words.map(subject).collect::<Vec<_>>(),
    })
}

/// `User=NAME`, `Group=NAME` or `ServiceAccount=NAMESPACE/NAME`.
fn subject(word: &str) -> Value {
    let (kind, name) = word.split_once('=').unwrap_or(("User", word));
    match name.split_once('/') {
        Some((namespace, name)) => json!({"kind": kind, "name": name, "namespace": namespace}),
        None => json!({"apiGroup": GROUP, "kind": kind, "name": name}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_binding_has_its_role_and_no_name_occurs_twice() {
        let objects = bootstrap_objects();
        let key = |kind: &Value, namespace: &Value, name: &Value| format!("{kind} {namespace} {name}");
        let mut seen = BTreeSet::new();
        for object in &objects {
            let meta = &object["metadata"];
            assert!(seen.insert(key(&object["kind"], &meta["namespace"], &meta["name"])), "{meta} twice");
            if let Some(role) = object.get("roleRef") {
                let namespace = if role["kind"] == "Role" { &meta["namespace"] } else { &Value::Null };
                assert!(seen.contains(&key(&role["kind"], namespace, &role["name"])), "{role} is missing");
            }
            for rule in object["rules"].as_array().into_iter().flatten() {
                assert!(rule.get("resources").is_some() != rule.get("nonResourceURLs").is_some(), "{rule}");
            }
        }
        assert!(seen.len() > 100, "{}", seen.len());
    }

    #[test]
    fn objects_look_like_upstreams() {
        let objects = bootstrap_objects();
        let find = |kind: &str, name: &str| {
            let found =
                objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
            serde_json::to_string(found.unwrap()).unwrap()
        };
        let expected = expect_test::expect![[
            r#"{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"annotations":{"rbac.authorization.kubernetes.io/autoupdate":"true"},"labels":{"kubernetes.io/bootstrapping":"rbac-defaults"},"name":"cluster-admin"},"rules":[{"apiGroups":["*"],"resources":["*"],"verbs":["*"]},{"nonResourceURLs":["*"],"verbs":["*"]}]}"#
        ]];
        expected.assert_eq(&find("ClusterRole", "cluster-admin"));
        let expected = expect_test::expect![[
            r#"{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"annotations":{"rbac.authorization.kubernetes.io/autoupdate":"true"},"labels":{"kubernetes.io/bootstrapping":"rbac-defaults"},"name":"system:controller:job-controller"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"system:controller:job-controller"},"subjects":[{"kind":"ServiceAccount","name":"job-controller","namespace":"kube-system"}]}"#
        ]];
        expected.assert_eq(&find("ClusterRoleBinding", "system:controller:job-controller"));
        assert!(find("ClusterRole", "edit").contains(r#""aggregationRule":{"clusterRoleSelectors":[{"matchLabels":{"rbac.authorization.k8s.io/aggregate-to-edit":"true"}}]}"#));
    }
}
