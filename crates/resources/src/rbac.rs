//! Roles and their bindings.

use jiff::Timestamp;
use machinery::FieldError;
use serde_json::Value;

use crate::check::Errors;
use crate::value::{Access, Fill};
use crate::{Context, Strategy, names, row};

const GROUP: &str = "rbac.authorization.k8s.io";

/// `Role` and, with `cluster`, `ClusterRole`.
pub struct Roles {
    pub cluster: bool,
}

impl Strategy for Roles {
    fn prepare_create(&self, _context: &Context, _object: &mut Value) {}

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        for (index, rule) in object.items("/rules").iter().enumerate() {
            policy_rule(&mut errors, &format!("rules[{index}]"), rule, self.cluster);
        }
        for (index, selector) in object.items("/aggregationRule/clusterRoleSelectors").iter().enumerate() {
            errors.selector(&format!("aggregationRule.clusterRoleSelectors[{index}]"), selector);
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        self.validate_create(new)
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        names::path_segment(name)
    }
}

fn policy_rule(errors: &mut Errors, path: &str, rule: &Value, cluster: bool) {
    if rule.items("/verbs").is_empty() {
        errors.required(format!("{path}.verbs"), "verbs must contain at least one value");
    }
    let has_urls = !rule.items("/nonResourceURLs").is_empty();
    let has_resources =
        ["/apiGroups", "/resources", "/resourceNames"].iter().any(|list| !rule.items(list).is_empty());
    if has_urls {
        if !cluster {
            let detail = "namespaced rules cannot apply to non-resource URLs";
            errors.invalid(format!("{path}.nonResourceURLs"), rule.at("/nonResourceURLs"), detail);
        }
        if has_resources {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            errors.invalid(format!("{path}.nonResourceURLs"), rule.at("/nonResourceURLs"), detail);
        }
        return;
    }
    if rule.items("/apiGroups").is_empty() {
        errors.required(format!("{path}.apiGroups"), "resource rules must supply at least one api group");
    }
    if rule.items("/resources").is_empty() {
        errors.required(format!("{path}.resources"), "resource rules must supply at least one resource");
    }
}

/// `RoleBinding` and, with `cluster`, `ClusterRoleBinding`.
pub struct Bindings {
    pub cluster: bool,
}

impl Strategy for Bindings {
    fn default(&self, object: &mut Value) {
        if let Some(role) = object.existing("roleRef") {
            role.default_zero("apiGroup", GROUP);
        }
        for subject in object.each("subjects") {
            if matches!(subject.text("/kind"), "User" | "Group") {
                subject.default_zero("apiGroup", GROUP);
            }
        }
    }

    fn prepare_create(&self, _context: &Context, _object: &mut Value) {}

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let role = object.at("/roleRef");
        errors.one_of("roleRef.apiGroup", role.text("/apiGroup"), &[GROUP]);
        let kinds: &[&str] = if self.cluster { &["ClusterRole"] } else { &["ClusterRole", "Role"] };
        match role.text("/kind") {
            "" => errors.push(FieldError::not_supported("roleRef.kind", "", kinds)),
            kind => errors.one_of("roleRef.kind", kind, kinds),
        }
        errors.name("roleRef.name", role.text("/name"), names::path_segment);
        for (index, subject) in object.items("/subjects").iter().enumerate() {
            binding_subject(&mut errors, &format!("subjects[{index}]"), subject, self.cluster);
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        errors.extend(self.validate_create(new));
        if new.at("/roleRef") != old.at("/roleRef") {
            errors.invalid("roleRef", new.at("/roleRef"), "cannot change roleRef");
        }
        errors.into_vec()
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        names::path_segment(name)
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        let names = |kind: &str| {
            let of_kind = object.items("/subjects").iter().filter(|subject| subject.text("/kind") == kind);
            let texts: Vec<_> = of_kind
                .map(|subject| match (kind, subject.text("/namespace")) {
                    ("ServiceAccount", namespace) => format!("{namespace}/{}", subject.text("/name")),
                    _ => subject.text("/name").to_owned(),
                })
                .collect();
            Value::from(texts.join(", "))
        };
        vec![
            row::name(object),
            format!("{}/{}", object.text("/roleRef/kind"), object.text("/roleRef/name")).into(),
            row::created(now, object),
            names("User"),
            names("Group"),
            names("ServiceAccount"),
        ]
    }
}

fn binding_subject(errors: &mut Errors, path: &str, subject: &Value, cluster: bool) {
    let name = subject.text("/name");
    if name.is_empty() {
        errors.required(format!("{path}.name"), "");
    }
    match subject.text("/kind") {
        "ServiceAccount" => {
            errors.format(&format!("{path}.name"), name, names::dns_subdomain);
            errors.one_of(&format!("{path}.apiGroup"), subject.text("/apiGroup"), &[""]);
            if cluster && subject.text("/namespace").is_empty() {
                errors.required(format!("{path}.namespace"), "");
            }
        }
        "User" | "Group" => errors.one_of(&format!("{path}.apiGroup"), subject.text("/apiGroup"), &[GROUP]),
        kind => {
            let kinds = ["Group", "ServiceAccount", "User"];
            errors.push(FieldError::not_supported(format!("{path}.kind"), kind, &kinds));
        }
    }
}
