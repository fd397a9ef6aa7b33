//! Reading the lines of `facts/schema.txt`, which `xtask facts` writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::{ListType, Node, Shape, Struct, Zero};

static TEXT: &str = include_str!("../../facts/schema.txt");

/// One type: its name, the kinds it describes, and its facts as JSON.
pub struct Line {
    pub name: &'static str,
    pub kinds: &'static str,
    pub body: &'static str,
}

/// All lines, in the order of their names.
pub fn lines() -> impl Iterator<Item = Line> {
    TEXT.lines().filter_map(|line| {
        let mut parts = line.splitn(3, '\t');
        Some(Line { name: parts.next()?, kinds: parts.next()?, body: parts.next()? })
    })
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Facts {
    #[serde(rename = "type")]
    of: String,
    r#ref: Option<Arc<str>>,
    format: Option<Arc<str>>,
    default: Option<Value>,
    #[serde(rename = "enum")]
    enumeration: Vec<Value>,
    required: Vec<Arc<str>>,
    fields: Option<BTreeMap<Arc<str>, Facts>>,
    items: Option<Box<Facts>>,
    #[serde(rename = "additionalProperties")]
    values: Option<Box<Facts>>,
    #[serde(rename = "oneOf")]
    one_of: Vec<serde::de::IgnoredAny>,
    zero: String,
    #[serde(rename = "x-kubernetes-list-type")]
    list_type: String,
    #[serde(rename = "x-kubernetes-list-map-keys")]
    map_keys: Vec<Arc<str>>,
    #[serde(rename = "x-kubernetes-map-type")]
    map_type: String,
    #[serde(rename = "x-kubernetes-patch-strategy")]
    patch_strategy: String,
    #[serde(rename = "x-kubernetes-patch-merge-key")]
    patch_merge_key: Option<Arc<str>>,
}

/// The node of a type, from its facts.
pub fn node(body: &str) -> Node {
    build(serde_json::from_str(body).expect("xtask wrote the facts, and a test reads all of them"))
}

fn build(mut facts: Facts) -> Node {
    let shape = shape(&mut facts);
    let strategies = || facts.patch_strategy.split(',');
    Node {
        list_type: match facts.list_type.as_str() {
            "set" => ListType::Set,
            "map" => ListType::Map,
            _ => ListType::Atomic,
        },
        atomic: facts.map_type == "atomic",
        patch_merge: strategies().any(|strategy| strategy == "merge"),
        patch_retain_keys: strategies().any(|strategy| strategy == "retainKeys"),
        zero: match facts.zero.as_str() {
            "dropped" => Zero::Dropped,
            "written" => Zero::Written,
            _ => Zero::Kept,
        },
        preserve_unknown: false,
        nullable: false,
        shape,
        default: facts.default,
        map_keys: facts.map_keys,
        patch_merge_key: facts.patch_merge_key,
        format: facts.format,
        enumeration: facts.enumeration,
    }
}

fn shape(facts: &mut Facts) -> Shape {
    if let Some(name) = facts.r#ref.take() {
        return Shape::Ref(name);
    }
    if let Some(fields) = facts.fields.take() {
        let fields = fields.into_iter().map(|(name, field)| (name, build(field))).collect();
        return Shape::Struct(Struct { fields, required: std::mem::take(&mut facts.required) });
    }
    match facts.of.as_str() {
        "boolean" => Shape::Boolean,
        "integer" => Shape::Integer,
        "number" => Shape::Number,
        "string" => Shape::String,
        "array" => Shape::List(inner(facts.items.take())),
        "object" if facts.values.is_some() => Shape::Map(inner(facts.values.take())),
        _ if facts.one_of.is_empty() => Shape::Any,
        _ if facts.format.as_deref() == Some("int-or-string") => Shape::IntOrString,
        _ => Shape::Quantity,
    }
}

fn inner(facts: Option<Box<Facts>>) -> Box<Node> {
    Box::new(facts.map(|facts| build(*facts)).unwrap_or_default())
}
