//! Events. Both groups' events are stored as `v1`; `events.k8s.io/v1` is the same with other field names.

use jiff::Timestamp;
use machinery::{FieldError, Object};
use serde_json::Value;

use crate::check::Errors;
use crate::table_format::age;
use crate::value::{Access, Fill, is_zero};
use crate::{Context, Strategy, row};

/// Upstream's `--event-ttl`.
const TIME_TO_LIVE: std::time::Duration = std::time::Duration::from_secs(3600);

const FIELDS: [&str; 19] = [
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "regarding.apiVersion",
    "regarding.resourceVersion",
    "regarding.fieldPath",
    "reportingController",
];

/// New names of `events.k8s.io/v1` beside the stored ones.
const RENAMED: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// `v1`, or with `modern` `events.k8s.io/v1`.
pub struct Events {
    pub modern: bool,
}

impl Strategy for Events {
    fn time_to_live(&self) -> Option<std::time::Duration> {
        Some(TIME_TO_LIVE)
    }

    fn prepare_create(&self, _context: &Context, _object: &mut Value) {}

    fn prepare_update(&self, _context: &Context, _new: &mut Value, _old: &Value) {}

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let involved = object.text("/involvedObject/namespace");
        let namespace = object.text("/metadata/namespace");
        let is_home = involved.is_empty() && matches!(namespace, "default" | "kube-system");
        if involved != namespace && !is_home && !namespace.is_empty() {
            let detail = "does not match event.namespace";
            errors.invalid("involvedObject.namespace", involved, detail);
        }
        if self.modern {
            for (pointer, path) in [
                ("/reportingComponent", "reportingController"),
                ("/reportingInstance", "reportingInstance"),
                ("/action", "action"),
                ("/reason", "reason"),
            ] {
                if object.text(pointer).is_empty() {
                    errors.required(path, "");
                }
            }
            errors.one_of("type", object.text("/type"), &["Normal", "Warning"]);
            if !object.has("/eventTime") {
                errors.required("eventTime", "");
            }
        }
        errors.into_vec()
    }

    fn fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        let object = object.value();
        let value = |field: &&str| match *field {
            "source" => {
                let component = object.text("/source/component");
                if component.is_empty() { object.text("/reportingComponent") } else { component }.to_owned()
            }
            "reportingController" => object.text("/reportingComponent").to_owned(),
            field => {
                let stored = field.replace("regarding.", "involvedObject.").replace('.', "/");
                object.text(&format!("/{stored}")).to_owned()
            }
        };
        FIELDS.iter().map(|field| (*field, value(field))).collect()
    }

    fn field_names(&self) -> &'static [&'static str] {
        &FIELDS
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn to_storage(&self, _version: &str, object: &mut Value) {
        if self.modern {
            object.set("apiVersion", "v1");
            rename(object, |(modern, stored)| (modern, stored));
            object.child("involvedObject");
        }
    }

    fn from_storage(&self, _version: &str, object: &mut Value) {
        if self.modern {
            object.set("apiVersion", "events.k8s.io/v1");
            rename(object, |(modern, stored)| (stored, modern));
        }
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        let time = |pointer: &str| object.pointer(pointer).filter(|value| !is_zero(value));
        let first = time("/firstTimestamp").or(time("/eventTime"));
        let last = time("/series/lastObservedTime").or(time("/lastTimestamp")).or(first);
        let involved = object.at("/involvedObject");
        let count =
            object.int("/series/count").or(object.int("/count")).filter(|count| *count > 0).unwrap_or(1);
        vec![
            age(now, last).into(),
            row::text(object, "/type", ""),
            row::text(object, "/reason", ""),
            format!("{}/{}", involved.text("/kind").to_lowercase(), involved.text("/name")).into(),
            row::text(involved, "/fieldPath", ""),
            source(object).into(),
            object.text("/message").trim().into(),
            age(now, first).into(),
            count.to_string().into(),
            row::name(object),
        ]
    }
}

fn rename(
    object: &mut Value,
    direction: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str),
) {
    for (from, to) in RENAMED.into_iter().map(direction) {
        if let Some(value) = object.unset(from) {
            object.set(to, value);
        }
    }
}

fn source(object: &Value) -> String {
    let either = |old: &'static str, new: &'static str| {
        let text = object.text(old);
        if text.is_empty() { object.text(new) } else { text }
    };
    let component = either("/source/component", "/reportingComponent");
    match either("/source/host", "/reportingInstance") {
        "" => component.to_owned(),
        host => format!("{component}, {host}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_of_both_groups_are_one() {
        let modern = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "note": "n", "action": "Binding",
            "regarding": {"name": "p"}, "reportingController": "c", "deprecatedCount": 2});
        let mut stored = modern.clone();
        let strategy = Events { modern: true };
        strategy.to_storage("v1", &mut stored);
        let expected = json!({"apiVersion": "v1", "kind": "Event", "message": "n", "action": "Binding",
            "involvedObject": {"name": "p"}, "reportingComponent": "c", "count": 2});
        assert_eq!(stored, expected);
        strategy.from_storage("v1", &mut stored);
        assert_eq!(stored, modern);
    }
}
