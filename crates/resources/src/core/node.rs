//! Nodes.

use jiff::Timestamp;
use machinery::{FieldError, Object};
use serde_json::Value;

use crate::check::Errors;
use crate::table_format::none_if_empty;
use crate::value::{Access, Fill};
use crate::{Context, Strategy, names, row};

pub struct Nodes;

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

impl Strategy for Nodes {
    fn default(&self, object: &mut Value) {
        if let Some(status) = object.existing("status")
            && status.has("/capacity")
        {
            let capacity = status.at("/capacity").clone();
            status.default_absent("allocatable", capacity);
        }
    }

    /// A kubelet registers itself with its status.
    fn prepare_create(&self, _context: &Context, object: &mut Value) {
        object.child("spec");
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        for (index, taint) in object.items("/spec/taints").iter().enumerate() {
            let path = format!("spec.taints[{index}]");
            errors.name(&format!("{path}.key"), taint.text("/key"), machinery::selector::validate_label_key);
            let effects = ["NoExecute", "NoSchedule", "PreferNoSchedule"];
            errors.required_one_of(&format!("{path}.effect"), taint.text("/effect"), &effects);
            let same = |other: &&Value| {
                other.text("/key") == taint.text("/key") && other.text("/effect") == taint.text("/effect")
            };
            if object.items("/spec/taints").iter().take(index).any(|other| same(&other)) {
                errors.push(FieldError::duplicate(path, taint));
            }
        }
        for (index, range) in object.items("/spec/podCIDRs").iter().enumerate() {
            let text = range.as_str().unwrap_or_default();
            if text.parse::<ipnet::IpNet>().is_err() {
                let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
                errors.invalid(format!("spec.podCIDRs[{index}]"), text, detail);
            }
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        errors.extend(self.validate_create(new));
        let assigned = !old.items("/spec/podCIDRs").is_empty();
        if assigned && new.at("/spec/podCIDRs") != old.at("/spec/podCIDRs") {
            errors
                .forbidden("spec.podCIDRs", "node updates may not change podCIDR except from \"\" to valid");
        }
        let provider = old.text("/spec/providerID");
        if !provider.is_empty() && provider != new.text("/spec/providerID") {
            errors.forbidden(
                "spec.providerID",
                "node updates may not change providerID except from \"\" to valid",
            );
        }
        errors.into_vec()
    }

    fn fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        let object = object.value();
        vec![("spec.unschedulable", object.flag("/spec/unschedulable").to_string())]
    }

    fn field_names(&self) -> &'static [&'static str] {
        &["spec.unschedulable"]
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        names::dns_subdomain(name)
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        let address = |kind: &str| {
            let found =
                object.items("/status/addresses").iter().find(|address| address.text("/type") == kind);
            none_if_empty(found.map_or("", |address| address.text("/address"))).into()
        };
        vec![
            row::name(object),
            state(object).into(),
            roles(object).into(),
            row::created(now, object),
            row::text(object, "/status/nodeInfo/kubeletVersion", ""),
            address("InternalIP"),
            address("ExternalIP"),
            row::text(object, "/status/nodeInfo/osImage", "<unknown>"),
            row::text(object, "/status/nodeInfo/kernelVersion", "<unknown>"),
            row::text(object, "/status/nodeInfo/containerRuntimeVersion", "<unknown>"),
        ]
    }
}

fn state(object: &Value) -> String {
    let ready =
        object.items("/status/conditions").iter().find(|condition| condition.text("/type") == "Ready");
    let text = match ready.map(|condition| condition.text("/status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    if object.flag("/spec/unschedulable") { format!("{text},SchedulingDisabled") } else { text.to_owned() }
}

fn roles(object: &Value) -> String {
    let mut roles: Vec<_> = object
        .members("/metadata/labels")
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_PREFIX) {
            Some(role) => Some(role),
            None if key == ROLE_LABEL => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    none_if_empty(&roles.join(","))
}
