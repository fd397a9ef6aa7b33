//! Sets of fields, and their `fieldsV1` form.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathElement {
    /// A field of a struct or an entry of a map: `f:NAME`.
    Field(String),
    /// An element of a list with keys, as compact JSON with sorted keys: `k:{"name":"web"}`.
    Key(String),
    /// An element of a set, as JSON: `v:"x"`.
    Value(String),
    /// An element of a list by position: `i:0`.
    Index(u64),
}

/// A set of paths, as a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// Whether the path that leads here is itself in the set.
    pub member: bool,
    pub children: BTreeMap<PathElement, FieldSet>,
}

impl FieldSet {
    /// The set of just the path that leads here.
    pub fn leaf() -> Self {
        Self { member: true, children: BTreeMap::new() }
    }

    pub fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    /// Adds a subtree under an element; empty ones leave no trace.
    pub fn insert(&mut self, element: PathElement, child: Self) {
        if !child.is_empty() {
            self.children.insert(element, child);
        }
    }

    pub fn union(&mut self, other: &Self) {
        self.member |= other.member;
        for (element, child) in &other.children {
            self.children.entry(element.clone()).or_default().union(child);
        }
    }

    /// Takes the paths of `other` out.
    pub fn subtract(&mut self, other: &Self) {
        self.member &= !other.member;
        for (element, child) in &other.children {
            if let Some(own) = self.children.get_mut(element) {
                own.subtract(child);
                if own.is_empty() {
                    self.children.remove(element);
                }
            }
        }
    }

    /// The paths that are in both.
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both = Self { member: self.member && other.member, children: BTreeMap::new() };
        for (element, child) in &self.children {
            if let Some(other) = other.children.get(element) {
                both.insert(element.clone(), child.intersection(other));
            }
        }
        both
    }

    /// Reads the `fieldsV1` form; what cannot be understood is skipped.
    pub fn decode(value: &Value) -> Self {
        let Value::Object(fields) = value else { return Self::default() };
        if fields.is_empty() {
            return Self::leaf();
        }
        let mut set = Self::default();
        for (name, child) in fields {
            match element(name) {
                Some(element) => set.insert(element, Self::decode(child)),
                None => set.member |= name == ".",
            }
        }
        set
    }

    /// The `fieldsV1` form.
    pub fn encode(&self) -> Value {
        let mut fields = Map::new();
        if self.member && !self.children.is_empty() {
            fields.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (element, child) in &self.children {
            fields.insert(element.encode(), child.encode());
        }
        Value::Object(fields)
    }

    /// All paths in upstream's notation, `.spec.containers[name="web"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths("", &mut paths);
        paths
    }

    fn collect_paths(&self, path: &str, paths: &mut Vec<String>) {
        if self.member {
            paths.push(path.to_owned());
        }
        for (element, child) in &self.children {
            child.collect_paths(&format!("{path}{}", element.notation()), paths);
        }
    }
}

fn element(name: &str) -> Option<PathElement> {
    let (kind, rest) = name.split_once(':')?;
    match kind {
        "f" => Some(PathElement::Field(rest.to_owned())),
        "k" => serde_json::from_str::<Value>(rest).ok().map(|key| PathElement::Key(key.to_string())),
        "v" => serde_json::from_str::<Value>(rest).ok().map(|value| PathElement::Value(value.to_string())),
        "i" => rest.parse().ok().map(PathElement::Index),
        _ => None,
    }
}

impl PathElement {
    fn notation(&self) -> String {
        match self {
            Self::Field(name) => format!(".{name}"),
            Self::Key(json) => {
                let key: Map<String, Value> = serde_json::from_str(json).unwrap_or_default();
                let pairs: Vec<_> = key.iter().map(|(name, value)| format!("{name}={value}")).collect();
                format!("[{}]", pairs.join(","))
            }
            Self::Value(json) => format!("[={json}]"),
            Self::Index(index) => format!("[{index}]"),
        }
    }

    /// The element as a field's name in the `fieldsV1` form.
    pub(super) fn encode(&self) -> String {
        match self {
            Self::Field(name) => ["f:", name].concat(),
            Self::Key(json) => ["k:", json].concat(),
            Self::Value(json) => ["v:", json].concat(),
            Self::Index(index) => format!("i:{index}"),
        }
    }
}
