//! Reads the tables.

use crate::rbac::Rule;

const READ: [&str; 3] = ["get", "list", "watch"];
const WRITE: [&str; 5] = ["create", "delete", "deletecollection", "patch", "update"];

/// Comes with the metrics, wherever they come from, and is a part of `view` like upstream's own parts.
pub const METRICS_READER: &str = "system:aggregated-metrics-reader";

/// A role of a table.
#[derive(Clone, Debug, Default)]
pub struct Role {
    /// `NAMESPACE/NAME` for roles of a namespace.
    pub name: String,
    pub rules: Vec<Rule>,
    /// The aggregated role that contains this one.
    pub aggregate_to: Option<String>,
    /// Whether this role is made of others.
    pub aggregates: bool,
}

impl Role {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }
}

/// The roles of a table.
pub fn parse(table: &str) -> Vec<Role> {
    let mut roles: Vec<Role> = Vec::new();
    for line in table.lines().filter(|line| !line.trim().is_empty()) {
        if !line.starts_with(' ') {
            let mut role = Role::new(line.trim());
            role.aggregate_to = match role.name.as_str() {
                METRICS_READER => Some("view".to_owned()),
                name => name.strip_prefix("system:aggregate-to-").map(str::to_owned),
            };
            roles.push(role);
        } else if let Some(role) = roles.last_mut() {
            role.rules.extend(rule(line));
        }
    }
    roles
}

fn rule(line: &str) -> Option<Rule> {
    let mut words = line.split_whitespace();
    let first = words.next()?;
    if first == "events" {
        return rule("create,patch,update -,events.k8s.io events");
    }
    let verbs = verbs(first);
    let second = words.next()?;
    let Some(resources) = words.next() else {
        return Some(Rule { verbs, non_resource_urls: list(second), ..Rule::default() });
    };
    let names = words.next().map(list).unwrap_or_default();
    Some(Rule {
        verbs,
        api_groups: list(second),
        resources: list(resources),
        resource_names: names,
        ..Rule::default()
    })
}

fn verbs(word: &str) -> Vec<String> {
    let mut verbs: Vec<String> = Vec::new();
    for verb in word.split(',') {
        match verb {
            "read" => verbs.extend(READ.map(str::to_owned)),
            "write" => verbs.extend(WRITE.map(str::to_owned)),
            verb => verbs.push(verb.to_owned()),
        }
    }
    verbs.sort();
    verbs
}

fn list(word: &str) -> Vec<String> {
    word.split(',').map(|item| if item == "-" { String::new() } else { item.to_owned() }).collect()
}
