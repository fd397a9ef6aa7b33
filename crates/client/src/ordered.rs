//! Objects in the order of their keys. The keys stand in the objects themselves, so an entry is one pointer.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use machinery::{Key, Object};

/// A set of objects of which no two have the same namespace and name.
#[derive(Default)]
pub struct Ordered(BTreeSet<ByKey>);

impl Ordered {
    /// Adds an object in place of the one with its key, which is returned.
    pub fn insert(&mut self, object: Arc<Object>) -> Option<Arc<Object>> {
        self.0.replace(ByKey(object)).map(|ByKey(former)| former)
    }

    /// Removes the object that has the key of `object`.
    pub fn remove(&mut self, object: &Object) -> Option<Arc<Object>> {
        self.0.take(&Borrowed::of(object) as &dyn Named).map(|ByKey(former)| former)
    }

    pub fn get(&self, key: &Key) -> Option<&Arc<Object>> {
        self.0.get(key as &dyn Named).map(|ByKey(object)| object)
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.0.iter().map(|ByKey(object)| object)
    }

    /// Those of one namespace, in order.
    pub fn namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Object>> {
        let start = Borrowed { namespace, name: "" };
        let range =
            self.0.range::<dyn Named + '_, _>((Bound::Included(&start as &dyn Named), Bound::Unbounded));
        range.map(|ByKey(object)| object).take_while(move |object| object.meta().namespace == namespace)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

struct ByKey(Arc<Object>);

/// What has a namespace and a name: objects and keys are compared by it.
trait Named {
    fn names(&self) -> (&str, &str);
}

struct Borrowed<'a> {
    namespace: &'a str,
    name: &'a str,
}

impl<'a> Borrowed<'a> {
    fn of(object: &'a Object) -> Self {
        let meta = object.meta();
        Self { namespace: &meta.namespace, name: &meta.name }
    }
}

impl Named for Borrowed<'_> {
    fn names(&self) -> (&str, &str) {
        (self.namespace, self.name)
    }
}

impl Named for Key {
    fn names(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }
}

impl Named for ByKey {
    fn names(&self) -> (&str, &str) {
        let meta = self.0.meta();
        (&meta.namespace, &meta.name)
    }
}

impl PartialEq for dyn Named + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.names() == other.names()
    }
}

impl Eq for dyn Named + '_ {}

impl PartialOrd for dyn Named + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn Named + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.names().cmp(&other.names())
    }
}

impl<'a> Borrow<dyn Named + 'a> for ByKey {
    fn borrow(&self) -> &(dyn Named + 'a) {
        self
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.names() == other.names()
    }
}

impl Eq for ByKey {}

impl PartialOrd for ByKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.names().cmp(&other.names())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(namespace: &str, name: &str, revision: u64) -> Arc<Object> {
        let value = json!({"metadata": {"namespace": namespace, "name": name}});
        Arc::new(Object::from_value(&value, revision).unwrap())
    }

    fn shown<'a>(objects: impl Iterator<Item = &'a Arc<Object>>) -> Vec<String> {
        objects.map(|object| format!("{object:?}")).collect()
    }

    #[test]
    fn objects_are_ordered_replaced_and_removed_by_their_keys() {
        let mut all = Ordered::default();
        for (namespace, name) in [("b", "x"), ("a", "y"), ("", "z"), ("a", "x")] {
            assert!(all.insert(object(namespace, name, 1)).is_none());
        }
        assert_eq!(all.insert(object("a", "y", 2)).map(|former| former.revision()), Some(1));
        assert_eq!(shown(all.iter()), ["Object(z @1)", "Object(a/x @1)", "Object(a/y @2)", "Object(b/x @1)"]);
        assert_eq!(shown(all.namespace("a")), ["Object(a/x @1)", "Object(a/y @2)"]);
        assert_eq!(all.get(&Key::new("b", "x")).map(|found| found.revision()), Some(1));
        assert!(all.get(&Key::new("b", "y")).is_none());
        assert_eq!(all.remove(&object("a", "y", 9)).map(|former| former.revision()), Some(2));
        assert!(all.remove(&object("a", "y", 9)).is_none());
        assert_eq!(all.len(), 3);
    }
}
