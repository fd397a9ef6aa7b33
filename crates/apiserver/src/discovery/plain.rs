//! `APIVersions`, `APIGroupList`, `APIGroup` and `APIResourceList`, derived from the table. Pure.

use resources::{Resource, Table};
use serde_json::{Value, json};

use crate::core::Core;

/// The groups and their versions, in table order; the core group has the empty name.
pub(super) fn group_versions(table: &Table) -> Vec<(String, Vec<String>)> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for row in table.rows() {
        let index = match groups.iter().position(|(group, _)| *group == row.group) {
            Some(index) => index,
            None => {
                groups.push((row.group.clone(), Vec::new()));
                groups.len() - 1
            }
        };
        let versions = &mut groups[index].1;
        if !versions.contains(&row.version) {
            versions.push(row.version.clone());
        }
    }
    for (_, versions) in &mut groups {
        versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
    }
    groups
}

/// Upstream's order of versions: stable before beta before alpha, then higher numbers first.
fn priority(version: &str) -> (u8, u64, u64) {
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    let major = digits(rest);
    let tail = &rest[major.len()..];
    let major = major.parse().unwrap_or(0);
    let minor = |stage: &str| tail.strip_prefix(stage).and_then(|number| number.parse().ok()).unwrap_or(0);
    match () {
        () if tail.is_empty() => (3, major, 0),
        () if tail.starts_with("beta") => (2, major, minor("beta")),
        () if tail.starts_with("alpha") => (1, major, minor("alpha")),
        () => (0, 0, 0),
    }
}

/// `/api`.
pub(super) fn versions(core: &Core) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": core.facts.advertised}],
    })
}

/// `/apis`.
pub(super) fn groups(table: &Table) -> Value {
    let groups: Vec<Value> = group_versions(table)
        .into_iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, versions)| group_value(&group, &versions))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`.
pub(super) fn group(table: &Table, name: &str) -> Option<Value> {
    let (group, versions) =
        group_versions(table).into_iter().find(|(group, _)| group == name && !name.is_empty())?;
    let mut value = group_value(&group, &versions);
    value["kind"] = json!("APIGroup");
    value["apiVersion"] = json!("v1");
    Some(value)
}

fn group_value(group: &str, versions: &[String]) -> Value {
    let version =
        |version: &String| json!({"groupVersion": format!("{group}/{version}"), "version": version});
    json!({
        "name": group,
        "versions": versions.iter().map(version).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(version),
    })
}

/// `/api/v1` and `/apis/GROUP/VERSION`.
pub(super) fn resources(table: &Table, group: &str, version: &str) -> Option<Value> {
    let rows: Vec<_> =
        table.rows().iter().filter(|row| row.group == group && row.version == version).collect();
    let first = rows.first()?;
    let list: Vec<Value> = rows.iter().flat_map(|row| resource_values(row)).collect();
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": first.api_version(),
        "resources": list,
    }))
}

fn resource_values(row: &Resource) -> Vec<Value> {
    let mut own = json!({
        "name": row.resource,
        "singularName": row.singular,
        "namespaced": row.is_namespaced(),
        "kind": row.kind,
        "verbs": row.verbs,
    });
    if !row.short_names.is_empty() {
        own["shortNames"] = json!(row.short_names);
    }
    if !row.categories.is_empty() {
        own["categories"] = json!(row.categories);
    }
    let mut values = vec![own];
    for sub in &row.subresources {
        let mut value = json!({
            "name": format!("{}/{}", row.resource, sub.name),
            "singularName": "",
            "namespaced": row.is_namespaced(),
            "kind": sub.kind,
            "verbs": sub.verbs,
        });
        if !sub.version.is_empty() && (sub.group != row.group || sub.version != row.version) {
            value["group"] = json!(sub.group);
            value["version"] = json!(sub.version);
        }
        values.push(value);
    }
    values
}

/// `/`.
pub(super) fn paths(core: &Core) -> Value {
    let mut paths = vec!["/.well-known/openid-configuration".to_owned(), "/api".to_owned()];
    for (group, versions) in group_versions(&core.table.load()) {
        if group.is_empty() {
            paths.extend(versions.iter().map(|version| format!("/api/{version}")));
            paths.push("/apis".to_owned());
            continue;
        }
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|version| format!("/apis/{group}/{version}")));
    }
    let rest = [
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ];
    paths.extend(rest.map(str::to_owned));
    paths.sort();
    json!({"paths": paths})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_upstream() {
        let mut versions = vec!["v1alpha1", "v2beta1", "v1", "v10", "v2", "v1beta2", "odd"];
        versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
        assert_eq!(versions, ["v10", "v2", "v1", "v2beta1", "v1beta2", "v1alpha1", "odd"]);
    }
}
