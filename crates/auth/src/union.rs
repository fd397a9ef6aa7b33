//! Several authorizers as one.

use std::sync::Arc;

use crate::user::MASTERS_GROUP;
use crate::{Attributes, Authorizer, Decision, User, UserRules};

/// Lets `system:masters` do everything.
pub struct Masters;

impl Authorizer for Masters {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        match attributes.user.is_in(MASTERS_GROUP) {
            true => Decision::Allow(String::new()),
            false => Decision::NoOpinion(String::new()),
        }
    }

    fn rules_for(&self, user: &User, _namespace: &str) -> UserRules {
        if !user.is_in(MASTERS_GROUP) {
            return UserRules::default();
        }
        let all = || vec!["*".to_owned()];
        UserRules {
            resource_rules: vec![crate::ResourceRule {
                verbs: all(),
                api_groups: all(),
                resources: all(),
                ..Default::default()
            }],
            non_resource_rules: vec![crate::NonResourceRule { verbs: all(), non_resource_urls: all() }],
            ..UserRules::default()
        }
    }
}

/// Asks authorizers in order until one allows or denies.
pub struct Union(pub Vec<Arc<dyn Authorizer>>);

impl Authorizer for Union {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        let mut reasons = Vec::new();
        for authorizer in &self.0 {
            match authorizer.authorize(attributes) {
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(reason),
                decision => return decision,
            }
        }
        Decision::NoOpinion(reasons.join("\n"))
    }

    fn rules_for(&self, user: &User, namespace: &str) -> UserRules {
        let mut all = UserRules::default();
        let mut errors = Vec::new();
        for authorizer in &self.0 {
            let mut rules = authorizer.rules_for(user, namespace);
            all.resource_rules.append(&mut rules.resource_rules);
            all.non_resource_rules.append(&mut rules.non_resource_rules);
            all.incomplete |= rules.incomplete;
            errors.extend(Some(rules.evaluation_error).filter(|error| !error.is_empty()));
        }
        all.evaluation_error = errors.join(", ");
        all
    }
}
