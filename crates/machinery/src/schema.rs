//! The schema of API types: what strict decoding, pruning, defaulting, protobuf, strategic merge, server-side apply
//! and OpenAPI have in common. Built-in kinds and custom resources use the same nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

/// The schema of one value.
#[derive(Clone, Debug, Default)]
pub struct Node {
    pub shape: Shape,
    /// What an absent field becomes.
    pub default: Option<Value>,
    pub list_type: ListType,
    /// For [`ListType::Map`]: the fields that identify an element.
    pub map_keys: Vec<Arc<str>>,
    /// A map or struct that server-side apply treats as one value.
    pub atomic: bool,
    /// Strategic merge: `merge`, `replace`, `retainKeys`, combined with commas upstream.
    pub patch_merge: bool,
    pub patch_retain_keys: bool,
    pub patch_merge_key: Option<Arc<str>>,
    /// Accepts and keeps fields that the schema does not name.
    pub preserve_unknown: bool,
    pub nullable: bool,
    pub format: Option<Arc<str>>,
    pub enumeration: Vec<Value>,
}

/// What kind of JSON a value is.
#[derive(Clone, Debug, Default)]
pub enum Shape {
    /// Anything (`RawExtension`, `JSON`, `FieldsV1`).
    #[default]
    Any,
    Boolean,
    Integer,
    Number,
    /// Also quantities, times (by format) and base64 bytes (format `byte`).
    String,
    /// `IntOrString`.
    IntOrString,
    /// `resource.Quantity`: a string or a number.
    Quantity,
    Struct(Struct),
    /// A map with string keys.
    Map(Box<Node>),
    List(Box<Node>),
    /// A named type; resolve with [`Schema::resolve`].
    Ref(Arc<str>),
}

/// A value with named fields.
#[derive(Clone, Debug, Default)]
pub struct Struct {
    pub fields: BTreeMap<Arc<str>, Node>,
    pub required: Vec<Arc<str>>,
}

/// How server-side apply merges a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    #[default]
    Atomic,
    Set,
    Map,
}

/// Named types.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    types: BTreeMap<Arc<str>, Node>,
}

impl Schema {
    pub fn new(types: BTreeMap<Arc<str>, Node>) -> Self {
        Self { types }
    }

    /// The node of a named type.
    pub fn named(&self, name: &str) -> Option<&Node> {
        self.types.get(name)
    }

    /// All named types in order.
    pub fn types(&self) -> &BTreeMap<Arc<str>, Node> {
        &self.types
    }

    /// The shape of a node with references followed. Unknown references are [`Shape::Any`].
    pub fn resolve<'a>(&'a self, node: &'a Node) -> &'a Shape {
        match &node.shape {
            Shape::Ref(name) => self.types.get(name).map_or(&Shape::Any, |target| self.resolve(target)),
            shape => shape,
        }
    }

    /// Whether the value is one unit for server-side apply: said by the field or by the type it refers to.
    pub fn is_atomic(&self, node: &Node) -> bool {
        node.atomic || matches!(&node.shape, Shape::Ref(name) if self.types.get(name).is_some_and(|t| self.is_atomic(t)))
    }
}
