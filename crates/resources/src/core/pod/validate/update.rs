//! What an update of a pod may change.

use serde_json::{Value, json};

use crate::check::Errors;
use crate::core::pod::quality;
use crate::value::{Access, Fill};

const ALLOWED: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// An update of the pod itself.
pub fn spec(errors: &mut Errors, new: &Value, old: &Value) {
    let (new, old) = (new.at("/spec"), old.at("/spec"));
    for list in ["containers", "initContainers"] {
        let pointer = format!("/{list}");
        if new.items(&pointer).len() != old.items(&pointer).len() {
            errors.forbidden(format!("spec.{list}"), "pod updates may not add or remove containers");
            return;
        }
    }
    deadline(errors, new, old);
    tolerations(errors, new, old);
    gates(errors, new, old);
    let mut like_old = new.clone();
    for list in ["containers", "initContainers"] {
        for (container, before) in like_old.each(list).zip(old.items(&format!("/{list}"))) {
            container.copy_from(before, "image");
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        like_old.copy_from(old, field);
    }
    if old.int("/terminationGracePeriodSeconds").is_some_and(|grace| grace < 0)
        && new.int("/terminationGracePeriodSeconds") == Some(1)
    {
        like_old.copy_from(old, "terminationGracePeriodSeconds");
    }
    if !old.items("/schedulingGates").is_empty() {
        allow_narrowing(&mut like_old, old);
    }
    if &like_old != old {
        errors.forbidden("spec", ALLOWED);
    }
}

/// Pods that wait at a gate may have their placement narrowed.
fn allow_narrowing(like_old: &mut Value, old: &Value) {
    let added_only =
        old.members("/nodeSelector").all(|(key, value)| like_old.at("/nodeSelector").get(key) == Some(value));
    if added_only {
        like_old.copy_from(old, "nodeSelector");
    }
    if !old.has("/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution") {
        like_old.copy_from(old, "affinity");
    }
}

fn deadline(errors: &mut Errors, new: &Value, old: &Value) {
    let path = "spec.activeDeadlineSeconds";
    match (new.int("/activeDeadlineSeconds"), old.int("/activeDeadlineSeconds")) {
        (Some(new), Some(old)) if new > old => {
            errors.invalid(path, new, "must be less than or equal to previous value");
        }
        (None, Some(_)) => {
            errors.invalid(path, Value::Null, "must not update from a positive integer to nil value");
        }
        _ => {}
    }
}

fn tolerations(errors: &mut Errors, new: &Value, old: &Value) {
    let without_seconds = |toleration: &Value| {
        let mut copy = toleration.clone();
        copy.unset("tolerationSeconds");
        copy
    };
    let kept = |before: &Value| {
        new.items("/tolerations").iter().any(|after| {
            after == before
                || (before.text("/effect") == "NoExecute"
                    && without_seconds(after) == without_seconds(before))
        })
    };
    if !old.items("/tolerations").iter().all(kept) {
        errors.forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        );
    }
}

fn gates(errors: &mut Errors, new: &Value, old: &Value) {
    let known = old.items("/schedulingGates");
    for gate in new.items("/schedulingGates").iter().filter(|gate| !known.contains(gate)) {
        let detail =
            format!("only deletion is allowed, but found new scheduling gate '{}'", gate.text("/name"));
        errors.forbidden("spec.schedulingGates", &detail);
    }
}

/// An update through `ephemeralcontainers`: existing ones stay as they are.
pub fn ephemeral_containers(errors: &mut Errors, new: &Value, old: &Value) {
    for before in old.items("/spec/ephemeralContainers") {
        let name = before.text("/name");
        let after = new.items("/spec/ephemeralContainers").iter().find(|after| after.text("/name") == name);
        let detail = match after {
            None => format!("existing ephemeral containers {name:?} may not be removed\n"),
            Some(after) if after != before => {
                format!("existing ephemeral containers {name:?} may not be changed\n")
            }
            Some(_) => continue,
        };
        errors.forbidden("spec.ephemeralContainers", &detail);
    }
}

/// An update through `resize`: only cpu and memory of containers, without a change of class.
pub fn resize(errors: &mut Errors, new: &Value, old: &Value) {
    if quality::class(new) != quality::class(old) {
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.invalid("spec", quality::class(new), detail);
    }
    let mut like_old = new.at("/spec").clone();
    for list in ["containers", "initContainers"] {
        let before = old.items(&format!("/spec/{list}"));
        let sidecars_only = list == "initContainers";
        for (container, before) in like_old.each(list).zip(before) {
            if !sidecars_only || before.text("/restartPolicy") == "Always" {
                copy_compute(container, before);
            }
        }
    }
    if &like_old != old.at("/spec") {
        errors.forbidden("spec", "only cpu and memory resources for resizable containers are mutable");
    }
}

fn copy_compute(container: &mut Value, before: &Value) {
    for list in ["requests", "limits"] {
        for name in ["cpu", "memory"] {
            let old = before.at("/resources").at(&format!("/{list}"));
            let target = container.child("resources");
            if old.get(name).is_some() || target.has(&format!("/{list}/{name}")) {
                target.child(list).copy_from(old, name);
            }
        }
        if container["resources"][list] == json!({}) && !before.has(&format!("/resources/{list}")) {
            container["resources"].unset(list);
        }
    }
    container.copy_from(before, "resizePolicy");
    if container["resources"] == json!({}) && !before.has("/resources") {
        container.unset("resources");
    }
}
