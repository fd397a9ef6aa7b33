//! One pass over a value: unknown fields are removed and named, values of the wrong type refused with the words of
//! Go's decoder, and the rest is put into the form that Go would write.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};

use super::cannot_be_handled;
use super::json::MAX_COMPLAINTS;
use super::path::Path;
use crate::quantity::Quantity;
use crate::schema::{Node, Schema, Shape, Struct, Zero};
use crate::status::Status;

/// A value that does not fit its type. The message is that of Go's decoder.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct TypeError {
    pub message: String,
}

impl TypeError {
    /// `Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal …`.
    pub fn status(&self, kind: &str, version: &str) -> Status {
        cannot_be_handled(kind, version, &self.message)
    }
}

/// Makes a value what Go's structs would make of it: fields that the schema does not name and nulls are gone, times and
/// base64 are in their canonical form, zero values that mean absent are dropped. The answer lists the fields that were
/// unknown, as `unknown field "spec.foo"`.
pub fn check_types(schema: &Schema, node: &Node, value: &mut Value) -> Result<Vec<String>, TypeError> {
    let mut walk = Walk { schema, typed: true, unknown: Vec::new() };
    walk.value(node, "", value, &Path::Root)?;
    Ok(walk.unknown)
}

/// Only removes and lists unknown fields; values of the wrong type are left for validation. For custom resources.
pub fn prune(schema: &Schema, node: &Node, value: &mut Value) -> Vec<String> {
    let mut walk = Walk { schema, typed: false, unknown: Vec::new() };
    let outcome = walk.value(node, "", value, &Path::Root);
    debug_assert!(outcome.is_ok(), "an untyped walk refuses nothing");
    walk.unknown
}

struct Walk<'a> {
    schema: &'a Schema,
    typed: bool,
    unknown: Vec<String>,
}

type Step = Result<(), TypeError>;

impl<'a> Walk<'a> {
    /// `owner` is the struct that holds the field the value belongs to.
    fn value(&mut self, node: &'a Node, owner: &str, value: &mut Value, path: &Path<'_>) -> Step {
        match (&node.shape, &mut *value) {
            (Shape::Ref(name), value) => match self.schema.named(name) {
                Some(target) => self.named(name, target, owner, value, path),
                None => Ok(()),
            },
            (Shape::Struct(body), Value::Object(fields)) => self.fields(node, body, owner, fields, path),
            (Shape::Map(inner), Value::Object(entries)) => self.entries(inner, owner, entries, path),
            (Shape::List(inner), Value::Array(items)) => self.items(inner, owner, items, path),
            (Shape::Any, _) => Ok(()),
            _ if !self.typed => Ok(()),
            (shape, _) => scalar(shape, node, value).map_err(|found| found.at(node, owner, path)),
        }
    }

    fn named(
        &mut self,
        name: &'a str,
        target: &'a Node,
        owner: &str,
        value: &mut Value,
        path: &Path<'_>,
    ) -> Step {
        match (&target.shape, value) {
            (Shape::Struct(body), Value::Object(fields)) => {
                self.fields(target, body, go_name(name), fields, path)
            }
            (Shape::Struct(_), found) if self.typed => {
                let node = Node::reference(name);
                Err(Mismatch::Kind(kind_of(found)).at(&node, owner, path))
            }
            (Shape::String, value) if self.typed => time(name, target, owner, value, path),
            (_, value) => self.value(target, owner, value, path),
        }
    }

    fn fields(
        &mut self,
        node: &'a Node,
        body: &'a Struct,
        owner: &str,
        fields: &mut Map<String, Value>,
        path: &Path<'_>,
    ) -> Step {
        let mut outcome = Ok(());
        fields.retain(|name, value| {
            let Some(field) = body.fields.get(name.as_str()) else {
                return node.preserve_unknown || self.complain(path, name);
            };
            if value.is_null() && self.typed {
                return false;
            }
            if outcome.is_ok() {
                outcome = self.value(field, owner, value, &Path::Field(path, name));
            }
            !(self.typed && field.zero == Zero::Dropped && is_zero(value))
        });
        outcome
    }

    /// Notes an unknown field; the answer is whether to keep it.
    fn complain(&mut self, path: &Path<'_>, name: &str) -> bool {
        if self.unknown.len() < MAX_COMPLAINTS {
            self.unknown.push(format!("unknown field \"{}\"", Path::Field(path, name)));
        }
        false
    }

    fn entries(
        &mut self,
        inner: &'a Node,
        owner: &str,
        entries: &mut Map<String, Value>,
        path: &Path<'_>,
    ) -> Step {
        for (key, entry) in entries.iter_mut() {
            self.null_becomes_zero(inner, entry);
            self.value(inner, owner, entry, &Path::Key(path, key))?;
        }
        Ok(())
    }

