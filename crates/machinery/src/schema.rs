//! The schema of API types: what strict decoding, pruning, defaulting, protobuf, strategic merge, server-side apply
//! and OpenAPI have in common. Built-in kinds and custom resources use the same nodes.

mod facts;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock, OnceLock};

use serde_json::Value;

use crate::protobuf::Message;

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
    pub zero: Zero,
}

/// What a Go program makes of a field whose value is zero (`""`, `0`, `false`, an empty list or map). Upstream's objects
/// pass through Go structs, so this decides what is stored and what protobuf can carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Zero {
    /// A value of its own, different from absent (`replicas: 0`, `storageClassName: ""`).
    #[default]
    Kept,
    /// The same as absent, and never written (`hostNetwork: false`).
    Dropped,
    /// The same as absent, and always written (`readyReplicas: 0`, `resources: {}`).
    Written,
}

impl Node {
    /// A value of a named type.
    pub fn reference(name: &str) -> Self {
        Self { shape: Shape::Ref(Arc::from(name)), ..Self::default() }
    }
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

/// Named types. Types of Kubernetes itself can be referred to from any schema.
#[derive(Default)]
pub struct Schema {
    types: HashMap<Arc<str>, Entry>,
    builtin: bool,
    /// The names of types by the kinds they describe, made when first asked for.
    by_kind: OnceLock<HashMap<&'static str, Arc<str>>>,
}

/// A named type, read from its line of facts when it is first needed.
#[derive(Default)]
struct Entry {
    /// The kinds the type is the schema of, as `GROUP/VERSION/KIND,…`.
    kinds: &'static str,
    facts: &'static str,
    node: OnceLock<Box<Node>>,
    message: OnceLock<Box<Message>>,
}

/// Group, version and kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupVersionKind {
    pub group: String,
    pub version: String,
    pub kind: String,
}

impl GroupVersionKind {
    pub fn new(group: impl Into<String>, version: impl Into<String>, kind: impl Into<String>) -> Self {
        Self { group: group.into(), version: version.into(), kind: kind.into() }
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// The types of Kubernetes 1.36 that are generally available.
pub fn builtin() -> &'static Schema {
    static BUILTIN: LazyLock<Schema> = LazyLock::new(|| {
        let entries = facts::lines().map(|line| {
            (Arc::from(line.name), Entry { kinds: line.kinds, facts: line.body, ..Entry::default() })
        });
        Schema { types: entries.collect(), builtin: true, by_kind: OnceLock::new() }
    });
    &BUILTIN
}

impl Entry {
    fn node(&self) -> &Node {
        self.node.get_or_init(|| Box::new(facts::node(self.facts)))
    }
}

impl Schema {
    pub fn new(types: BTreeMap<Arc<str>, Node>) -> Self {
        let entry = |node| Entry { node: OnceLock::from(Box::new(node)), ..Entry::default() };
        let types = types.into_iter().map(|(name, node)| (name, entry(node))).collect();
        Self { types, ..Self::default() }
    }

    /// The node of a named type; names that this schema does not know are looked up among the built-in types.
    pub fn named(&self, name: &str) -> Option<&Node> {
        match self.types.get(name) {
            Some(entry) => Some(entry.node()),
            None if self.builtin => None,
            None => builtin().named(name),
        }
    }

    /// The names of all types of this schema, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let mut names: Vec<&str> = self.types.keys().map(AsRef::as_ref).collect();
        names.sort_unstable();
        names.into_iter()
    }

    /// All named types in order. For the built-in schema this reads all of them: about 1 MB.
    pub fn types(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.names().filter_map(|name| Some((name, self.types.get(name)?.node())))
    }

    /// The kinds that a type is the schema of.
    pub fn kinds(&self, name: &str) -> impl Iterator<Item = GroupVersionKind> {
        let kinds = self.types.get(name).map_or("", |entry| entry.kinds);
        kinds.split(',').filter_map(|kind| {
            let mut parts = kind.splitn(3, '/');
            Some(GroupVersionKind::new(parts.next()?, parts.next()?, parts.next()?))
        })
    }

