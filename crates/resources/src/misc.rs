//! Small kinds that differ only a little: leases, priorities, runtime classes, certificates, claims of devices.

use jiff::Timestamp;
use machinery::quantity::Quantity;
use machinery::{FieldError, Object};
use serde_json::{Value, json};

use crate::check::Errors;
use crate::table_format::human_duration;
use crate::value::{Access, Fill};
use crate::{Context, Strategy, names, row};

pub struct Leases;

impl Strategy for Leases {
    fn prepare_create(&self, _context: &Context, _object: &mut Value) {}

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        errors.at_least("spec.leaseDurationSeconds", object.int("/spec/leaseDurationSeconds"), 1);
        errors.at_least("spec.leaseTransitions", object.int("/spec/leaseTransitions"), 0);
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        self.validate_create(new)
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        vec![row::name(object), row::text(object, "/spec/holderIdentity", ""), row::created(now, object)]
    }
}

/// What nodes and pods use. Read only.
pub struct Metrics;

impl Strategy for Metrics {
    fn cells(&self, _now: Timestamp, object: &Value) -> Vec<Value> {
        // A pod uses what its containers use together.
        let usages: Vec<&Value> = match object.get("containers").and_then(Value::as_array) {
            Some(containers) => containers.iter().filter_map(|container| container.get("usage")).collect(),
            None => object.get("usage").into_iter().collect(),
        };
        let total = |resource: &str| {
            let read = usages.iter().filter_map(|usage| Quantity::read(usage.get(resource)?));
            read.fold((0i64, 0i64), |(milli, units), one| {
                (milli.saturating_add(one.milli_value()), units.saturating_add(one.value()))
            })
        };
        let cpu = Quantity::from_milli(total("cpu").0).to_string();
        let memory = Quantity::from_bytes(total("memory").1).to_string();
        vec![row::name(object), cpu.into(), memory.into(), row::text(object, "/window", "")]
    }
}

pub struct PriorityClasses;

const HIGHEST_USER_PRIORITY: i64 = 1_000_000_000;

impl Strategy for PriorityClasses {
    fn default(&self, object: &mut Value) {
        object.default_absent("preemptionPolicy", "PreemptLowerPriority");
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let name = object.text("/metadata/name");
        let value = object.int("/value").unwrap_or(0);
        let is_builtin = matches!(
            (name, value),
            ("system-node-critical", 2_000_001_000) | ("system-cluster-critical", 2_000_000_000)
        );
        if name.starts_with("system-") && !is_builtin {
            let detail = "priority class names with 'system-' prefix are reserved for system use only";
            errors.forbidden("metadata.name", detail);
        } else if value > HIGHEST_USER_PRIORITY && !is_builtin {
            let detail =
                format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}");
            errors.forbidden("value", &detail);
        }
        let policies = ["Never", "PreemptLowerPriority"];
        errors.one_of("preemptionPolicy", object.text("/preemptionPolicy"), &policies);
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if new.at("/value") != old.at("/value") {
            errors.forbidden("value", "may not be changed in an update.");
        }
        errors.immutable("preemptionPolicy", new.at("/preemptionPolicy"), old.at("/preemptionPolicy"));
        errors.into_vec()
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        vec![
            row::name(object),
            row::number(object, "/value"),
            object.flag("/globalDefault").into(),
            row::created(now, object),
            row::text(object, "/preemptionPolicy", "PreemptLowerPriority"),
        ]
    }
}

pub struct RuntimeClasses;

impl Strategy for RuntimeClasses {
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        match object.text("/handler") {
            "" => errors.invalid("handler", "", names::dns_label("").err().unwrap_or_default()),
            handler => errors.format("handler", handler, names::dns_label),
        }
        for (name, quantity) in object.members("/overhead/podFixed") {
            errors.quantity(&format!("overhead.podFixed[{name}]"), quantity);
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        errors.immutable("handler", new.at("/handler"), old.at("/handler"));
        errors.into_vec()
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        vec![row::name(object), row::text(object, "/handler", ""), row::created(now, object)]
    }
}

