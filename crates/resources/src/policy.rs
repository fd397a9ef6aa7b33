//! PodDisruptionBudgets and NetworkPolicies.

use jiff::Timestamp;
use machinery::FieldError;
use serde_json::{Value, json};

use crate::check::Errors;
use crate::table_format::selector;
use crate::value::{Access, Fill};
use crate::{Strategy, row};

pub struct PodDisruptionBudgets;

impl Strategy for PodDisruptionBudgets {
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let spec = object.at("/spec");
        if spec.has("/minAvailable") && spec.has("/maxUnavailable") {
            errors.invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set");
        }
        errors.count_or_percent("spec.minAvailable", spec.at("/minAvailable"));
        errors.count_or_percent("spec.maxUnavailable", spec.at("/maxUnavailable"));
        errors.selector("spec.selector", spec.at("/selector"));
        let policies = ["AlwaysAllow", "IfHealthyBudget"];
        errors.one_of("spec.unhealthyPodEvictionPolicy", spec.text("/unhealthyPodEvictionPolicy"), &policies);
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        self.validate_create(new)
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        vec![
            row::name(object),
            row::text(object, "/spec/minAvailable", "N/A"),
            row::text(object, "/spec/maxUnavailable", "N/A"),
            row::number(object, "/status/disruptionsAllowed"),
            row::created(now, object),
        ]
    }
}

pub struct NetworkPolicies;

impl Strategy for NetworkPolicies {
    fn default(&self, object: &mut Value) {
        let spec = object.child("spec");
        for (list, _) in [("ingress", "from"), ("egress", "to")] {
            for rule in spec.each(list) {
                rule.each("ports").for_each(|port| port.default_zero("protocol", "TCP"));
            }
        }
        if spec.items("/policyTypes").is_empty() {
            let has_egress = !spec.items("/egress").is_empty();
            spec.set(
                "policyTypes",
                if has_egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) },
            );
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let spec = object.at("/spec");
        errors.selector("spec.podSelector", spec.at("/podSelector"));
        for (list, peers) in [("ingress", "from"), ("egress", "to")] {
            for (index, rule) in spec.items(&format!("/{list}")).iter().enumerate() {
                network_rule(&mut errors, &format!("spec.{list}[{index}]"), rule, peers);
            }
        }
        for (index, kind) in spec.items("/policyTypes").iter().enumerate() {
            let kind = kind.as_str().unwrap_or_default();
            errors.one_of(&format!("spec.policyTypes[{index}]"), kind, &["Egress", "Ingress"]);
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        self.validate_create(new)
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        vec![row::name(object), selector(object.at("/spec/podSelector")).into(), row::created(now, object)]
    }
}

fn network_rule(errors: &mut Errors, path: &str, rule: &Value, peers: &str) {
    for (index, port) in rule.items("/ports").iter().enumerate() {
        let path = format!("{path}.ports[{index}]");
        errors.one_of(&format!("{path}.protocol"), port.text("/protocol"), &["SCTP", "TCP", "UDP"]);
        if port.has("/port") {
            errors.port(&format!("{path}.port"), port.at("/port"));
        }
        if let (Some(from), Some(to)) = (port.int("/port"), port.int("/endPort"))
            && to < from
        {
            errors.invalid(format!("{path}.endPort"), to, "must be greater than or equal to `port`");
        }
    }
    for (index, peer) in rule.items(&format!("/{peers}")).iter().enumerate() {
        let path = format!("{path}.{peers}[{index}]");
        let block = peer.at("/ipBlock");
        let selects = peer.has("/podSelector") || peer.has("/namespaceSelector");
        if !selects && block.is_null() {
            errors.required(&path, "must specify a peer");
        } else if selects && !block.is_null() {
            errors.forbidden(&path, "may not specify both ipBlock and another peer");
        }
        if !block.is_null() && block.text("/cidr").parse::<ipnet::IpNet>().is_err() {
            let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            errors.invalid(format!("{path}.ipBlock.cidr"), block.text("/cidr"), detail);
        }
    }
}
