//! One rule: what it allows and what it covers.

use serde::{Deserialize, Serialize};

use crate::Attributes;

const ALL: &str = "*";

/// `rbac.authorization.k8s.io` `PolicyRule`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    #[serde(
        rename = "nonResourceURLs",
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub non_resource_urls: Vec<String>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub verbs: Vec<String>,
}

/// Clients write `null` for an empty list.
fn nullable<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

impl Rule {
    /// Whether the rule allows the request.
    pub fn allows(&self, asked: &Attributes) -> bool {
        if !contains(&self.verbs, &asked.verb) {
            return false;
        }
        if !asked.is_resource() {
            return self.non_resource_urls.iter().any(|url| url_matches(url, &asked.path));
        }
        contains(&self.api_groups, &asked.group)
            && self.resources.iter().any(|rule| resource_matches(rule, &asked.resource, &asked.subresource))
            && (self.resource_names.is_empty() || self.resource_names.contains(&asked.name))
    }

    /// Whether the rule allows everything that `simple` allows, which has at most one value in each list.
    pub fn covers(&self, simple: &Self) -> bool {
        let all = |own: &[String], other: &[String]| other.iter().all(|value| contains(own, value));
        if !all(&self.verbs, &simple.verbs) {
            return false;
        }
        if let Some(url) = simple.non_resource_urls.first() {
            return self.non_resource_urls.iter().any(|own| url_matches(own, url));
        }
        let resource = |value: &String| {
            let (resource, subresource) = value.split_once('/').unwrap_or((value, ""));
            self.resources.iter().any(|own| own == value || resource_matches(own, resource, subresource))
        };
        let names = self.resource_names.is_empty()
            || (!simple.resource_names.is_empty()
                && simple.resource_names.iter().all(|n| self.resource_names.contains(n)));
        all(&self.api_groups, &simple.api_groups) && simple.resources.iter().all(resource) && names
    }

    /// The rule as rules with at most one value in each list.
    pub fn split(&self) -> Vec<Self> {
        let mut parts = Vec::new();
        for verb in &self.verbs {
            for url in &self.non_resource_urls {
                parts.push(Self { verbs: one(verb), non_resource_urls: one(url), ..Self::default() });
            }
            for group in &self.api_groups {
                for resource in &self.resources {
                    let part = Self {
                        verbs: one(verb),
                        api_groups: one(group),
                        resources: one(resource),
                        ..Self::default()
                    };
                    if self.resource_names.is_empty() {
                        parts.push(part.clone());
                    }
                    parts.extend(
                        self.resource_names
                            .iter()
                            .map(|name| Self { resource_names: one(name), ..part.clone() }),
                    );
                }
            }
        }
        parts
    }

    /// Upstream's short form: `{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}`.
    pub fn compact(&self) -> String {
        let mut parts = Vec::new();
        let mut add = |name: &str, values: &[String]| {
            if !values.is_empty() {
                let quoted: Vec<_> = values.iter().map(|value| format!("{value:?}")).collect();
                parts.push(format!("{name}:[{}]", quoted.join(" ")));
            }
        };
        add("NonResourceURLs", &self.non_resource_urls);
        add("APIGroups", &self.api_groups);
        add("Resources", &self.resources);
        add("ResourceNames", &self.resource_names);
        add("Verbs", &self.verbs);
        format!("{{{}}}", parts.join(", "))
    }
}

fn one(value: &str) -> Vec<String> {
    vec![value.to_owned()]
}

fn contains(list: &[String], value: &str) -> bool {
    list.iter().any(|own| own == ALL || own == value)
}

/// `*` is everything, `pods/log` a subresource, `*/scale` that subresource of everything.
fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == ALL {
        return true;
    }
    match rule.split_once('/') {
        None => subresource.is_empty() && rule == resource,
        Some((own, sub)) => !subresource.is_empty() && sub == subresource && (own == ALL || own == resource),
    }
}

fn url_matches(rule: &str, path: &str) -> bool {
    match rule.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => rule == path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &str, groups: &str, resources: &str, names: &str) -> Rule {
        let list = |text: &str| text.split_terminator(',').map(str::to_owned).collect::<Vec<_>>();
        let groups = groups.split(',').map(str::to_owned).collect();
        Rule {
            verbs: list(verbs),
            api_groups: groups,
            resources: list(resources),
            resource_names: list(names),
            ..Rule::default()
        }
    }

    fn asked(verb: &str, group: &str, resource: &str, name: &str) -> Attributes {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Attributes {
            verb: verb.into(),
            group: group.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            name: name.into(),
            ..Attributes::default()
        }
    }

    #[test]
    fn what_rules_allow() {
        let cases = [
            (rule("get", "", "pods", ""), asked("get", "", "pods", "a"), true),
            (rule("get", "", "pods", ""), asked("list", "", "pods", ""), false),
            (rule("get", "", "pods", ""), asked("get", "apps", "pods", "a"), false),
            (rule("get", "", "pods", ""), asked("get", "", "pods/log", "a"), false),
            (rule("get", "", "pods/log", ""), asked("get", "", "pods/log", "a"), true),
            (rule("get", "", "pods/log", ""), asked("get", "", "pods", "a"), false),
            (rule("get", "*", "*/scale", ""), asked("get", "apps", "deployments/scale", "a"), true),
            (rule("get", "*", "*/scale", ""), asked("get", "apps", "deployments", "a"), false),
            (rule("*", "*", "*", ""), asked("x", "y", "z/w", "v"), true),
            (rule("get", "", "pods", "a,b"), asked("get", "", "pods", "b"), true),
            (rule("get", "", "pods", "a,b"), asked("get", "", "pods", "c"), false),
            (rule("list", "", "pods", "a,b"), asked("list", "", "pods", ""), false),
        ];
        for (rule, asked, expected) in cases {
            assert_eq!(rule.allows(&asked), expected, "{} {asked:?}", rule.compact());
        }
        let urls = Rule {
            verbs: one("get"),
            non_resource_urls: vec!["/healthz".into(), "/apis/*".into()],
            ..Rule::default()
        };
        for (path, expected) in
            [("/healthz", true), ("/healthz/x", false), ("/apis/apps", true), ("/apis", false)]
        {
            let asked = Attributes { verb: "get".into(), path: path.into(), ..Attributes::default() };
            assert_eq!(urls.allows(&asked), expected, "{path}");
        }
    }

    #[test]
    fn what_rules_cover() {
        let cases = [
            (rule("get,list", "", "pods,pods/log", ""), rule("get", "", "pods/log", ""), true),
            (rule("get", "", "pods", ""), rule("get", "", "pods", "a"), true),
            (rule("get", "", "pods", "a"), rule("get", "", "pods", ""), false),
            (rule("get", "", "pods", "a"), rule("get", "", "pods", "a"), true),
            (rule("get", "", "pods", ""), rule("*", "", "pods", ""), false),
            (rule("*", "*", "*", ""), rule("*", "*", "*", ""), true),
            (rule("get", "", "*/scale", ""), rule("get", "", "pods/scale", ""), true),
        ];
        for (owner, wanted, expected) in cases {
            let covered = wanted.split().iter().all(|part| owner.covers(part));
            assert_eq!(covered, expected, "{} {}", owner.compact(), wanted.compact());
        }
    }
}