    fn items(&mut self, inner: &'a Node, owner: &str, items: &mut [Value], path: &Path<'_>) -> Step {
        for (index, item) in items.iter_mut().enumerate() {
            self.null_becomes_zero(inner, item);
            self.value(inner, owner, item, &Path::Index(path, index))?;
        }
        Ok(())
    }

    /// A null in a Go slice or map is the zero value of its elements.
    fn null_becomes_zero(&self, inner: &Node, value: &mut Value) {
        if self.typed && value.is_null() {
            *value = match self.schema.resolve(inner) {
                Shape::String => Value::from(""),
                _ => super::fill::zero_of(self.schema, inner).unwrap_or(Value::Null),
            };
        }
    }
}

/// What is wrong with a value, before it is known where it stands.
enum Mismatch {
    /// The kind of JSON value, in Go's words.
    Kind(String),
    /// A message of the type's own decoder.
    Own(String),
}

impl Mismatch {
    fn at(self, node: &Node, owner: &str, path: &Path<'_>) -> TypeError {
        let message = match self {
            Mismatch::Own(message) => message,
            Mismatch::Kind(found) => match path.fields() {
                fields if fields.is_empty() || owner.is_empty() => {
                    format!("json: cannot unmarshal {found} into Go value of type {}", go_type(node))
                }
                fields => format!(
                    "json: cannot unmarshal {found} into Go struct field {owner}.{fields} of type {}",
                    go_type(node)
                ),
            },
        };
        TypeError { message }
    }
}

fn scalar(shape: &Shape, node: &Node, value: &mut Value) -> Result<(), Mismatch> {
    match (shape, &mut *value) {
        (Shape::Boolean, Value::Bool(_)) | (Shape::Number, Value::Number(_)) => Ok(()),
        (Shape::IntOrString, Value::String(_)) => Ok(()),
        (Shape::Integer, Value::Number(number)) => integer(number, node.format.as_deref() == Some("int32")),
        (Shape::IntOrString, Value::Number(number)) => integer(number, true),
        (Shape::String, Value::String(text)) if node.format.as_deref() == Some("byte") => bytes(text),
        (Shape::String, Value::String(_)) => Ok(()),
        (Shape::Quantity, found) => quantity(found),
        (_, found) => Err(Mismatch::Kind(kind_of(found))),
    }
}

fn integer(number: &Number, short: bool) -> Result<(), Mismatch> {
    let fits = number.as_i64().is_some_and(|number| !short || i32::try_from(number).is_ok());
    if fits { Ok(()) } else { Err(Mismatch::Kind(format!("number {number}"))) }
}

/// Base64 as Go reads it: line breaks are passed over.
fn bytes(text: &mut String) -> Result<(), Mismatch> {
    if text.contains(['\n', '\r']) {
        text.retain(|character| !matches!(character, '\n' | '\r'));
    }
    match STANDARD.decode(text.as_bytes()) {
        Ok(_) => Ok(()),
        Err(base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _)) => {
            Err(Mismatch::Own(format!("illegal base64 data at input byte {at}")))
        }
        Err(_) => Err(Mismatch::Own(format!("illegal base64 data at input byte {}", text.len()))),
    }
}

/// A quantity is written as a string in its canonical form, whatever it was read from.
fn quantity(value: &mut Value) -> Result<(), Mismatch> {
    let parsed = match value {
        Value::String(text) => text.trim().parse::<Quantity>(),
        Value::Number(number) => number.to_string().parse(),
        found => return Err(Mismatch::Kind(kind_of(found))),
    };
    *value = Value::String(parsed.map_err(|error| Mismatch::Own(error.to_string()))?.to_string());
    Ok(())
}

/// Times are kept in UTC, to the second (`Time`) or microsecond (`MicroTime`).
fn time(name: &str, node: &Node, owner: &str, value: &mut Value, path: &Path<'_>) -> Step {
    let Value::String(text) = value else {
        return Err(Mismatch::Kind(kind_of(value)).at(node, owner, path));
    };
    let layout = if name.ends_with("MicroTime") { MICRO_TIME } else { TIME };
    let parsed: jiff::Timestamp =
        text.parse().map_err(|_| TypeError { message: not_a_time(text, layout) })?;
    let format = if layout == TIME { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S.%6fZ" };
    *text = parsed.strftime(format).to_string();
    Ok(())
}

const TIME: &str = "2006-01-02T15:04:05Z07:00";
const MICRO_TIME: &str = "2006-01-02T15:04:05.000000Z07:00";

fn not_a_time(text: &str, layout: &str) -> String {
    format!("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\"")
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Bool(truth) => !truth,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Null => true,
    }
}

fn kind_of(value: &Value) -> String {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
    .to_owned()
}

