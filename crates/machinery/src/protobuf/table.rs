//! The table of one message: which JSON field each protobuf field is.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use crate::schema::Zero;

/// A message, its fields in the order of their numbers.
#[derive(Debug, Default)]
pub struct Message {
    pub fields: Vec<Field>,
}

#[derive(Debug)]
pub struct Field {
    pub number: u32,
    pub what: What,
}

/// What a protobuf field is in JSON.
#[derive(Debug)]
pub enum What {
    Value(Box<ValueField>),
    /// A struct that Go embeds: its fields are the JSON object's own.
    Embedded(Message),
}

#[derive(Debug)]
pub struct ValueField {
    pub name: Arc<str>,
    pub zero: Zero,
    pub rule: Rule,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    One,
    Repeated,
    Map,
}

/// How one value is carried. Beside protobuf's own kinds these are the types whose JSON form is special.
#[derive(Debug)]
pub enum Kind {
    String,
    Int32,
    Int64,
    Bool,
    Double,
    Bytes,
    Message(Arc<str>),
    /// A message around a list of strings (`ExtraValue`, `Verbs`).
    Strings,
    Time,
    MicroTime,
    /// Go's `1m30s`; nanoseconds in protobuf.
    Duration,
    Quantity,
    IntOrString,
    /// A message around JSON bytes (`RawExtension`, `FieldsV1`, `JSON`).
    Raw,
    SchemaOrArray,
    SchemaOrBool,
    SchemaOrStrings,
}

#[derive(Deserialize)]
struct Facts {
    #[serde(default)]
    fields: BTreeMap<Arc<str>, FieldFacts>,
}

#[derive(Deserialize)]
struct FieldFacts {
    pb: Option<String>,
    #[serde(default)]
    zero: String,
    r#ref: Option<Arc<str>>,
    items: Option<Box<FieldFacts>>,
    #[serde(rename = "additionalProperties")]
    values: Option<Box<FieldFacts>>,
}

impl Message {
    /// The table of a type, from its line of facts.
    pub fn read(facts: &str) -> Self {
        let facts: Facts =
            serde_json::from_str(facts).expect("xtask wrote the facts, and a test reads all of them");
        let mut message = Self::default();
        for (name, field) in facts.fields {
            let Some((path, rest)) = field.pb.as_deref().and_then(|pb| pb.split_once(' ')) else { continue };
            let path: Vec<u32> = path.split('.').filter_map(|number| number.parse().ok()).collect();
            let value = value_field(name, rest, &field);
            message.insert(&path, value);
        }
        message
    }

    fn insert(&mut self, path: &[u32], value: ValueField) {
        let Some((&number, rest)) = path.split_first() else { return };
        let at = match self.fields.binary_search_by_key(&number, |field| field.number) {
            Ok(at) => at,
            Err(at) => {
                self.fields.insert(at, Field { number, what: What::Embedded(Self::default()) });
                at
            }
        };
        match (&mut self.fields[at].what, rest) {
            (what, []) => *what = What::Value(Box::new(value)),
            (What::Embedded(inner), rest) => inner.insert(rest, value),
            (What::Value(_), _) => {}
        }
    }

    /// The field of a number.
    pub fn field(&self, number: u32) -> Option<&What> {
        let at = self.fields.binary_search_by_key(&number, |field| field.number).ok()?;
        Some(&self.fields[at].what)
    }
}

fn value_field(name: Arc<str>, words: &str, facts: &FieldFacts) -> ValueField {
    let (rule, word) = match words.split_once(' ') {
        Some(("repeated", word)) => (Rule::Repeated, word),
        Some((_, word)) => (Rule::Map, word),
        None => (Rule::One, words),
    };
    let element = match rule {
        Rule::One => Some(facts),
        Rule::Repeated => facts.items.as_deref(),
        Rule::Map => facts.values.as_deref(),
    };
    let target = element.and_then(|facts| facts.r#ref.clone()).unwrap_or_default();
    let zero = match facts.zero.as_str() {
        "dropped" => Zero::Dropped,
        "written" => Zero::Written,
        _ => Zero::Kept,
    };
    ValueField { name, zero, rule, kind: kind(word, target) }
}

fn kind(word: &str, target: Arc<str>) -> Kind {
    match word {
        "string" => Kind::String,
        "int32" => Kind::Int32,
        "int64" => Kind::Int64,
        "bool" => Kind::Bool,
        "double" => Kind::Double,
        "bytes" => Kind::Bytes,
        "strings" => Kind::Strings,
        "time" => Kind::Time,
        "microtime" => Kind::MicroTime,
        "duration" => Kind::Duration,
        "quantity" => Kind::Quantity,
        "intorstring" => Kind::IntOrString,
        "raw" => Kind::Raw,
        "schemaorarray" => Kind::SchemaOrArray,
        "schemaorbool" => Kind::SchemaOrBool,
        "schemaorstrings" => Kind::SchemaOrStrings,
        _ => Kind::Message(target),
    }
}
