//! Lists of conditions as JSON.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::status::time;

/// A condition without times.
pub fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message})
}

pub fn find<'a>(conditions: &'a [Value], kind: &str) -> Option<&'a Value> {
    conditions.iter().find(|condition| condition["type"] == kind)
}

pub fn is_true(conditions: &[Value], kind: &str) -> bool {
    find(conditions, kind).is_some_and(|condition| condition["status"] == "True")
}

/// Sets a condition; the transition time moves only with its status.
pub fn set(conditions: &mut Vec<Value>, mut condition: Value, now: Timestamp) {
    let old = conditions.iter_mut().find(|old| old["type"] == condition["type"]);
    let kept = old.as_ref().filter(|old| old["status"] == condition["status"]);
    condition["lastTransitionTime"] = match kept {
        Some(old) => old["lastTransitionTime"].clone(),
        None => json!(time(now)),
    };
    match old {
        Some(old) => {
            for (field, value) in condition.as_object().into_iter().flatten() {
                old[field] = value.clone();
            }
        }
        None => conditions.push(condition),
    }
}