/// `PodSpec` of `io.k8s.api.core.v1.PodSpec`.
fn go_name(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn go_type(node: &Node) -> String {
    match &node.shape {
        Shape::Boolean => "bool".to_owned(),
        Shape::Integer | Shape::IntOrString => {
            node.format.as_deref().filter(|f| f.starts_with("int6")).unwrap_or("int32").to_owned()
        }
        Shape::Number => "float64".to_owned(),
        Shape::String if node.format.as_deref() == Some("byte") => "[]uint8".to_owned(),
        Shape::String => "string".to_owned(),
        Shape::List(inner) => format!("[]{}", go_type(inner)),
        Shape::Map(inner) => format!("map[string]{}", go_type(inner)),
        Shape::Ref(name) => {
            let mut parts = name.rsplit('.');
            let (last, package) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            format!("{package}.{last}")
        }
        Shape::Quantity => "resource.Quantity".to_owned(),
        Shape::Struct(_) | Shape::Any => "interface {}".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::builtin;
    use expect_test::{Expect, expect};
    use serde_json::json;

    fn check(type_name: &str, mut value: Value, expected: Expect) {
        let node = Node::reference(&format!("io.k8s.api.{type_name}"));
        let shown = match check_types(builtin(), &node, &mut value) {
            Ok(unknown) => format!("{value} {unknown:?}"),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn unknown_fields_are_pruned_and_named() {
        check(
            "core.v1.Pod",
            json!({"speck": 1, "spec": {"containers": [{"name": "a", "imago": "b"}], "hostNetwork": false}}),
            expect![[
                r#"{"spec":{"containers":[{"name":"a"}]}} ["unknown field \"spec.containers[0].imago\"", "unknown field \"speck\""]"#
            ]],
        );
    }

    #[test]
    fn wrong_types_are_refused_in_the_words_of_go() {
        let deployment = |spec: Value| json!({ "spec": spec });
        check(
            "apps.v1.Deployment",
            deployment(json!({"replicas": "3"})),
            expect![
                "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
            ],
        );
        check(
            "apps.v1.Deployment",
            deployment(json!({"replicas": 1.5})),
            expect![
                "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32"
            ],
        );
        check(
            "apps.v1.Deployment",
            deployment(json!({"replicas": 3_000_000_000_u64})),
            expect![
                "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32"
            ],
        );
        check(
            "apps.v1.Deployment",
            deployment(json!([])),
            expect![
                "json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec"
            ],
        );
        check(
            "apps.v1.Deployment",
            json!([]),
            expect!["json: cannot unmarshal array into Go value of type v1.Deployment"],
        );
        let env = json!({"containers": [{"env": [{"name": "a", "value": 1}]}]});
        check(
            "apps.v1.Deployment",
            deployment(json!({"template": {"spec": env}})),
            expect![
                "json: cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string"
            ],
        );
        check(
            "core.v1.Pod",
            json!({"metadata": {"labels": {"a": true}}}),
            expect![
                "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string"
            ],
        );
        check(
            "core.v1.Pod",
            json!({"metadata": {"labels": []}}),
            expect![
                "json: cannot unmarshal array into Go struct field ObjectMeta.metadata.labels of type map[string]string"
            ],
        );
        check(
            "core.v1.Pod",
            deployment(json!({"containers": {}})),
            expect![
                "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container"
            ],
        );
        check(
            "core.v1.Pod",
            json!({"metadata": {"creationTimestamp": "yesterday"}}),
            expect![[
                r#"parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006""#
            ]],
        );
        check(
            "core.v1.Secret",
            json!({"data": {"a": "not base64"}}),
            expect!["illegal base64 data at input byte 3"],
        );
        check(
            "core.v1.Pod",
            deployment(json!({"overhead": {"cpu": "1x"}})),
            expect![
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
            ],
        );
    }

    #[test]
    fn values_take_the_form_of_go() {
        check(
            "core.v1.Pod",
            json!({"metadata": {"creationTimestamp": null, "labels": {"a": null},
                "deletionTimestamp": "2026-01-01T01:00:00.5+02:00"},
                "spec": {"overhead": {"cpu": 1, "memory": "1Gi"}, "priority": 0, "nodeName": "", "volumes": []}}),
            expect![[
                r#"{"metadata":{"deletionTimestamp":"2025-12-31T23:00:00Z","labels":{"a":""}},"spec":{"overhead":{"cpu":"1","memory":"1Gi"},"priority":0}} []"#
            ]],
        );
        check(
            "coordination.v1.Lease",
            json!({"spec": {"renewTime": "2026-01-01T01:00:00Z"}}),
            expect![[r#"{"spec":{"renewTime":"2026-01-01T01:00:00.000000Z"}} []"#]],
        );
    }

    #[test]
    fn pruning_keeps_what_it_does_not_judge() {
        let schema = Schema::new(
            [("r".into(), builtin().named("io.k8s.api.core.v1.ServicePort").unwrap().clone())].into(),
        );
        let mut value = json!({"port": "x", "name": null, "what": 1});
        let unknown = prune(&schema, &Node::reference("r"), &mut value);
        assert_eq!((value, unknown.len()), (json!({"port": "x", "name": null}), 1));
    }
}
