//! A stored object: encoded once, shared by everybody, never changed.
//!
//! The bytes are the JSON form *without* `metadata.resourceVersion`: the revision is known only after the write,
//! so it is spliced in wherever the object is written out. Store, caches and answers share the same buffer.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::views;

/// Namespace and name; the namespace is empty for cluster-scoped objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.namespace.as_str() {
            "" => out.write_str(&self.name),
            namespace => write!(out, "{namespace}/{}", self.name),
        }
    }
}

/// The part of `metav1.ObjectMeta` that the machinery itself reads.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectMeta {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub generation: i64,
    pub labels: BTreeMap<String, String>,
    pub deletion_timestamp: Option<String>,
    pub finalizers: Vec<String>,
    pub owner_references: Vec<OwnerReference>,
}

/// `metav1.OwnerReference`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_owner_deletion: Option<bool>,
}

/// An immutable object at one revision.
pub struct Object {
    body: Bytes,
    /// Where `"resourceVersion":"N",` goes: just behind the `{` of `metadata`.
    splice_at: usize,
    revision: u64,
    meta: ObjectMeta,
    /// By which its typed view is found.
    identity: u64,
    protobuf: OnceLock<Bytes>,
    node_name: OnceLock<Box<str>>,
}

/// Why bytes are not an object.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    #[error("the object is not valid JSON")]
    Json(#[from] serde_json::Error),
    #[error("the object has no metadata")]
    NoMetadata,
}

impl Object {
    /// Takes stored bytes (made by [`encode`]) and the revision they were written at.
    pub fn from_stored(body: Bytes, revision: u64) -> Result<Self, ObjectError> {
        #[derive(Deserialize)]
        struct Partial<'a> {
            #[serde(borrow)]
            metadata: Option<&'a serde_json::value::RawValue>,
        }
        let partial: Partial<'_> = serde_json::from_slice(&body)?;
        let raw = partial.metadata.ok_or(ObjectError::NoMetadata)?.get();
        let meta = serde_json::from_str(raw)?;
        // The raw metadata is a slice of the body, so the distance of the addresses is its offset.
        let splice_at = raw.as_ptr() as usize - body.as_ptr() as usize + 1;
        Ok(Self {
            body,
            splice_at,
            revision,
            meta,
            identity: views::identity(),
            protobuf: OnceLock::new(),
            node_name: OnceLock::new(),
        })
    }

    /// Takes a value, whose `metadata.resourceVersion` is ignored, and a revision (0: not stored).
    pub fn from_value(value: &Value, revision: u64) -> Result<Self, ObjectError> {
        Self::from_stored(encode(value), revision)
    }

    /// Takes an object as a server sent it, with its `resourceVersion` (absent: revision 0).
    pub fn from_wire(mut value: Value) -> Result<Self, ObjectError> {
        let revision = value
            .pointer("/metadata/resourceVersion")
            .and_then(Value::as_str)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        if value.get("metadata").is_none_or(Value::is_null) {
            value["metadata"] = Value::Object(Map::new());
        }
        Self::from_value(&value, revision)
    }

    /// The revision of the store at which this state was written: `metadata.resourceVersion`.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The metadata that the machinery reads.
    pub fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    /// Namespace and name.
    pub fn key(&self) -> Key {
        Key::new(self.meta.namespace.clone(), self.meta.name.clone())
    }

    /// The stored bytes, without `resourceVersion`.
    pub fn stored(&self) -> &Bytes {
        &self.body
    }

    /// Appends the full JSON form, with `resourceVersion`.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.reserve(self.body.len() + 48);
        out.extend_from_slice(&self.body[..self.splice_at]);
        if self.revision > 0 {
            out.extend_from_slice(format!("\"resourceVersion\":\"{}\"", self.revision).as_bytes());
            if self.body.get(self.splice_at) != Some(&b'}') {
                out.push(b',');
            }
        }
        out.extend_from_slice(&self.body[self.splice_at..]);
    }

    /// The full JSON form.
    pub fn json(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_json(&mut out);
        out
    }

    /// A changeable copy with `resourceVersion`.
    pub fn value(&self) -> Value {
        let mut value: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        if self.revision > 0 {
            value["metadata"]["resourceVersion"] = Value::String(self.revision.to_string());
        }
        value
    }

    /// The typed view, shared by those who ask at about the same time: see [`crate::views`].
    pub fn typed<T: DeserializeOwned + Send + Sync + 'static>(&self) -> Result<Arc<T>, ObjectError> {
        if let Some(view) = views::find(self.identity) {
            return Ok(view);
        }
        let typed: Arc<T> = Arc::new(serde_json::from_slice(&self.json())?);
        views::keep(self.identity, typed.clone());
        Ok(typed)
    }

    /// The typed view of a part of the object, made anew and kept by nobody: for readers of a few fields.
    pub fn part<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ObjectError> {
        Ok(serde_json::from_slice(&self.body)?)
    }

    /// `spec.nodeName`: the node that a pod is bound to; empty when there is none. Most who follow all pods want to know
    /// only whether one is theirs, so it is read at most once, and nothing else is decoded for it.
    pub fn node_name(&self) -> &str {
        #[derive(Deserialize)]
        struct Pod {
            spec: Option<Spec>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Spec {
            node_name: Option<Box<str>>,
        }
        let read = || self.part::<Pod>().ok()?.spec?.node_name;
        self.node_name.get_or_init(|| read().unwrap_or_default())
    }

    /// The protobuf form, made by `encode` at most once.
    pub fn protobuf(&self, encode: impl FnOnce(&Self) -> Bytes) -> Bytes {
        self.protobuf.get_or_init(|| encode(self)).clone()
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        views::forget(self.identity);
    }
}