pub struct CertificateSigningRequests;

const KUBE_SIGNERS: [&str; 3] = [
    "kubernetes.io/kube-apiserver-client",
    "kubernetes.io/kube-apiserver-client-kubelet",
    "kubernetes.io/kubelet-serving",
];

impl Strategy for CertificateSigningRequests {
    fn prepare_create(&self, context: &Context, object: &mut Value) {
        object.set("status", json!({}));
        let spec = object.child("spec");
        spec.set("username", context.user.clone());
        spec.set("groups", context.groups.clone());
    }

    fn prepare_update(&self, _context: &Context, new: &mut Value, old: &Value) {
        new.copy_from(old, "spec");
        new.copy_from(old, "status");
    }

    fn prepare_status_update(&self, context: &Context, new: &mut Value, old: &Value) {
        new.copy_from(old, "spec");
        let conditions = keep_decisions(new.items("/status/conditions"), old.items("/status/conditions"));
        if !conditions.is_empty() {
            new.child("status").set("conditions", conditions);
        }
        stamp_conditions(context, new);
    }

    fn prepare_subresource_update(
        &self,
        context: &Context,
        _subresource: &str,
        new: &mut Value,
        old: &Value,
    ) {
        let wanted = new.at("/status/conditions").clone();
        new.copy_from(old, "spec");
        new.copy_from(old, "status");
        if !wanted.is_null() {
            new.child("status").set("conditions", wanted);
        }
        stamp_conditions(context, new);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let spec = object.at("/spec");
        if spec.text("/request").is_empty() {
            errors.required("spec.request", "");
        }
        if spec.items("/usages").is_empty() {
            errors.required("spec.usages", "");
        }
        let signer = spec.text("/signerName");
        match signer {
            "" => errors.required("spec.signerName", ""),
            signer if !signer.contains('/') => {
                let detail =
                    "must be a fully qualified domain and path of the form 'example.com/signer-name'";
                errors.invalid("spec.signerName", signer, detail);
            }
            _ => {}
        }
        if spec.int("/expirationSeconds").is_some_and(|seconds| seconds < 600) {
            let detail = "may not specify a duration less than 600 seconds (10 minutes)";
            errors.invalid("spec.expirationSeconds", spec.at("/expirationSeconds"), detail);
        }
        errors.into_vec()
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let has = |object: &Value, kind: &str| {
            object.items("/status/conditions").iter().any(|c| c.text("/type") == kind)
        };
        for kind in ["Approved", "Denied"] {
            if has(old, kind) && !has(new, kind) {
                errors.forbidden(
                    "status.conditions",
                    &format!("updates may not remove a condition of type {kind:?}"),
                );
            }
        }
        if has(new, "Approved") && has(new, "Denied") {
            errors.invalid(
                "status.conditions",
                "Denied",
                "Approved and Denied conditions are mutually exclusive",
            );
        }
        errors.into_vec()
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        names::anything(name)
    }

    fn fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        let object = object.value();
        vec![("spec.signerName", object.text("/spec/signerName").to_owned())]
    }

    fn field_names(&self) -> &'static [&'static str] {
        &["spec.signerName"]
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        let duration = object.int("/spec/expirationSeconds").map_or("<none>".to_owned(), human_duration);
        vec![
            row::name(object),
            row::created(now, object),
            row::text(object, "/spec/signerName", "<none>"),
            row::text(object, "/spec/username", ""),
            duration.into(),
            csr_state(object).into(),
        ]
    }
}

/// The conditions of a status update: decisions stay as they are, everything else is the writer's.
fn keep_decisions(new: &[Value], old: &[Value]) -> Vec<Value> {
    let is_decision = |condition: &&Value| matches!(condition.text("/type"), "Approved" | "Denied");
    let decisions: Vec<&Value> = old.iter().filter(is_decision).collect();
    let mut kept: Vec<Value> = new
        .iter()
        .filter_map(|condition| match is_decision(&condition) {
            true => decisions.iter().copied().find(|known| known.at("/type") == condition.at("/type")),
            false => Some(condition),
        })
        .cloned()
        .collect();
    let is_missing = |known: &&&Value| !kept.iter().any(|own| own.at("/type") == known.at("/type"));
    let missing: Vec<Value> = decisions.iter().filter(is_missing).map(|known| (*known).clone()).collect();
    kept.extend(missing);
    kept
}

