//! Rows. Router, discovery, OpenAPI, RBAC names, storage prefixes and the garbage collector read them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::Strategy;

/// Whether objects live in namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Namespaced,
    Cluster,
}

/// A subresource of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// `status`, `scale`, `log`, …
    pub name: String,
    /// The kind it takes and gives: group, version (empty: the row's own), kind.
    pub group: String,
    pub version: String,
    pub kind: String,
    pub verbs: Vec<String>,
}

/// One row: a resource in one version.
pub struct Resource {
    pub group: String,
    pub version: String,
    pub kind: String,
    /// Plural, as in paths.
    pub resource: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub scope: Scope,
    /// Empty for rows that are only computed (`tokenreviews`) or take only `create`.
    pub verbs: Vec<String>,
    pub subresources: Vec<Subresource>,
    /// The schema's type name, `io.k8s.api.core.v1.Pod`.
    pub schema: String,
    /// The key prefix, `/registry/pods/`; rows that are versions of one kind share it.
    pub storage_prefix: String,
    /// The version that is stored; objects of other versions are converted by the strategy. `/v1` when it is
    /// stored as a kind of another group (`events.k8s.io/v1` as core `v1`), so that it differs from `version`.
    pub storage_version: String,
    pub strategy: Arc<dyn Strategy>,
}

impl Resource {
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Whether served objects differ from stored ones: the pipeline then calls the strategy's `to_storage` before
    /// anything else looks at an object, and `from_storage` before it is sent.
    pub fn is_converted(&self) -> bool {
        self.version != self.storage_version
    }

    pub fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    pub fn supports(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }

    /// The store's key of an object.
    pub fn storage_key(&self, namespace: &str, name: &str) -> String {
        match self.scope {
            Scope::Namespaced => format!("{}{namespace}/{name}", self.storage_prefix),
            Scope::Cluster => format!("{}{name}", self.storage_prefix),
        }
    }
}

/// All rows that are served, in discovery order.
#[derive(Clone, Default)]
pub struct Table {
    rows: Vec<Arc<Resource>>,
    by_path: BTreeMap<(String, String, String), Arc<Resource>>,
}

impl Table {
    pub fn new(rows: Vec<Arc<Resource>>) -> Self {
        let by_path = rows
            .iter()
            .map(|row| ((row.group.clone(), row.version.clone(), row.resource.clone()), row.clone()))
            .collect();
        Self { rows, by_path }
    }

    pub fn rows(&self) -> &[Arc<Resource>] {
        &self.rows
    }

    pub fn find(&self, group: &str, version: &str, resource: &str) -> Option<&Arc<Resource>> {
        self.by_path.get(&(group.to_owned(), version.to_owned(), resource.to_owned()))
    }

    /// The row of a kind, e.g. of an owner reference.
    pub fn find_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.rows.iter().find(|row| row.group == group && row.version == version && row.kind == kind)
    }
}