impl std::fmt::Debug for Object {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Object({} @{})", self.key(), self.revision)
    }
}

/// The stored form of a value: compact JSON without `metadata.resourceVersion`.
pub fn encode(value: &Value) -> Bytes {
    let bytes = match value {
        Value::Object(fields) => serde_json::to_vec(&Stored(fields)),
        other => serde_json::to_vec(other),
    };
    // It will be kept for long: without the room that it grew into.
    Bytes::from(bytes.expect("a JSON value has only string keys and finite numbers").into_boxed_slice())
}

/// An object as it is stored.
struct Stored<'a>(&'a Map<String, Value>);

/// Metadata as it is stored.
struct StoredMetadata<'a>(&'a Map<String, Value>);

impl Serialize for Stored<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            match value {
                Value::Object(metadata) if name == "metadata" => {
                    map.serialize_entry(name, &StoredMetadata(metadata))?;
                }
                value => map.serialize_entry(name, value)?,
            }
        }
        map.end()
    }
}

impl Serialize for StoredMetadata<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().filter(|(name, _)| *name != "resourceVersion"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_revision_is_spliced_into_the_shared_bytes() {
        let value = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"metadata": "{}"},
            "metadata": {"name": "a", "namespace": "b", "resourceVersion": "3"}});
        let object = Object::from_value(&value, 12).unwrap();
        let read: Value = serde_json::from_slice(&object.json()).unwrap();
        assert_eq!(read["metadata"]["resourceVersion"], "12");
        assert_eq!(read, object.value());
        assert_eq!(object.key(), Key::new("b", "a"));
    }

    #[test]
    fn the_node_of_a_pod() {
        let cases = [
            (json!({"metadata": {}, "spec": {"containers": [], "nodeName": "a"}}), "a"),
            (json!({"metadata": {}, "spec": {"nodeName": "a\"b"}}), "a\"b"),
            (json!({"metadata": {}, "spec": {"nodeName": ""}}), ""),
            (json!({"metadata": {}, "spec": {}}), ""),
            (json!({"metadata": {}, "spec": {"nodeName": null}}), ""),
            (json!({"metadata": {}, "spec": null}), ""),
            (json!({"metadata": {}, "spec": "of another kind"}), ""),
            (json!({"metadata": {}}), ""),
        ];
        for (pod, expected) in cases {
            assert_eq!(Object::from_value(&pod, 1).unwrap().node_name(), expected, "{pod}");
        }
    }

    #[test]
    fn empty_metadata_and_revision_zero_stay_valid_json() {
        for revision in [0, 1] {
            let object = Object::from_value(&json!({"metadata": {}}), revision).unwrap();
            serde_json::from_slice::<Value>(&object.json()).unwrap();
        }
    }
}
