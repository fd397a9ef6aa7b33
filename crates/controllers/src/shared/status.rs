//! Status patches that are written only when they say something new.

use client::{Patch, Target};
use jiff::Timestamp;
use machinery::Object;
use reconcile::Action;
use reconcile::plan::named;
use serde_json::{Value, json};

/// Whether `stored` lacks something that `status` says; absent numbers are zero and absent lists and maps empty.
pub fn is_new(status: &Value, stored: &Value) -> bool {
    let says_nothing =
        |value: &Value| value.is_null() || *value == json!(0) || *value == json!([]) || *value == json!({});
    let same = |(field, value): (&String, &Value)| match stored.get(field).filter(|stored| !stored.is_null())
    {
        Some(stored) => stored == value,
        None => says_nothing(value),
    };
    !status.as_object().is_some_and(|fields| fields.iter().all(same))
}

/// A merge patch of the status of an object of `collection`. Fields that `status` does not name stay; null removes.
pub fn patch(collection: Target, object: &Object, status: &Value) -> Action {
    let mut target = named(collection, object);
    target.subresource = "status".to_owned();
    Action::Patch { target, patch: Patch::Merge(json!({"status": status})) }
}

/// The same, if it says anything new.
pub fn patch_if_new(collection: Target, object: &Object, status: &Value, stored: &Value) -> Option<Action> {
    is_new(status, stored).then(|| patch(collection, object, status))
}

/// `metav1.Time`.
pub fn time(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new() {
        for (status, stored, wanted) in [
            (json!({"replicas": 0}), json!({}), false),
            (json!({"replicas": 1}), json!({}), true),
            (json!({"replicas": 1}), json!({"replicas": 1, "other": 2}), false),
            (json!({"replicas": 0}), json!({"replicas": 1}), true),
            (json!({"conditions": []}), json!({"conditions": null}), false),
            (json!({"startTime": null}), json!({"startTime": "x"}), true),
        ] {
            assert_eq!(is_new(&status, &stored), wanted, "{status} {stored}");
        }
    }
}
