//! What quotas limit and what objects use of them. Pure; the admission plugin and the controller share it.

mod scopes;
mod usage;

use std::collections::BTreeMap;

use machinery::quantity::Quantity;
use serde_json::{Value, json};

use crate::core::pod::totals::{Amounts, amounts};
use crate::value::Access;
use scopes::{PodScopes, Requirement};

pub use usage::{can_grow, qualified, unspecified};

/// Amounts by the names that quotas use: `pods`, `requests.cpu`, `count/deployments.apps`.
pub type Usage = Amounts;

/// What a quota says.
#[derive(Clone, Debug)]
pub struct Quota {
    pub name: String,
    /// The limits.
    pub hard: Usage,
    scopes: Vec<Requirement>,
}

/// What one object uses, of whatever quota, and which scopes it is in.
#[derive(Clone, Debug)]
pub struct Profile {
    usage: Usage,
    /// Only pods are in scopes.
    pod: Option<PodScopes>,
}

impl Profile {
    /// Of an object of `resource` in `group`.
    pub fn of(group: &str, resource: &str, object: &Value) -> Self {
        let is_pod = group.is_empty() && resource == "pods";
        Self { usage: usage::of(group, resource, object), pod: is_pod.then(|| PodScopes::of(object)) }
    }
}

impl Quota {
    /// Reads a `ResourceQuota`.
    pub fn read(object: &Value) -> Self {
        Self {
            name: object.text("/metadata/name").to_owned(),
            hard: amounts(object.at("/spec/hard")),
            scopes: scopes::requirements(object.at("/spec")),
        }
    }

    /// The resources that the names of the limits are about: group and plural.
    pub fn counted(&self) -> Vec<(&str, &str)> {
        usage::counted(self.hard.keys().map(String::as_str))
    }

    /// Whether an object is in all scopes of the quota.
    pub fn selects(&self, profile: &Profile) -> bool {
        match &profile.pod {
            Some(pod) => self.scopes.iter().all(|scope| scope.holds(pod)),
            None => self.scopes.is_empty(),
        }
    }

    /// What of an object counts.
    pub fn charge(&self, profile: &Profile) -> Usage {
        if !self.selects(profile) {
            return Usage::new();
        }
        let limited = profile.usage.iter().filter(|(name, _)| self.hard.contains_key(*name));
        limited.map(|(name, amount)| (name.clone(), *amount)).collect()
    }

    /// What objects use together of every limit; nothing is zero.
    pub fn used<'a>(&self, profiles: impl IntoIterator<Item = &'a Profile>) -> Usage {
        let zero = Quantity::from_units(0);
        let mut total: Usage = BTreeMap::new();
        for profile in profiles.into_iter().filter(|profile| self.selects(profile)) {
            for (name, amount) in profile.usage.iter().filter(|(name, _)| self.hard.contains_key(*name)) {
                match total.get_mut(name) {
                    Some(sum) => *sum = *sum + *amount,
                    None => drop(total.insert(name.clone(), *amount)),
                }
            }
        }
        for name in self.hard.keys().filter(|name| !total.contains_key(*name)).collect::<Vec<_>>() {
            total.insert(name.clone(), zero);
        }
        total
    }

    /// What goes beyond when `more` is added to `used`, in upstream's words; `None` when nothing does.
    pub fn excess(&self, more: &Usage, used: &Usage) -> Option<String> {
        let zero = Quantity::from_units(0);
        let over: Vec<(&String, [String; 3])> = more
            .iter()
            .filter_map(|(name, amount)| {
                let (used, limit) = (*used.get(name).unwrap_or(&zero), *self.hard.get(name)?);
                let texts = || [amount.to_string(), used.to_string(), limit.to_string()];
                (used + *amount > limit).then(|| (name, texts()))
            })
            .collect();
        if over.is_empty() {
            return None;
        }
        let list = |column: usize| {
            let texts = over.iter().map(|(name, amounts)| format!("{name}={}", amounts[column]));
            texts.collect::<Vec<_>>().join(",")
        };
        Some(format!("requested: {}, used: {}, limited: {}", list(0), list(1), list(2)))
    }
}