/// Whether the cluster itself signs for a signer.
pub fn is_kube_signer(signer: &str) -> bool {
    KUBE_SIGNERS.contains(&signer)
}

fn stamp_conditions(context: &Context, object: &mut Value) {
    let now = context.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    if let Some(status) = object.existing("status") {
        for condition in status.each("conditions") {
            condition.default_zero("status", "True");
            condition.default_zero("lastUpdateTime", now.clone());
            condition.default_zero("lastTransitionTime", now.clone());
        }
    }
}

fn csr_state(object: &Value) -> String {
    let has = |kind: &str| object.items("/status/conditions").iter().any(|c| c.text("/type") == kind);
    let mut parts = vec![match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }];
    if has("Failed") {
        parts.push("Failed");
    }
    if !object.text("/status/certificate").is_empty() {
        parts.push("Issued");
    }
    parts.join(",")
}

pub struct ComponentStatuses;

impl Strategy for ComponentStatuses {
    fn cells(&self, _now: Timestamp, object: &Value) -> Vec<Value> {
        let healthy =
            object.items("/conditions").iter().find(|condition| condition.text("/type") == "Healthy");
        let (state, message, error) = match healthy {
            Some(condition) if condition.text("/status") == "True" => {
                ("Healthy", condition.text("/message"), "")
            }
            Some(condition) => ("Unhealthy", condition.text("/message"), condition.text("/error")),
            None => ("Unknown", "", ""),
        };
        vec![row::name(object), state.into(), message.into(), error.into()]
    }
}

/// Kinds whose row is a name and an age.
pub struct NameAndAge;

impl Strategy for NameAndAge {
    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        vec![row::name(object), row::created(now, object)]
    }
}

pub struct ResourceClaims;

impl Strategy for ResourceClaims {
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        errors.immutable("spec", new.at("/spec"), old.at("/spec"));
        errors.into_vec()
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        let mut states = Vec::new();
        if object.has("/metadata/deletionTimestamp") {
            states.push("deleted");
        }
        match object.has("/status/allocation") {
            true => states.push("allocated"),
            false if states.is_empty() => states.push("pending"),
            false => {}
        }
        if !object.items("/status/reservedFor").is_empty() {
            states.push("reserved");
        }
        vec![row::name(object), states.join(",").into(), row::created(now, object)]
    }
}

pub struct ResourceSlices;

impl Strategy for ResourceSlices {
    fn fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        let object = object.value();
        vec![
            ("spec.nodeName", object.text("/spec/nodeName").to_owned()),
            ("spec.driver", object.text("/spec/driver").to_owned()),
        ]
    }

    fn field_names(&self) -> &'static [&'static str] {
        &["spec.nodeName", "spec.driver"]
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        vec![
            row::name(object),
            row::text(object, "/spec/nodeName", "<unset>"),
            row::text(object, "/spec/driver", ""),
            row::text(object, "/spec/pool/name", ""),
            row::created(now, object),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_update_decides_nothing() {
        let condition = |kind: &str, reason: &str| json!({"type": kind, "reason": reason});
        let old = [condition("Approved", "by-admin"), condition("Failed", "x")];
        let shown = |new: &[Value]| -> Vec<String> {
            let kept = keep_decisions(new, &old);
            kept.iter().map(|c| format!("{}:{}", c.text("/type"), c.text("/reason"))).collect()
        };
        assert_eq!(shown(&[]), ["Approved:by-admin"]);
        assert_eq!(
            shown(&[
                condition("Approved", "forged"),
                condition("Denied", "forged"),
                condition("StatusUpdate", "e2e")
            ]),
            ["Approved:by-admin", "StatusUpdate:e2e"]
        );
    }
}
