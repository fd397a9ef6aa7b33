//! The seam between a client and the API server.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use machinery::{Object, Status};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a request is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// The API group; empty for the core group.
    pub group: String,
    pub version: String,
    /// The plural resource name, `pods`.
    pub resource: String,
    /// Empty for cluster-scoped resources and for all namespaces.
    pub namespace: String,
    /// Empty for collections and creates.
    pub name: String,
    /// `status`, `scale`, `binding`, `token`, …; empty for the object itself.
    pub subresource: String,
}

/// Query parameters of get and list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListOptions {
    pub label_selector: String,
    pub field_selector: String,
    /// Empty: the most recent state. `0`: any state that the server holds.
    pub resource_version: String,
    /// Empty, `Exact` or `NotOlderThan`.
    pub resource_version_match: String,
    /// At most this many objects; 0 for all.
    pub limit: u64,
    pub continue_token: String,
}

/// Query parameters of watch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WatchOptions {
    pub label_selector: String,
    pub field_selector: String,
    /// Events after this revision. Empty or `0`: the present objects come first as `Added`.
    pub resource_version: String,
    pub bookmarks: bool,
    /// Send the present objects first, then a bookmark annotated `k8s.io/initial-events-end`.
    pub send_initial_events: bool,
    /// The server ends the watch after this long; 0 leaves the choice to the server.
    pub timeout_seconds: u64,
}

/// Query parameters of create, update and patch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub field_manager: String,
    /// Empty (the server's default, `Warn`), `Ignore`, `Warn` or `Strict`.
    pub field_validation: String,
    /// For apply patches: take over fields that other managers own.
    pub force: bool,
}

/// The body of a patch; the variant is its media type.
#[derive(Clone, Debug, PartialEq)]
pub enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7386.
    Merge(Value),
    StrategicMerge(Value),
    /// Server-side apply of a full intent.
    Apply(Value),
}

/// `metav1.DeleteOptions`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeleteOptions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_period_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preconditions: Option<Preconditions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propagation_policy: Option<Propagation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orphan_dependents: Option<bool>,
    /// `["All"]` for a dry run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dry_run: Vec<String>,
}

/// `metav1.Preconditions`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Preconditions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
}

/// What becomes of the dependents of a deleted object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// A page of a list.
#[derive(Clone, Debug, Default)]
pub struct ObjectList {
    pub items: Vec<Arc<Object>>,
    pub revision: u64,
    /// Empty on the last page.
    pub continue_token: String,
    pub remaining_items: Option<u64>,
}

/// One event of a watch. `Deleted` carries the last state at the revision of the deletion.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    Added(Arc<Object>),
    Modified(Arc<Object>),
    Deleted(Arc<Object>),
    /// Everything up to `revision` was sent. `initial_events_end`: the present objects are complete.
    Bookmark {
        revision: u64,
        initial_events_end: bool,
    },
}

/// Events until the server ends the watch or an error, after which the stream ends.
pub type WatchStream = BoxStream<'static, Result<WatchEvent, Status>>;

/// What a delete did.
#[derive(Clone, Debug)]
pub enum Deleted {
    /// The object is gone; this was its last state.
    Now(Arc<Object>),
    /// It has finalizers or a grace period; this is its present state.
    Later(Arc<Object>),
}

/// The verbs of the API. Bodies are JSON values; answers are shared objects.
#[async_trait]
pub trait Transport: Send + Sync {
    async fn get(&self, target: &Target, options: &ListOptions) -> Result<Arc<Object>, Status>;
    async fn list(&self, target: &Target, options: &ListOptions) -> Result<ObjectList, Status>;
    async fn watch(&self, target: &Target, options: &WatchOptions) -> Result<WatchStream, Status>;
    async fn create(
        &self,
        target: &Target,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status>;
    async fn update(
        &self,
        target: &Target,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status>;
    async fn patch(
        &self,
        target: &Target,
        patch: Patch,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status>;
    async fn delete(&self, target: &Target, options: &DeleteOptions) -> Result<Deleted, Status>;
    async fn delete_collection(
        &self,
        target: &Target,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<(), Status>;
    /// A plain GET of any path with a query, for discovery, versions and logs.
    async fn raw(&self, path: &str) -> Result<Bytes, Status>;
}