/// What is used more than before.
pub fn growth(usage: Usage, before: &Usage) -> Usage {
    let more = usage.into_iter().map(|(name, amount)| match before.get(&name) {
        Some(known) => (name, amount - *known),
        None => (name, amount),
    });
    more.filter(|(_, amount)| !amount.is_zero() && !amount.is_negative()).collect()
}

/// The status that a quota should have; `None` when it has it.
pub fn status(quota: &Value, used: &Usage) -> Option<Value> {
    let used: BTreeMap<_, _> = used.iter().map(|(name, amount)| (name, amount.to_string())).collect();
    let hard = quota.at("/spec/hard").as_object().cloned().unwrap_or_default();
    let wanted = json!({"hard": hard, "used": used});
    let same = |field: &str| {
        let stored = quota.at("/status").at(field);
        amounts(stored) == amounts(wanted.at(field)) && stored.members("").count() == hard.len()
    };
    (!same("/hard") || !same("/used")).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(spec: Value) -> Quota {
        Quota::read(&json!({"metadata": {"name": "q"}, "spec": spec}))
    }

    fn shown(usage: &Usage) -> String {
        usage.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_is_beyond_a_quota_is_named() {
        let quota = quota(json!({"hard": {"pods": "1", "requests.cpu": "1"}}));
        let pod =
            json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "600m"}}}]}});
        let more = quota.charge(&Profile::of("", "pods", &pod));
        assert_eq!(quota.excess(&more, &Usage::new()), None);
        assert_eq!(
            quota.excess(&more, &more).unwrap(),
            "requested: pods=1,requests.cpu=600m, used: pods=1,requests.cpu=600m, limited: pods=1,requests.cpu=1"
        );
    }

    #[test]
    fn usage_is_the_sum_of_what_is_selected() {
        let hard = json!({"pods": "5", "requests.cpu": "4", "services": "1"});
        let pod = |cpu: &str, phase: &str| {
            let spec = json!({"containers": [{"resources": {"requests": {"cpu": cpu}}}]});
            Profile::of("", "pods", &json!({"spec": spec, "status": {"phase": phase}}))
        };
        let service = Profile::of("", "services", &json!({"spec": {"type": "ClusterIP"}}));
        let all = [pod("1", "Running"), pod("500m", "Pending"), pod("7", "Succeeded"), service];
        assert_eq!(shown(&quota(json!({"hard": hard})).used(&all)), "pods=2 requests.cpu=1500m services=1");
        let scoped = quota(json!({"hard": hard, "scopes": ["BestEffort"]}));
        assert_eq!(shown(&scoped.used(&all)), "pods=0 requests.cpu=0 services=0");
    }

    #[test]
    fn growth_is_what_is_more() {
        let amount = Quantity::from_units;
        let usage = |a, b| Usage::from([("a".to_owned(), amount(a)), ("b".to_owned(), amount(b))]);
        assert_eq!(shown(&growth(usage(3, 1), &usage(1, 2))), "a=2");
    }

    #[test]
    fn a_status_is_written_when_it_differs() {
        let used = Usage::from([("cpu".to_owned(), Quantity::from_milli(500))]);
        let quota = |status: Value| json!({"spec": {"hard": {"cpu": "1"}}, "status": status});
        let right = json!({"hard": {"cpu": "1"}, "used": {"cpu": "0.5"}});
        assert_eq!(status(&quota(right), &used), None, "equal amounts may be written differently");
        for wrong in [
            json!({}),
            json!({"hard": {"cpu": "2"}, "used": {"cpu": "500m"}}),
            json!({"hard": {"cpu": "1"}, "used": {}}),
            json!({"hard": {"cpu": "1", "pods": "1"}, "used": {"cpu": "500m"}}),
        ] {
            let wanted = json!({"hard": {"cpu": "1"}, "used": {"cpu": "500m"}});
            assert_eq!(status(&quota(wrong.clone()), &used), Some(wanted), "{wrong}");
        }
    }
}
