//! The rows of the built-in kinds: upstream's generally available resources, in discovery order.
//!
//! The facts (names, verbs, subresources) are data in `facts/`; what they do not say (storage prefixes, schema
//! names, strategies) is derived here.

use std::sync::Arc;

use serde::Deserialize;

use crate::{Resource, Scope, Subresource, Table, registry};

const FACTS: &str = include_str!("../facts/resources.json");

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RowFacts {
    group: String,
    version: String,
    resource: String,
    singular: String,
    kind: String,
    namespaced: bool,
    verbs: Vec<String>,
    #[serde(default)]
    short_names: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
    #[serde(default)]
    subresources: Vec<SubresourceFacts>,
}

#[derive(Deserialize)]
struct SubresourceFacts {
    name: String,
    group: String,
    version: String,
    kind: String,
    verbs: Vec<String>,
}

/// Every built-in row, in discovery order. The facts are parsed anew at each call; keep the table.
pub fn builtin_table() -> Table {
    let facts: Vec<RowFacts> =
        serde_json::from_str(FACTS).expect("the facts are part of the program and tested");
    Table::new(facts.into_iter().map(|facts| Arc::new(row(facts))).collect())
}

fn row(facts: RowFacts) -> Resource {
    Resource {
        schema: schema_name(&facts.group, &facts.version, &facts.kind),
        storage_prefix: storage_prefix(&facts.group, &facts.resource),
        storage_version: storage_version(&facts).to_owned(),
        strategy: registry::strategy(&facts.group, &facts.version, &facts.kind),
        scope: if facts.namespaced { Scope::Namespaced } else { Scope::Cluster },
        subresources: facts.subresources.into_iter().map(Subresource::from).collect(),
        group: facts.group,
        version: facts.version,
        kind: facts.kind,
        resource: facts.resource,
        singular: facts.singular,
        short_names: facts.short_names,
        categories: facts.categories,
        verbs: facts.verbs,
    }
}

impl From<SubresourceFacts> for Subresource {
    fn from(facts: SubresourceFacts) -> Self {
        let SubresourceFacts { name, group, version, kind, verbs } = facts;
        Self { name, group, version, kind, verbs }
    }
}

/// The schema's type name, as OpenAPI names it.
fn schema_name(group: &str, version: &str, kind: &str) -> String {
    let package = match group {
        "" => "io.k8s.api.core".to_owned(),
        "apiextensions.k8s.io" => "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions".to_owned(),
        "apiregistration.k8s.io" => "io.k8s.kube-aggregator.pkg.apis.apiregistration".to_owned(),
        "metrics.k8s.io" => "io.k8s.metrics.pkg.apis.metrics".to_owned(),
        group => format!("io.k8s.api.{}", group.split('.').next().unwrap_or(group)),
    };
    format!("{package}.{version}.{kind}")
}

/// Where upstream keeps a resource: by its plural, with a few historical names. Metrics are worked out when they are
/// read and kept nowhere.
fn storage_prefix(group: &str, resource: &str) -> String {
    let path = match (group, resource) {
        ("metrics.k8s.io", _) => return String::new(),
        ("", "nodes") => "minions",
        ("", "replicationcontrollers") => "controllers",
        ("", "services") => "services/specs",
        ("", "endpoints") => "services/endpoints",
        ("networking.k8s.io", "ingresses") => "ingress",
        ("apiextensions.k8s.io" | "apiregistration.k8s.io", resource) => {
            return format!("/registry/{group}/{resource}/");
        }
        (_, resource) => resource,
    };
    format!("/registry/{path}/")
}

fn storage_version(facts: &RowFacts) -> &str {
    match (facts.group.as_str(), facts.kind.as_str()) {
        ("autoscaling", "HorizontalPodAutoscaler") => "v2",
        ("events.k8s.io", "Event") => "/v1",
        _ => &facts.version,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn groups_come_in_upstreams_order() {
        let table = builtin_table();
        let mut groups: Vec<_> = table.rows().iter().map(|row| row.api_version()).collect();
        groups.dedup();
        expect!["v1 apiregistration.k8s.io/v1 apps/v1 events.k8s.io/v1 authentication.k8s.io/v1 authorization.k8s.io/v1 autoscaling/v2 autoscaling/v1 batch/v1 certificates.k8s.io/v1 networking.k8s.io/v1 policy/v1 rbac.authorization.k8s.io/v1 storage.k8s.io/v1 admissionregistration.k8s.io/v1 apiextensions.k8s.io/v1 scheduling.k8s.io/v1 coordination.k8s.io/v1 node.k8s.io/v1 discovery.k8s.io/v1 resource.k8s.io/v1 flowcontrol.apiserver.k8s.io/v1 metrics.k8s.io/v1beta1"]
            .assert_eq(&groups.join(" "));
    }

    #[test]
    fn rows_are_stored_where_upstream_stores_them() {
        let table = builtin_table();
        let key = |group: &str, version: &str, resource: &str| {
            table.find(group, version, resource).unwrap().storage_key("ns", "name")
        };
        assert_eq!(key("", "v1", "services"), "/registry/services/specs/ns/name");
        assert_eq!(key("", "v1", "nodes"), "/registry/minions/name");
        assert_eq!(key("apps", "v1", "deployments"), "/registry/deployments/ns/name");
        assert_eq!(key("events.k8s.io", "v1", "events"), key("", "v1", "events"));
        assert_eq!(
            key("autoscaling", "v1", "horizontalpodautoscalers"),
            "/registry/horizontalpodautoscalers/ns/name"
        );
        assert_eq!(
            key("apiextensions.k8s.io", "v1", "customresourcedefinitions"),
            "/registry/apiextensions.k8s.io/customresourcedefinitions/name"
        );
    }

    #[test]
    fn only_versions_of_one_kind_share_a_prefix() {
        let table = builtin_table();
        for a in table.rows() {
            for b in table.rows() {
                let same_kind = a.kind == b.kind && a.resource == b.resource;
                let same_kind = same_kind || a.storage_prefix.is_empty();
                assert!(a.storage_prefix != b.storage_prefix || same_kind, "{} {}", a.kind, b.kind);
            }
        }
    }
}