    /// The name of the type that describes a kind.
    pub fn type_of(&self, group: &str, version: &str, kind: &str) -> Option<&str> {
        let by_kind = self.by_kind.get_or_init(|| {
            let kinds = |(name, entry): (&Arc<str>, &Entry)| {
                entry.kinds.split(',').map(|kind| (kind, name.clone())).collect::<Vec<_>>()
            };
            self.types.iter().flat_map(kinds).collect()
        });
        by_kind.get(format!("{group}/{version}/{kind}").as_str()).map(AsRef::as_ref)
    }

    /// The line of facts of a built-in type.
    pub(crate) fn facts(&self, name: &str) -> Option<&'static str> {
        self.types.get(name).map(|entry| entry.facts).filter(|facts| !facts.is_empty())
    }

    /// How protobuf carries a built-in type.
    pub(crate) fn message(&self, name: &str) -> Option<&Message> {
        let entry = self.types.get(name)?;
        Some(entry.message.get_or_init(|| Box::new(Message::read(entry.facts))))
    }

    /// The shape of a node with references followed. Unknown references are [`Shape::Any`].
    pub fn resolve<'a>(&'a self, node: &'a Node) -> &'a Shape {
        match &node.shape {
            Shape::Ref(name) => self.named(name).map_or(&Shape::Any, |target| self.resolve(target)),
            shape => shape,
        }
    }

    /// Whether the value is one unit for server-side apply: said by the field or by the type it refers to.
    pub fn is_atomic(&self, node: &Node) -> bool {
        node.atomic
            || matches!(&node.shape, Shape::Ref(name) if self.named(name).is_some_and(|t| self.is_atomic(t)))
    }
}

impl std::fmt::Debug for Schema {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Schema({} types)", self.types.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn field<'a>(of: &str, name: &str) -> &'a Node {
        let Some(Node { shape: Shape::Struct(body), .. }) = builtin().named(of) else {
            panic!("{of} is no struct")
        };
        &body.fields[name]
    }

    #[test]
    fn facts_become_nodes() {
        let ports = field("io.k8s.api.core.v1.ServiceSpec", "ports");
        expect![[r#"(Map, ["port", "protocol"], true, Some("port"), Dropped)"#]].assert_eq(&format!(
            "{:?}",
            (ports.list_type, &ports.map_keys, ports.patch_merge, &ports.patch_merge_key, ports.zero)
        ));
        let protocol = field("io.k8s.api.core.v1.ServicePort", "protocol");
        assert_eq!(protocol.default, Some(Value::from("TCP")));
        assert_eq!(field("io.k8s.api.apps.v1.DeploymentSpec", "replicas").zero, Zero::Kept);
        assert_eq!(field("io.k8s.api.core.v1.PodSpec", "hostNetwork").zero, Zero::Dropped);
        assert_eq!(field("io.k8s.api.core.v1.Container", "resources").zero, Zero::Written);
        assert!(builtin().is_atomic(field("io.k8s.api.apps.v1.DeploymentSpec", "selector")));
        assert!(field("io.k8s.api.core.v1.PodSpec", "volumes").patch_retain_keys);
    }

    #[test]
    fn every_line_of_facts_is_read_and_every_reference_is_known() {
        fn references(node: &Node, of: &str) {
            match &node.shape {
                Shape::Ref(name) => assert!(builtin().named(name).is_some(), "{of} refers to {name}"),
                Shape::List(inner) | Shape::Map(inner) => references(inner, of),
                Shape::Struct(body) => body.fields.values().for_each(|field| references(field, of)),
                _ => {}
            }
        }
        assert!(builtin().names().count() > 500);
        for (name, node) in builtin().types() {
            references(node, name);
        }
    }

    #[test]
    fn kinds_have_types() {
        assert_eq!(builtin().type_of("apps", "v1", "Deployment"), Some("io.k8s.api.apps.v1.Deployment"));
        assert_eq!(
            builtin().type_of("", "v1", "Status"),
            Some("io.k8s.apimachinery.pkg.apis.meta.v1.Status")
        );
        assert_eq!(builtin().type_of("apps", "v1", "Nothing"), None);
    }
}
