//! StatefulSets.

use jiff::Timestamp;
use machinery::FieldError;
use serde_json::{Value, json};

use super::workload;
use crate::check::Errors;
use crate::core::persistent_volume_claim;
use crate::core::pod::warnings;
use crate::table_format::containers;
use crate::value::{Access, Fill};
use crate::{Strategy, row};

pub struct StatefulSets;

const MUTABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];
const IMMUTABLE: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";

/// The object with a volume for each claim template, as its pods have, which containers may mount.
fn with_claims(object: &Value) -> Value {
    let mut object = object.clone();
    let names: Vec<String> = object
        .items("/spec/volumeClaimTemplates")
        .iter()
        .map(|claim| claim.text("/metadata/name").to_owned())
        .collect();
    let mut volumes = object.items("/spec/template/spec/volumes").to_vec();
    volumes.retain(|volume| !names.iter().any(|name| volume.text("/name") == name));
    volumes
        .extend(names.iter().map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}})));
    object.child("spec").child("template").child("spec").set("volumes", volumes);
    object
}

impl Strategy for StatefulSets {
    fn default(&self, object: &mut Value) {
        let spec = object.child("spec");
        spec.default_absent("replicas", 1);
        spec.default_absent("revisionHistoryLimit", 10);
        spec.default_zero("podManagementPolicy", "OrderedReady");
        let strategy = spec.child("updateStrategy");
        strategy.default_zero("type", "RollingUpdate");
        if strategy.text("/type") == "RollingUpdate" {
            strategy.child("rollingUpdate").default_absent("partition", 0);
        }
        let retention = spec.child("persistentVolumeClaimRetentionPolicy");
        retention.default_zero("whenDeleted", "Retain");
        retention.default_zero("whenScaled", "Retain");
        for claim in spec.each("volumeClaimTemplates") {
            claim.set("apiVersion", "v1");
            claim.set("kind", "PersistentVolumeClaim");
            persistent_volume_claim::defaults(claim);
            claim.set("status", json!({"phase": "Pending"}));
        }
        workload::template_defaults(object);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let numbers = ["replicas", "minReadySeconds", "revisionHistoryLimit"];
        workload::not_negative(&mut errors, object, "spec", &numbers);
        let policy = object.text("/spec/podManagementPolicy");
        errors.required_one_of("spec.podManagementPolicy", policy, &["OrderedReady", "Parallel"]);
        let kind = object.text("/spec/updateStrategy/type");
        errors.required_one_of("spec.updateStrategy.type", kind, &["OnDelete", "RollingUpdate"]);
        if kind == "OnDelete" && object.has("/spec/updateStrategy/rollingUpdate") {
            let detail = "only allowed for updateStrategy 'RollingUpdate'";
            errors.invalid(
                "spec.updateStrategy.rollingUpdate",
                object.at("/spec/updateStrategy/rollingUpdate"),
                detail,
            );
        }
        let partition = object.int("/spec/updateStrategy/rollingUpdate/partition");
        errors.at_least("spec.updateStrategy.rollingUpdate.partition", partition, 0);
        for field in ["whenDeleted", "whenScaled"] {
            let value = object.text(&format!("/spec/persistentVolumeClaimRetentionPolicy/{field}"));
            let path = format!("spec.persistentVolumeClaimRetentionPolicy.{field}");
            errors.one_of(&path, value, &["Delete", "Retain"]);
        }
        workload::selector(&mut errors, object, "statefulset");
        workload::running_template(&mut errors, &with_claims(object), "StatefulSet");
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        errors.extend(self.validate_create(new));
        let mut like_old = new.at("/spec").clone();
        for field in MUTABLE {
            like_old.copy_from(old.at("/spec"), field);
        }
        if &like_old != old.at("/spec") {
            errors.forbidden("spec", IMMUTABLE);
        }
        errors.into_vec()
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let counts = ["readyReplicas", "availableReplicas", "currentReplicas", "updatedReplicas"];
        workload::status_counts(&mut errors, new, &counts);
        errors.into_vec()
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        warnings::of_spec("spec.template.spec", new.at("/spec/template/spec"))
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        let [names, images] = containers(object.at("/spec/template/spec"));
        let ready = object.int("/status/readyReplicas").unwrap_or(0);
        let desired = object.int("/spec/replicas").unwrap_or(0);
        vec![row::name(object), format!("{ready}/{desired}").into(), row::created(now, object), names, images]
    }

    fn scale(&self, object: &Value) -> Option<(i64, i64, String)> {
        workload::scale(object)
    }

    fn set_scale(&self, object: &mut Value, replicas: i64) {
        workload::set_scale(object, replicas);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claim_templates_can_be_mounted() {
        let container =
            json!({"name": "c", "image": "i", "volumeMounts": [{"name": "data", "mountPath": "/data"}]});
        let mut set = json!({"metadata": {"name": "s"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}}]}});
        StatefulSets.default(&mut set);
        let paths = |set: &Value| -> Vec<String> {
            StatefulSets.validate_create(set).into_iter().map(|error| error.path).collect()
        };
        assert!(paths(&set).is_empty(), "{:?}", paths(&set));
        set["spec"]["volumeClaimTemplates"] = json!([]);
        assert_eq!(paths(&set), ["spec.template.spec.containers[0].volumeMounts[0].name"]);
    }
}
