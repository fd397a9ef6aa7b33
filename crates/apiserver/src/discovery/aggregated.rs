//! `apidiscovery.k8s.io/v2`: all groups in one document. Pure.

use resources::{Resource, Table};
use serde_json::{Value, json};

use super::plain::group_versions;

/// `APIGroupDiscoveryList` of the core group (`/api`) or of the others (`/apis`).
pub(super) fn document(table: &Table, legacy: bool) -> Value {
    let items: Vec<Value> = group_versions(table)
        .into_iter()
        .filter(|(group, _)| group.is_empty() == legacy)
        .map(|(group, versions)| {
            let versions: Vec<Value> =
                versions.iter().map(|version| version_value(table, &group, version)).collect();
            let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    })
}

fn version_value(table: &Table, group: &str, version: &str) -> Value {
    let rows = table.rows().iter().filter(|row| row.group == group && row.version == version);
    let resources: Vec<Value> = rows.map(|row| resource_value(row)).collect();
    json!({"version": version, "freshness": "Current", "resources": resources})
}

fn resource_value(row: &Resource) -> Value {
    let kind =
        |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut value = json!({
        "resource": row.resource,
        "responseKind": kind(&row.group, &row.version, &row.kind),
        "scope": if row.is_namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": row.singular,
        "verbs": row.verbs,
    });
    if !row.short_names.is_empty() {
        value["shortNames"] = json!(row.short_names);
    }
    if !row.categories.is_empty() {
        value["categories"] = json!(row.categories);
    }
    if !row.subresources.is_empty() {
        let subresources = row.subresources.iter().map(|sub| {
            let (group, version) = match sub.version.as_str() {
                "" => (row.group.as_str(), row.version.as_str()),
                version => (sub.group.as_str(), version),
            };
            json!({"subresource": sub.name, "responseKind": kind(group, version, &sub.kind), "verbs": sub.verbs})
        });
        value["subresources"] = subresources.collect();
    }
    value
}
