//! Rows and subresources that are computed instead of stored: one file each, registered by name in [`Computations`].
//!
//! This folder (and `connect`) is the only place of the API server that knows kinds.

mod access_review;
mod binding;
mod eviction;
mod metrics;
mod token_request;
mod token_review;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use client::{ListOptions, ObjectList, Target, WriteOptions};
use machinery::{Object, Status};
use serde_json::Value;

use crate::core::Core;
use crate::pipeline::Call;

/// A `create` that stores nothing under its own name: it answers a question or changes something else.
#[async_trait]
pub trait Computation: Send + Sync {
    /// Computes the answer; `body` is decoded, checked and defaulted.
    async fn compute(
        &self,
        core: &Arc<Core>,
        call: &Call,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Value, Status>;
}

/// A collection that is worked out when it is read.
#[async_trait]
pub trait View: Send + Sync {
    /// What is selected.
    async fn list(&self, core: &Core, call: &Call, options: &ListOptions) -> Result<ObjectList, Status>;

    /// The object that the call names.
    async fn get(&self, core: &Core, call: &Call) -> Result<Arc<Object>, Status>;
}

/// Computations by group, resource and subresource, and views by group and resource.
#[derive(Default)]
pub struct Computations {
    views: BTreeMap<(&'static str, &'static str), Arc<dyn View>>,
    by_name: BTreeMap<(&'static str, &'static str, &'static str), Arc<dyn Computation>>,
}

impl Computations {
    /// Registers a computation.
    pub fn register(
        &mut self,
        group: &'static str,
        resource: &'static str,
        subresource: &'static str,
        computation: impl Computation + 'static,
    ) {
        self.by_name.insert((group, resource, subresource), Arc::new(computation));
    }

    /// Registers a view.
    pub fn register_view(&mut self, group: &'static str, resource: &'static str, view: impl View + 'static) {
        self.views.insert((group, resource), Arc::new(view));
    }

    /// The view that a target is read from, if it is one.
    pub fn view(&self, target: &Target) -> Option<Arc<dyn View>> {
        self.views.get(&(target.group.as_str(), target.resource.as_str())).cloned()
    }

    /// The computation of a target, if it is one.
    pub fn find(&self, target: &Target) -> Option<Arc<dyn Computation>> {
        let key = (target.group.as_str(), target.resource.as_str(), target.subresource.as_str());
        self.by_name.get(&key).cloned()
    }
}

/// The computations of the built-in rows.
pub fn builtin() -> Computations {
    const AUTHENTICATION: &str = "authentication.k8s.io";
    const AUTHORIZATION: &str = "authorization.k8s.io";
    let mut all = Computations::default();
    all.register("", "bindings", "", binding::Binding);
    all.register("", "pods", "binding", binding::Binding);
    all.register("", "pods", "eviction", eviction::Eviction);
    all.register("", "serviceaccounts", "token", token_request::TokenRequest);
    all.register(AUTHENTICATION, "tokenreviews", "", token_review::TokenReview);
    all.register(AUTHENTICATION, "selfsubjectreviews", "", token_review::SelfSubjectReview);
    all.register(AUTHORIZATION, "subjectaccessreviews", "", access_review::SubjectAccessReview);
    all.register(AUTHORIZATION, "localsubjectaccessreviews", "", access_review::LocalSubjectAccessReview);
    all.register(AUTHORIZATION, "selfsubjectaccessreviews", "", access_review::SelfSubjectAccessReview);
    all.register(AUTHORIZATION, "selfsubjectrulesreviews", "", access_review::SelfSubjectRulesReview);
    let (nodes, pods) = metrics::views();
    all.register_view("metrics.k8s.io", "nodes", nodes);
    all.register_view("metrics.k8s.io", "pods", pods);
    all
}

/// The `Status` of a computation that has nothing to show.
fn created() -> Value {
    serde_json::json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})
}

/// A text in a value; empty when absent.
fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
